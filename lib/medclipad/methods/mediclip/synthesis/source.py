"""Mass effect: a region is stretched away from a point in it, as if something grew there (Baugh et al. 2023)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import map_coordinates

from medclipad.methods.mediclip.synthesis.task import Region, Task, Window, check_variant, rotation

SHEAR = 0.2  # standard deviation


@dataclass(frozen=True)
class DeformedShape(Region):
    """A sheared and turned rectangle or ellipse, about the middle of its box."""

    to_unit: np.ndarray
    """(2, 2), takes offsets from the middle in pixels to the square or disc of half side or radius 1."""
    ellipse: bool

    def radius(self, points: np.ndarray, centre: np.ndarray) -> np.ndarray:
        """How far each of points (2, N) lies on its way from centre (2,) to the edge: float64 (N,), 0 to 1."""
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
    """Samples a point at radius r (1 at the edge) from r^alpha; the label is the region.

    variant "reference": alpha = 2^U(0.5, 2); "paper": alpha uniform in [sqrt 2, 4).
    Raises TrainingError for another variant.
    """

    sides = (0.2, 0.6)

    def __init__(self, variant: str = "reference") -> None:
        check_variant(variant)
        self.variant = variant

    def region(self, size: int, rng: np.random.Generator) -> DeformedShape:
        return deformed_shape(size, self.bounds(size), rng)

    def alter(
        self, image: np.ndarray, window: Window, region: DeformedShape, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
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
    """Where the content of points (2, N) comes from: float64 (2, N), pulled towards centre (2,)."""
    centre = np.asarray(centre)
    return centre[:, None] + (points - centre[:, None]) * shape.radius(points, centre) ** (alpha - 1)


def deformed_shape(size: int, bounds: tuple[int, int], rng: np.random.Generator) -> DeformedShape:
    """Draw a rectangle or ellipse for an image of `size` pixels: sides within bounds, box at most 2 pixels longer."""
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
    """Whole pixels from the middle to the outermost pixel of a rectangle of `sides` pixels under matrix."""
    return np.ceil(np.abs(matrix) @ ((sides - 1) / 2)).astype(int)
