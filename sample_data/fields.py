"""Smooth displacement fields on a coarse lattice over the head, in millimetres.

A field holds a vector d for each lattice point p: what is shown at p is taken from p + d (a *backward* map).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from sample_data.template import TEMPLATE_ORIGIN, TEMPLATE_SHAPE

STEP = 3.0  # mm between lattice points; the fields are smooth over at least 4 mm
LATTICE_ORIGIN = TEMPLATE_ORIGIN - 6  # a little more than the template, so that a displaced head still lies inside
LATTICE_SHAPE = tuple(int(np.ceil((n + 12) / STEP)) + 1 for n in TEMPLATE_SHAPE)


def lattice() -> np.ndarray:
    """Return the millimetre coordinates of the lattice points, (3, *LATTICE_SHAPE) float32."""
    axes = [origin + STEP * np.arange(n) for origin, n in zip(LATTICE_ORIGIN, LATTICE_SHAPE, strict=True)]
    return np.stack(np.meshgrid(*axes, indexing="ij")).astype(np.float32)


def voxel_points(matrix: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return the millimetre coordinates of voxel indices (3, ...) under a matrix (4, 4), float32."""
    shape = (3,) + (1,) * (index.ndim - 1)
    linear, origin = matrix[:3, :3].astype(np.float32), matrix[:3, 3].astype(np.float32)
    return np.tensordot(linear, index.astype(np.float32), axes=1) + origin.reshape(shape)


def smooth_noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: float) -> np.ndarray:
    """Return a Gaussian random field with unit root mean square, correlated over `sigma` grid steps, float32."""
    field = ndimage.gaussian_filter(rng.standard_normal(shape).astype(np.float32), sigma)
    return field / np.sqrt(np.mean(field**2))


def evaluate(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Interpolate a lattice field linearly.

    Parameters
    ----------
    field
        Values (*LATTICE_SHAPE), or vectors (3, *LATTICE_SHAPE).
    points
        Millimetre coordinates (3, ...).

    Returns
    -------
    numpy.ndarray
        Values (...) or vectors (3, ...) at the points, float32.
    """
    shape = (3,) + (1,) * (points.ndim - 1)
    index = (points - LATTICE_ORIGIN.reshape(shape).astype(points.dtype)) / np.float32(STEP)
    components = field[None] if field.ndim == 3 else field
    values = [ndimage.map_coordinates(c, index, output=np.float32, order=1, mode="nearest") for c in components]
    return values[0] if field.ndim == 3 else np.stack(values)


def compose(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the field of two in turn: p -> q + outer(q) with q = p + inner(p)."""
    return inner + evaluate(outer, lattice() + inner)


def invert_at(field: np.ndarray, target: np.ndarray, iterations: int = 30) -> np.ndarray:
    """Return the point p (3,) for which p + field(p) = target (3,), found by fixed-point iteration."""
    point = np.asarray(target, np.float32)
    for _ in range(iterations):
        point = target - evaluate(field, point[:, None])[:, 0]
    return point
