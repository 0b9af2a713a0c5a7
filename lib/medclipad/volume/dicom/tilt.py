"""Gantry tilt: slices that are shifted sideways against each other, resampled to lie straight above each other."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import shift

from medclipad.volume.blocks import finite_range


def is_tilted(affine: np.ndarray, slices: int) -> bool:
    """Whether the third axis leaves the normal of the slices by more than 0.1 mm and 1 part in 1000 of their height."""
    height, sideways = _step(affine)
    inside = np.linalg.norm(affine[:3, :2] @ sideways) * (slices - 1)
    return bool(inside > 0.1 + 1e-3 * abs(height) * (slices - 1))


def tilt_degrees(affine: np.ndarray) -> float:
    """Angle between the third axis and the normal of the slices."""
    height, sideways = _step(affine)
    return float(np.degrees(np.arctan2(np.linalg.norm(affine[:3, :2] @ sideways), abs(height))))


def upright(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(array, affine) of (I, J, K) slices whose third axis is slanted, as the smallest upright grid that holds all.

    Each slice keeps its plane and pixel spacing and is moved within it, by linear interpolation, to where the header
    says that it lies; the gaps at the border are filled with the lowest value of the volume (air). The result is
    float32, or float64 where 32 bits would lose integers.
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
        by = k * sideways - first
        shift(slice_, by, output=result[..., k], order=1, mode="grid-constant", cval=low, prefilter=False)
    return result, moved


def _step(affine: np.ndarray) -> tuple[float, np.ndarray]:
    """From one slice to the next: mm along the normal of the slices, and (2,) pixels along their axes."""
    plane, step = affine[:3, :2], affine[:3, 2]
    normal = np.cross(plane[:, 0], plane[:, 1])
    normal /= np.linalg.norm(normal)
    height = float(step @ normal)
    return height, np.linalg.lstsq(plane, step - height * normal, rcond=None)[0]
