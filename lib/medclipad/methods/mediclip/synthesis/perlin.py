"""Cloud-shaped regions: thresholded Perlin noise (Perlin 1985) of one lattice cell, as in MediCLIP's reference code."""

from __future__ import annotations

import math

import cv2
import numpy as np

from medclipad.methods.mediclip.synthesis.task import Region, rotation

THRESHOLD = 0.3  # above which noise belongs to the region
LEAST_AREA = 0.2  # of a region, as a fraction of its bounding box


def perlin_region(bounds: tuple[int, int], rng: np.random.Generator) -> Region:
    """Draw a cloud-shaped region.

    A box is drawn, then noise in it, turned at random, until the region fills at least a fifth of the box.

    Parameters
    ----------
    bounds
        Shortest side of the box in pixels, and one more than the longest.
    rng
        Source of everything that is drawn.
    """
    shape = int(rng.integers(*bounds)), int(rng.integers(*bounds))
    while True:
        noise = perlin_noise(shape, rng.random((2, 2)))
        mask = _turned(noise, rng.uniform(-90, 90)) > THRESHOLD
        if mask.mean() >= LEAST_AREA:
            return Region(mask)


def perlin_noise(shape: tuple[int, int], turns: np.ndarray) -> np.ndarray:
    """Return Perlin noise between a gradient in each corner.

    Parameters
    ----------
    shape
        Height and width in pixels.
    turns
        (2, 2). Direction of the gradient in each corner; 1 is a whole turn.

    Returns
    -------
    np.ndarray
        float64 (h, w).
    """
    y, x = (np.arange(n) * (1 / n) for n in shape)
    down, right = np.cos(2 * math.pi * turns), np.sin(2 * math.pi * turns)
    # In one cell, offset and slope at the left and right end determine the noise of a row: a product of rank 4.
    top, bottom = _weights(y)
    offsets = np.outer(top * y, down[0]) + np.outer(bottom * (y - 1), down[1])
    slopes = np.outer(top, right[0]) + np.outer(bottom, right[1])
    start, end = _weights(x)
    return math.sqrt(2) * np.hstack([offsets, slopes]) @ np.stack([start, end, start * x, end * (x - 1)])


def _weights(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the weights, at positions t in [0, 1], of the corners at 0 and at 1."""
    fade = 6 * t**5 - 15 * t**4 + 10 * t**3
    return 1 - fade, fade


def _turned(noise: np.ndarray, degrees: float) -> np.ndarray:
    """Return noise turned about its centre; 0 where the turned noise does not reach."""
    height, width = noise.shape
    turn = rotation(math.radians(degrees))  # of (x, y)
    centre = np.array([width / 2 - 0.5, height / 2 - 0.5])
    # With OpenCV, as the reference code: masks from other libraries differ at the rim.
    return cv2.warpAffine(noise, np.column_stack([turn, centre - turn @ centre]), (width, height))
