"""Stored values that the file scales: the type that holds what they become."""

from __future__ import annotations

import numpy as np

_SINGLE = np.finfo(np.float32)
_STEPS = 2.0**22  # float32 tells so many numbers apart, with some to spare
_FLOATS = 1e15  # values of a floating-point image are left as much room


def scaled_type(stored: np.dtype, slope: float, intercept: float) -> np.dtype:
    """Type of stored * slope + intercept: float32 where that loses nothing that the stored values tell apart, else
    float64."""
    room = float(np.iinfo(stored).max) * 2 if stored.kind in "iu" else _FLOATS
    fits = _SINGLE.tiny * (1 if stored.kind in "iu" else _FLOATS) <= abs(slope) and (
        abs(slope) * room + abs(intercept) <= _SINGLE.max
    )
    fine = stored.kind not in "iu" or abs(intercept) <= abs(slope) * _STEPS
    return np.result_type(stored, np.float32) if fits and fine else np.dtype(np.float64)
