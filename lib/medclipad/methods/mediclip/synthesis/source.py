"""Mass effect: a region is stretched away from a point in it, as if a mass grew there (Baugh et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from medclipad.methods.mediclip.synthesis.task import Region, Task, Window, check_variant, rotation
from medclipad.methods.registry import Variant

SHEAR = 0.2  # standard deviation of the shear


@dataclass(frozen=True)
class DeformedShape(Region):
    """A sheared and turned rectangle or ellipse, about the middle of its box.

    Attributes
    ----------
    mask
        bool (h, w).
    to_unit
        (2, 2). It maps offsets from the middle, in pixels, to the square of half side 1 or the disc of radius 1.
    ellipse
        Whether it is an ellipse.
    """

    to_unit: np.ndarray
    ellipse: bool

    def radius(self, points: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """Return how far points lie on the way from a centre to the edge.

        Parameters
        ----------
        points
            Rows and columns (2, N) in the box.
        centre
            (2,), inside the shape.

        Returns
        -------
        np.ndarray
            float64 (N,); 0 at the centre, 1 at the edge.
        """
        middle = (np.array(self.mask.shape) - 1) / 2
        start = self.to_unit @ (centre - middle)
        step = self.to_unit @ (points - centre[:, None])
        if self.ellipse:
            # 1 / t, where |start + t step| = 1.
            along, behind = start @ step, start @ start - 1
            return (along + np.sqrt(along**2 - (step**2).sum(axis=0) * behind)) / -behind
        start = start[:, None]
        return np.maximum(step / (1 - start), -step / (1 + start)).max(axis=0)


class Source(Task):
    """Stretches a region away from a point in it; the label is the region.

    Parameters
    ----------
    variant
        How the strength α is drawn: "reference", 2^U(0.5, 2); "paper", uniform in [√2, 4).

    Attributes
    ----------
    variant
        The variant.

    Raises
    ------
    TrainingError
        If the variant is unknown.

    Notes
    -----
    The content at radius r (1 at the edge) comes from radius r^α.
    """

    sides = (0.2, 0.6)

    def __init__(self, variant: Variant = "reference") -> None:
        check_variant(variant)
        self.variant = variant

    def region(self, size: int, rng: np.random.Generator) -> DeformedShape:
        """Draw a rectangle or ellipse for an image of `size` pixels a side."""
        return deformed_shape(size, self.bounds(size), rng)

    def alter(
        self, image: np.ndarray, window: Window, region: DeformedShape, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the window with a stretched region; see `Task.alter`."""
        inside = np.stack(np.nonzero(region.mask))
        centre = inside[:, rng.integers(inside.shape[1])]
        alpha = 2 ** rng.uniform(0.5, 2) if self.variant == "reference" else rng.uniform(math.sqrt(2), 4)
        # As in the reference, pixels on the border of the box stay where they are.
        last = np.array(region.mask.shape)[:, None] - 1
        inside = inside[:, ((inside > 0) & (inside < last)).all(axis=0)]
        patch = image[window].copy()
        patch[tuple(inside)] = map_coordinates(patch, stretched(region, inside, centre, alpha), mode="nearest")
        return patch, region.mask


def stretched(shape: DeformedShape, points: np.ndarray, centre: np.ndarray, alpha: float) -> np.ndarray:
    """Return where the content of points comes from, when a shape is stretched.

    Parameters
    ----------
    shape
        The shape.
    points
        Rows and columns (2, N) inside it.
    centre
        Point (2,) from which it is stretched.
    alpha
        Strength α > 1.

    Returns
    -------
    np.ndarray
        Rows and columns float64 (2, N), nearer to the centre.
    """
    centre = np.asarray(centre)
    return centre[:, None] + (points - centre[:, None]) * shape.radius(points, centre) ** (alpha - 1)


def deformed_shape(size: int, bounds: tuple[int, int], rng: np.random.Generator) -> DeformedShape:
    """Draw a sheared and turned rectangle or ellipse.

    Parameters
    ----------
    size
        Side of the image in pixels.
    bounds
        Shortest and longest side of the shape in pixels. Its box is at most 2 pixels longer.
    rng
        Source of everything that is drawn.
    """
    ellipse = bool(rng.integers(2))
    sides = np.array([int(np.clip((0.03 + rng.gamma(2, 0.1)) * size, *bounds)) for _ in range(2)])
    shear = np.array([[1, rng.normal(scale=SHEAR)], [rng.normal(scale=SHEAR), 1]])
    matrix = rotation(rng.uniform(-math.pi / 2, math.pi / 2)) @ shear
    box = 2 * _reach(matrix, sides) + 1
    if box.max() > bounds[1]:
        matrix = matrix * (bounds[1] / box.max())
    height, width = _reach(matrix, sides)
    to_unit = np.linalg.inv(matrix) / (sides[:, None] / 2)
    rows, columns = np.arange(-height, height + 1)[:, None], np.arange(-width, width + 1)
    unit = to_unit[:, 0, None, None] * rows + to_unit[:, 1, None, None] * columns
    mask = (unit**2).sum(axis=0) <= 1 if ellipse else np.abs(unit).max(axis=0) <= 1
    return DeformedShape(mask, to_unit, ellipse)


def _reach(matrix: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Return the whole pixels from the middle to the outermost pixel of a rectangle of `sides` under a matrix."""
    return np.ceil(np.abs(matrix) @ ((sides - 1) / 2)).astype(int)
