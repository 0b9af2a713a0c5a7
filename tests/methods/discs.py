"""Test images for the methods: grey discs in noise."""

from __future__ import annotations

import numpy as np

SIZE = 64


def slices(n: int, seed: int, lesion: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Return grey discs in noise (n, S, S), each with a bright lesion or without, and the masks of the lesions."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE]
    images = 0.4 * (np.hypot(x - SIZE / 2, y - SIZE / 2) < 0.4 * SIZE) + rng.uniform(0, 0.05, (n, SIZE, SIZE))
    masks = np.zeros((n, SIZE, SIZE), bool)
    if lesion:
        for mask, (cy, cx) in zip(masks, rng.uniform(0.35, 0.65, (n, 2)) * SIZE, strict=True):
            mask |= np.hypot(x - cx, y - cy) < 0.13 * SIZE
    return (images + 0.5 * masks).clip(0, 1).astype(np.float32), masks
