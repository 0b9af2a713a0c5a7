"""Precision of a frozen encoder: float32 as in the reference codes, or bfloat16 where that is faster."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclipad.errors import DetectorError

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16")
_FAST = ("avx512_bf16", "amx_bf16")  # instructions that multiply bfloat16 matrices


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """Return the type of an encoder's weights and tokens.

    Parameters
    ----------
    precision
        "float32", "bfloat16", or "auto": bfloat16 where the device has instructions for it, else float32.
    device
        Device that the encoder computes on.

    Raises
    ------
    DetectorError
        If the precision is not one of `PRECISIONS`.
    """
    import torch

    if precision not in PRECISIONS:
        raise DetectorError(f'Precision "{precision}" is not known: give {", ".join(PRECISIONS[:-1])} or bfloat16.')
    if precision == "auto":
        precision = "bfloat16" if _is_fast_at_bfloat16(device) else "float32"
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]


def _is_fast_at_bfloat16(device: torch.device) -> bool:
    """Return whether the device has instructions for products of bfloat16 matrices."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # torch before 2.11
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _FAST)
