"""In which precision a frozen encoder computes: float32 as the reference codes, or bfloat16 where that is faster."""

from __future__ import annotations

import torch

from medclipad.errors import DetectorError

PRECISIONS = ("auto", "float32", "bfloat16")
_FAST = ("avx512_bf16", "amx_bf16")  # instructions that multiply bfloat16 matrices


def resolve_precision(precision: str, device: torch.device) -> torch.dtype:
    """The type of an encoder's weights and tokens: of "auto", bfloat16 where the device has instructions for it.

    Raises DetectorError for another word than those of `PRECISIONS`.
    """
    if precision not in PRECISIONS:
        raise DetectorError(f'Precision "{precision}" is not known: give {", ".join(PRECISIONS[:-1])} or bfloat16.')
    if precision == "auto":
        precision = "bfloat16" if _fast_at_bfloat16(device) else "float32"
    return getattr(torch, precision)


def _fast_at_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # torch before 2.11
        return False
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _FAST)
