"""What all tasks share: one or two regions of a normal image are altered, and the altered pixels are labelled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from medclipad.errors import TrainingError

VARIANTS = ("reference", "paper")
"""What the reference code does, and what the paper says."""

MINIMUM_SIZE = 32
"""Pixels a side below which regions would be too small to have a shape."""

MOST_REGIONS = 2
ANOTHER_REGION = 0.5  # its probability

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Region:
    """Where an anomaly is put: mask is bool (h, w), not empty, inside its bounding box."""

    mask: np.ndarray


class Task(ABC):
    """One kind of anomaly. Sizes are parts of the image's side, so that they scale with it."""

    sides: ClassVar[tuple[float, float]]
    """Shortest and longest side of a region, as part of the image's side."""

    working_type: ClassVar[type] = np.uint8
    """Type of the image between two regions."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Put one or two anomalies on a normal image uint8 (S, S), which is left as it is.

        Returns the altered image uint8 (S, S) and its label float64 (S, S) in [0, 1], 0 where the image is unchanged.
        Raises TrainingError if the image is not uint8, not square, or smaller than MINIMUM_SIZE.
        """
        check_image(image)
        working = image.astype(self.working_type)
        altered = np.zeros(image.shape, dtype=bool)
        for _ in range(MOST_REGIONS):
            region = self.region(len(image), rng)
            window = place(region.mask.shape, image.shape, rng)
            working[window], changed = self.alter(working, window, region, rng)
            altered[window] |= changed
            if rng.random() > ANOTHER_REGION:
                break
        result = working.astype(np.uint8)
        return result, self.label(result, image, altered)

    def bounds(self, size: int) -> tuple[int, int]:
        """Shortest and longest side of a region in pixels, in an image of `size` pixels a side."""
        shortest, longest = self.sides
        return round(shortest * size), round(longest * size)

    @abstractmethod
    def region(self, size: int, rng: np.random.Generator) -> Region:
        """Draw a region for an image of `size` pixels a side."""

    @abstractmethod
    def alter(
        self, image: np.ndarray, window: Window, region: Region, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """New content of image[window] and the mask of its altered pixels, both (h, w); image itself is only read."""

    def label(self, result: np.ndarray, image: np.ndarray, altered: np.ndarray) -> np.ndarray:
        """float64 (S, S) label of `result`, which differs from `image` in the pixels `altered`: 1 in all of them."""
        return altered.astype(np.float64)


def place(shape: tuple[int, int], size: tuple[int, int], rng: np.random.Generator) -> Window:
    """Draw a window of `shape` that lies within an image of `size`."""
    row, column = rng.integers((0, 0), np.subtract(size, shape), endpoint=True)
    return slice(row, row + shape[0]), slice(column, column + shape[1])


def rotation(angle: float) -> np.ndarray:
    """(2, 2) matrix that turns the first axis towards the second by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def check_image(image: np.ndarray) -> None:
    """Raises TrainingError unless image is uint8 (S, S) with S >= MINIMUM_SIZE."""
    if image.dtype != np.uint8 or image.ndim != 2 or image.shape[0] != image.shape[1] or len(image) < MINIMUM_SIZE:
        raise TrainingError(
            f"Anomalies are put on square uint8 images of at least {MINIMUM_SIZE} pixels a side, "
            f"not on {image.dtype} {image.shape}: frame the slice as a square and scale it to 0..255 first."
        )


def check_variant(variant: str) -> None:
    """Raises TrainingError unless variant is one of VARIANTS."""
    if variant not in VARIANTS:
        raise TrainingError(f"There is no variant {variant!r} of the synthesis: use one of {', '.join(VARIANTS)}.")
