"""Cloud-shaped regions: thresholded Perlin noise (Perlin 1985) of one lattice cell, as in MediCLIP's reference code."""

from __future__ import annotations

import math

import cv2
import numpy as np

from medclipad.methods.mediclip.synthesis.task import Region, rotation

THRESHOLD = 0.3  # of the noise
LEAST_AREA = 0.2  # of the bounding box


def perlin_region(bounds: tuple[int, int], rng: np.random.Generator) -> Region:
    """Draw a box, sides from bounds[0] up to but not bounds[1], then noise, turned at random, until it fills enough."""
    shape = int(rng.integers(*bounds)), int(rng.integers(*bounds))
    while True:
        noise = perlin_noise(shape, rng.random((2, 2)))
        mask = _turned(noise, rng.uniform(-90, 90)) > THRESHOLD
        if mask.mean() >= LEAST_AREA:
            return Region(mask)


def perlin_noise(shape: tuple[int, int], turns: np.ndarray) -> np.ndarray:
    """float64 noise (h, w) between a gradient in each corner; turns (2, 2) are their directions, 1 is a whole turn."""
    y, x = (np.arange(n) * (1 / n) for n in shape)
    down, right = np.cos(2 * math.pi * turns), np.sin(2 * math.pi * turns)
    # In one cell the noise of a row is set by offset and slope at its left and right end: a product of rank 4.
    top, bottom = _weights(y)
    offsets = np.outer(top * y, down[0]) + np.outer(bottom * (y - 1), down[1])
    slopes = np.outer(top, right[0]) + np.outer(bottom, right[1])
    start, end = _weights(x)
    return math.sqrt(2) * np.hstack([offsets, slopes]) @ np.stack([start, end, start * x, end * (x - 1)])


def _weights(t: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much the corners at 0 and at 1 weigh at t."""
    fade = 6 * t**5 - 15 * t**4 + 10 * t**3
    return 1 - fade, fade


def _turned(noise: np.ndarray, degrees: float) -> np.ndarray:
    """Noise turned about its centre, 0 where nothing is known."""
    height, width = noise.shape
    turn = rotation(math.radians(degrees))  # of (x, y)
    centre = np.array([width / 2 - 0.5, height / 2 - 0.5])
    # OpenCV, because that is what the reference turns with: other libraries' masks differ at the rim.
    return cv2.warpAffine(noise, np.column_stack([turn, centre - turn @ centre]), (width, height))
