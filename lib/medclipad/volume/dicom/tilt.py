"""Gantry tilt: detect slices that are shifted sideways, and resample them to an upright stack."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import shift

from medclipad.volume.blocks import finite_range


def is_tilted(affine: np.ndarray, slices: int) -> bool:
    """Return whether a stack of slices is tilted.

    Parameters
    ----------
    affine
        (4, 4) of (column, row, slice) to mm.
    slices
        Number of slices.

    Returns
    -------
    bool
        True if the last slice is shifted sideways by more than 0.1 mm plus 1/1000 of the height of the stack.
    """
    height, sideways = _step(affine)
    inside = np.linalg.norm(affine[:3, :2] @ sideways) * (slices - 1)
    return bool(inside > 0.1 + 1e-3 * abs(height) * (slices - 1))


def tilt_degrees(affine: np.ndarray) -> float:
    """Return the angle in degrees between the third axis of an affine and the normal of its slices."""
    height, sideways = _step(affine)
    return float(np.degrees(np.arctan2(np.linalg.norm(affine[:3, :2] @ sideways), abs(height))))


def resample_upright(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return tilted slices on the smallest upright grid that contains them all.

    Parameters
    ----------
    array
        (I, J, K) slices along the third axis.
    affine
        (4, 4) whose third axis is slanted, index to mm.

    Returns
    -------
    array : numpy.ndarray
        (I', J', K) float32, or float64 where 32 bits would lose integers.
    affine : numpy.ndarray
        (4, 4) whose third axis is perpendicular to the slices.

    Notes
    -----
    Each slice keeps its plane and pixel spacing and is moved within its plane, by linear interpolation, to its position
    in the header. The gaps at the border are filled with the lowest value of the volume (air).
    """
    height, sideways = _step(affine)
    count = array.shape[2]
    ends = np.array([sideways * 0, sideways * (count - 1)])
    first = np.floor(ends.min(axis=0) + 1e-6)
    last = np.ceil(ends.max(axis=0) - 1e-6)
    size = tuple(int(n) for n in array.shape[:2] + last - first)
    normal = np.cross(affine[:3, 0], affine[:3, 1])
    moved = affine.copy()
    moved[:3, 2] = height * normal / np.linalg.norm(normal)
    moved[:3, 3] += affine[:3, :2] @ first
    dtype = np.result_type(array.dtype, np.float32)
    low, _ = finite_range(array) or (0.0, 0.0)
    result = np.full((*size, count), low, dtype=dtype, order="F")
    for k in range(count):
        slice_ = np.full(size, low, dtype=dtype)
        slice_[: array.shape[0], : array.shape[1]] = array[..., k]
        pixels = k * sideways - first
        shift(slice_, pixels, output=result[..., k], order=1, mode="grid-constant", cval=low, prefilter=False)
    return result, moved


def _step(affine: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the step between slices: mm along their normal, and (2,) pixels along their axes."""
    plane, step = affine[:3, :2], affine[:3, 2]
    normal = np.cross(plane[:, 0], plane[:, 1])
    normal /= np.linalg.norm(normal)
    height = float(step @ normal)
    return height, np.linalg.lstsq(plane, step - height * normal, rcond=None)[0]
