"""Base of all tasks: one or two regions of a normal image are altered, and the altered pixels are labelled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from medclipad.errors import TrainingError
from medclipad.methods.registry import Variant

VARIANTS: tuple[Variant, ...] = ("reference", "paper")
"""What the reference code does, and what the paper says."""

MINIMUM_SIZE = 32
"""Least side of an image in pixels; in smaller ones regions would be too small to have a shape."""

MAX_REGIONS = 2
SECOND_REGION = 0.5  # probability of a second region

Window = tuple[slice, slice]
"""Rows and columns of a part of an image."""


@dataclass(frozen=True)
class Region:
    """Shape of an anomaly.

    Attributes
    ----------
    mask
        bool (h, w), the shape inside its bounding box; not empty.
    """

    mask: np.ndarray


class Task(ABC):
    """One kind of anomaly.

    Attributes
    ----------
    sides
        Shortest and longest side of a region, as fractions of the image's side.
    working_type
        Type of the image while regions are altered.
    """

    sides: ClassVar[tuple[float, float]]
    working_type: ClassVar[type] = np.uint8

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a normal image with one or two anomalies.

        Parameters
        ----------
        image
            uint8 (S, S); it is not changed.
        rng
            Source of everything that is drawn.

        Returns
        -------
        image
            Altered image, uint8 (S, S).
        label
            float64 (S, S) in [0, 1]; 0 where the image is unchanged.

        Raises
        ------
        TrainingError
            If the image is not uint8, not square, or smaller than `MINIMUM_SIZE`.
        """
        check_image(image)
        working = image.astype(self.working_type)
        altered = np.zeros(image.shape, dtype=bool)
        for _ in range(MAX_REGIONS):
            region = self.region(len(image), rng)
            window = draw_window(region.mask.shape, image.shape, rng)
            working[window], changed = self.alter(working, window, region, rng)
            altered[window] |= changed
            if rng.random() > SECOND_REGION:
                break
        result = working.astype(np.uint8)
        return result, self.label(result, image, altered)

    def bounds(self, size: int) -> tuple[int, int]:
        """Return the shortest and longest side of a region in pixels, in an image of `size` pixels a side."""
        shortest, longest = self.sides
        return round(shortest * size), round(longest * size)

    @abstractmethod
    def region(self, size: int, rng: np.random.Generator) -> Region:
        """Draw a region for an image of `size` pixels a side."""

    @abstractmethod
    def alter(
        self, image: np.ndarray, window: Window, region: Region, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return an altered part of an image.

        Parameters
        ----------
        image
            (S, S), of `working_type`; it is not changed.
        window
            Part of the image to alter, (h, w).
        region
            Shape of the anomaly, as `region` drew it.
        rng
            Source of everything that is drawn.

        Returns
        -------
        patch
            New content of the window, (h, w).
        altered
            Its altered pixels, bool (h, w).
        """

    def label(self, result: np.ndarray, image: np.ndarray, altered: np.ndarray) -> np.ndarray:
        """Return the label of an altered image: 1 in all altered pixels, unless a task overrides it.

        Parameters
        ----------
        result
            Altered image, uint8 (S, S).
        image
            The image before, uint8 (S, S).
        altered
            bool (S, S).

        Returns
        -------
        np.ndarray
            float64 (S, S) in [0, 1].
        """
        return altered.astype(np.float64)


def draw_window(shape: tuple[int, ...], size: tuple[int, ...], rng: np.random.Generator) -> Window:
    """Draw a window of `shape` (h, w) that lies within an image of `size` (H, W)."""
    row, column = rng.integers((0, 0), np.subtract(size, shape), endpoint=True)
    return slice(row, row + shape[0]), slice(column, column + shape[1])


def rotation(angle: float) -> np.ndarray:
    """Return the matrix (2, 2) that turns the first axis towards the second by `angle` radians."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin], [sin, cos]])


def check_image(image: np.ndarray) -> None:
    """Raise TrainingError unless an image is uint8 (S, S) with S ≥ `MINIMUM_SIZE`."""
    if image.dtype != np.uint8 or image.ndim != 2 or image.shape[0] != image.shape[1] or len(image) < MINIMUM_SIZE:
        raise TrainingError(
            f"Anomalies are put on square uint8 images of at least {MINIMUM_SIZE} pixels a side, "
            f"not on {image.dtype} {image.shape}: frame the slice as a square and scale it to 0..255 first."
        )


def check_variant(variant: str) -> None:
    """Raise TrainingError unless the variant is one of `VARIANTS`."""
    if variant not in VARIANTS:
        raise TrainingError(f"There is no variant {variant!r} of the synthesis: use one of {', '.join(VARIANTS)}.")
