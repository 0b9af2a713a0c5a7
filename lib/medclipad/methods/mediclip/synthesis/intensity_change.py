"""Lesions that are brighter or darker than the tissue around them, with a soft texture and a soft edge."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from medclipad.methods.mediclip.synthesis.perlin import perlin_region
from medclipad.methods.mediclip.synthesis.task import Region, Task, Window

TEXTURE_SIGMAS = (4, 7)  # of the texture's blur, in pixels: one of the two
EDGE_SIGMAS = (1, 4)  # of the edge's blur, in pixels: least and most
BRIGHTER, DARKER = (0.4, 0.6), (-0.6, -0.4)  # largest change, as fractions of the grey scale: least and most


class GaussIntensityChange(Task):
    """Adds a random texture to a region, with a soft edge; the label is the region.

    Notes
    -----
    As in MediCLIP's reference code the texture is blurred coin flips, scaled to [0, 1], times a blurred mask.
    """

    sides = (0.3, 0.8)
    working_type = np.float64

    def region(self, size: int, rng: np.random.Generator) -> Region:
        """Draw a cloud-shaped region for an image of `size` pixels a side."""
        return perlin_region(self.bounds(size), rng)

    def alter(
        self, image: np.ndarray, window: Window, region: Region, rng: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the window with a brighter or darker region; see `Task.alter`."""
        sigma = TEXTURE_SIGMAS[rng.integers(len(TEXTURE_SIGMAS))]
        coins = rng.integers(2, size=image.shape, dtype=np.uint8)
        texture = gaussian_filter(coins, sigma, output=np.float64)
        low, high = texture.min(), texture.max()
        texture = (texture[window] - low) / (high - low)
        change = rng.uniform(*(BRIGHTER if rng.random() <= 0.5 else DARKER))
        edge = gaussian_filter(region.mask, rng.uniform(*EDGE_SIGMAS), output=np.float64)
        changed = np.clip(image[window] + 255 * change * texture * edge, 0, 255)
        return np.where(region.mask, changed, image[window]), region.mask
