"""Clock of `benchmarks.speed`: seconds in units of U, and the machine's peak of matrix products."""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

PEAK_SHAPE = (1160, 1024, 4096)  # tokens of four slices through the widest layer of a ViT-L
PEAK_REPETITIONS = 10

Work = Callable[[], object]
Shape = tuple[int, ...]


def seconds_of(work: Work) -> float:
    """Return the wall seconds of a call, until what it started on a GPU has ended."""
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


class Clock:
    """Clock that times work in units of U, which runs before and after each repetition.

    Parameters
    ----------
    unit
        Computes U once.
    device
        Where the work computes.
    max_repetitions
        Limit of the repetitions, for a smoke run.
    """

    def __init__(self, unit: Work, device: torch.device, max_repetitions: int | None = None) -> None:
        self._unit, self._device, self._max_repetitions = unit, device, max_repetitions
        unit()  # the first call is slower

    def ratio(
        self, work: Work, count: float = 1, repetitions: int = 5, timed: Callable[[Work], float] = seconds_of
    ) -> dict:
        """Time one of `count` items of a call.

        Parameters
        ----------
        work
            The call.
        count
            Number of items, such as slices, that it processes.
        repetitions
            Number of calls.
        timed
            Returns the seconds of the call.

        Returns
        -------
        dict
            "measured" is the median ratio of the item's seconds to the mean of U before and after, "values" are the
            ratios, "seconds" and "unit_seconds" the median times of an item and of U.
        """
        ratios, spent, units = [], [], []
        for _ in range(min(repetitions, self._max_repetitions or repetitions)):
            before = seconds_of(self._unit)
            own = timed(work) / count
            after = seconds_of(self._unit)
            spent.append(own)
            units += [before, after]
            ratios.append(own / ((before + after) / 2))
        return {"measured": median(ratios), "values": ratios, "seconds": median(spent), "unit_seconds": median(units)}

    def share_of_peak(self, flops: float, seconds: float, dtype: torch.dtype) -> dict:
        """Return the rate of floating-point operations as a share of the peak of `dtype`, which is measured now."""
        now = peak(dtype, self._device)
        share = flops / 1e9 / seconds / now
        return {
            "gflop": flops / 1e9,
            "precision": str(dtype).removeprefix("torch."),
            "peak_gflops": now,
            "share_of_peak": share,
        }


def peak(dtype: torch.dtype, device: torch.device) -> float:
    """Return the GFLOP/s of the fastest of ten linear layers of PEAK_SHAPE."""
    rows, inner, columns = PEAK_SHAPE
    x, weight = (torch.randn(n, inner, device=device).to(dtype) for n in (rows, columns))
    with torch.inference_mode():
        F.linear(x, weight)
        fastest = min(seconds_of(lambda: F.linear(x, weight)) for _ in range(PEAK_REPETITIONS))
    return 2e-9 * rows * inner * columns / fastest


def flops_of(work: Work) -> int:
    """Count the floating-point operations of the matrix products, convolutions and attention of a call."""
    aten = torch.ops.aten
    formulas = {  # torch's counter has only those of GPUs
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
    }
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        work()
    return counter.get_total_flops()


def _attention(query: Shape, key: Shape, value: Shape, *args: object, **kwargs: object) -> int:
    """Count the operations of attention, given the shapes of the tensors."""
    return sdpa_flop_count(query, key, value)


def _attention_backward(grad: Shape, query: Shape, key: Shape, value: Shape, *args: object, **kwargs: object) -> int:
    """Count the operations of its gradients."""
    return sdpa_backward_flop_count(grad, query, key, value)
