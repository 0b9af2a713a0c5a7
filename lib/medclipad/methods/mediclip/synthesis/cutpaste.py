"""Foreign tissue: a turned and scaled piece of another normal image is pasted in (CutPaste, Li et al. 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from scipy.ndimage import affine_transform, binary_fill_holes, find_objects, grey_closing, label

from medclipad.errors import TrainingError
from medclipad.methods.mediclip.synthesis.perlin import perlin_region
from medclipad.methods.mediclip.synthesis.task import (
    Region,
    Task,
    Window,
    check_image,
    check_variant,
    draw_window,
    rotation,
)
from medclipad.methods.registry import Variant

LARGEST_SOURCE = 0.8  # side of the piece that is cut out, at most, as a fraction of the source image's side
SCALING = 0.1  # mean by which a scale exceeds 1
LABELS = 1 - np.exp(-(np.arange(3.0) ** 2) / (2 * 0.2**2))  # for a grey value that changed by 0, by 1, by 2 or more


class CutPaste(Task):
    """Pastes a turned and scaled piece of another normal image.

    The label is close to 1 where the grey value changed, small unchanged gaps included.

    Parameters
    ----------
    support
        Normal images to cut from, uint8 (N, S, S); the one that is altered may be among them.
    variant
        "reference": a hard paste, as coded. "paper": Poisson image editing (Pérez et al. 2003) as OpenCV does it, which
        keeps 3 pixels of the region's rim and may shade its surroundings; these are labelled too.

    Attributes
    ----------
    support
        The normal images.
    variant
        The variant.

    Raises
    ------
    TrainingError
        If the variant is unknown, or the support is empty or not square uint8 images of one size.
    """

    sides = (0.1, 0.6)

    def __init__(self, support: np.ndarray | Sequence[np.ndarray], variant: Variant = "reference") -> None:
        check_variant(variant)
        if not len(support):
            raise TrainingError("CutPaste takes its patches from normal images: give at least one.")
        if len({image.shape for image in support}) > 1:
            raise TrainingError("CutPaste needs normal images of one size: bring them to the same size first.")
        self.support = np.stack(list(support))
        check_image(self.support[0])
        self.variant = variant

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a normal image with one or two pasted pieces; see `Task`."""
        if image.shape != self.support.shape[1:]:
            raise TrainingError(
                f"The image has shape {image.shape} and the normal images to cut from {self.support.shape[1:]}: "
                "bring them to the same size first."
            )
        return super().__call__(image, rng)

    def region(self, size: int, rng: np.random.Generator) -> Region:
        """Draw a cloud-shaped region for an image of `size` pixels a side."""
        return perlin_region(self.bounds(size), rng)

    def alter(
        self, image: np.ndarray, window: Window, region: Region, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the window with a piece of another image pasted in; see `Task.alter`."""
        patch = cut(self.support[rng.integers(len(self.support))], region.mask.shape, rng)
        if self.variant == "paper":
            return _blend(image, window, region.mask, patch)
        return np.where(region.mask, patch, image[window]), region.mask

    def label(self, result: np.ndarray, image: np.ndarray, altered: np.ndarray) -> np.ndarray:
        """Return the label of an altered image; see `Task.label`."""
        # As in the reference the difference wraps around, -1 being 255; from 2 on its label is 1 to the last bit.
        change = np.where(altered, np.minimum(result - image, 2), 0)
        # Each connected part is closed within its own box.
        parts = np.empty(altered.shape, np.int32)
        label(altered, output=parts)
        for box in find_objects(parts):
            closed = grey_closing(change[box], size=3)
            filled = [np.asarray(binary_fill_holes(closed >= level, np.ones((3, 3)))) for level in (1, 2)]
            change[box] = np.sum(filled, axis=0, dtype=np.uint8)
        return LABELS[change]


def cut(source: np.ndarray, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    """Cut a patch out of an image, turned by up to 45° and scaled up or down.

    Parameters
    ----------
    source
        uint8 (S, S).
    shape
        Height and width of the patch in pixels.
    rng
        Source of everything that is drawn.

    Returns
    -------
    np.ndarray
        uint8, of `shape`.
    """
    matrix = rotation(rng.uniform(-math.pi / 4, math.pi / 4))  # patch -> source
    low, high = _extent(matrix, shape)
    scale = 1 + rng.exponential(scale=SCALING)
    scale = min(rng.choice([scale, 1 / scale]), (LARGEST_SOURCE * len(source) / (high - low)).min())
    matrix = scale * matrix
    low, high = _extent(matrix, shape)
    window = draw_window(tuple((high - low).astype(int)), source.shape, rng)
    # SciPy's `offset` may be an array, which its signature does not say.
    patch = affine_transform(source[window], matrix, offset=-low, output_shape=shape)  # pyright: ignore[reportArgumentType]
    # Cubic splines overshoot.
    return patch.clip(source.min(), source.max())


def _extent(matrix: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and highest whole (row, column) that a patch of `shape` reaches under a matrix."""
    corners = matrix @ np.array([[0, 0, shape[0], shape[0]], [0, shape[1], 0, shape[1]]])
    return np.floor(corners.min(axis=1)), np.ceil(corners.max(axis=1))


def _blend(image: np.ndarray, window: Window, mask: np.ndarray, patch: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return image[window] with a patch blended in, whose gradients are kept, and the mask of what that changed."""
    source, area = image.copy(), np.zeros_like(image)
    source[window], area[window] = patch, 255 * mask
    # OpenCV leaves the image's border alone, then puts the middle of the remaining area's box, which must have an
    # inside, at `middle`. It erodes the given area in place.
    area[[0, -1]] = area[:, [0, -1]] = 0
    left, top, width, height = cv2.boundingRect(area)
    if min(width, height) < 3:
        return image[window], np.zeros_like(mask)
    middle = left + width // 2, top + height // 2
    blended = cv2.seamlessClone(cv2.merge([source] * 3), cv2.merge([image] * 3), area, middle, cv2.NORMAL_CLONE)
    blended, before = blended[window][..., 0], image[window]
    # The blend also changes pixels around the mask. A change by one grey value is its rounding, and is undone.
    changed = cv2.absdiff(blended, before) > 1
    return np.where(changed, blended, before), mask | changed
