"""The data type that holds stored values after the file's own scaling."""

from __future__ import annotations

import numpy as np

_SINGLE = np.finfo(np.float32)
_STEPS = 2.0**22  # float32 distinguishes this many numbers, with some to spare
_FLOATS = 1e15  # margin for the values of a floating-point image, whose range is not known beforehand


def scaled_type(stored: np.dtype, slope: float, intercept: float) -> np.dtype:
    """Return the data type for stored * slope + intercept.

    Parameters
    ----------
    stored
        Data type of the stored values.
    slope, intercept
        The file's scaling.

    Returns
    -------
    numpy.dtype
        float32 (or a wider type where `stored` needs it) if that keeps all stored values apart, else float64.
    """
    room = float(np.iinfo(stored).max) * 2 if stored.kind in "iu" else _FLOATS
    fits = _SINGLE.tiny * (1 if stored.kind in "iu" else _FLOATS) <= abs(slope) and (
        abs(slope) * room + abs(intercept) <= _SINGLE.max
    )
    fine = stored.kind not in "iu" or abs(intercept) <= abs(slope) * _STEPS
    return np.result_type(stored, np.float32) if fits and fine else np.dtype(np.float64)
