"""The clock of `benchmarks.speed`: seconds in units of U, and the machine's matrix-multiply peak."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

PEAK_SHAPE = (1160, 1024, 4096)  # four slices' tokens through a ViT-L's widest layer
PEAK_REPETITIONS = 10

Work = Callable[[], object]


def seconds_of(work: Work) -> float:
    """Wall seconds of a call, to the end of what it started on a GPU."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Clock:
    """Times work against U, which runs before and after each repetition."""

    def __init__(self, unit: Work, device: torch.device, most: int | None = None) -> None:
        """`most` repetitions, whatever is asked for: of a smoke run."""
        self._unit, self._device, self._most = unit, device, most
        unit()  # the first is slower

    def ratio(
        self, work: Work, count: float = 1, repetitions: int = 5, timed: Callable[[Work], float] = seconds_of
    ) -> dict:
        """Of one of `count` items of `work`: median of seconds / mean of U's before and after, and median seconds."""
        ratios, spent, units = [], [], []
        for _ in range(min(repetitions, self._most or repetitions)):
            before = seconds_of(self._unit)
            own = timed(work) / count
            after = seconds_of(self._unit)
            spent.append(own)
            units += [before, after]
            ratios.append(own / ((before + after) / 2))
        return {"measured": median(ratios), "values": ratios, "seconds": median(spent), "unit_seconds": median(units)}

    def share_of_peak(self, flops: float, seconds: float, dtype: torch.dtype) -> dict:
        """Floating-point operations a second as a part of the peak of `dtype`, which is measured now."""
        now = peak(dtype, self._device)
        share = flops / 1e9 / seconds / now
        return {
            "gflop": flops / 1e9,
            "precision": str(dtype).removeprefix("torch."),
            "peak_gflops": now,
            "share_of_peak": share,
        }


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """GFLOP/s of the fastest of ten linear layers of PEAK_SHAPE."""
    rows, inner, columns = PEAK_SHAPE
    x, weight = (torch.randn(n, inner, device=device).to(dtype) for n in (rows, columns))
    with torch.inference_mode():
        F.linear(x, weight)
        fastest = min(seconds_of(lambda: F.linear(x, weight)) for _ in range(PEAK_REPETITIONS))
    return 2e-9 * rows * inner * columns / fastest


def flops_of(work: Work) -> int:
    """Floating-point operations of the matrix products, convolutions and attention of a call."""
    aten = torch.ops.aten
    formulas = {  # torch's counter has those of GPUs only
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    return counter.get_total_flops()


# The counter calls them with the shapes of the tensors.
def _attention(query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad, query, key, value, *args, out_shape=None, **kwargs) -> int:
    return sdpa_backward_flop_count(grad, query, key, value)
