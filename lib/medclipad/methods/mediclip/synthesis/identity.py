"""No anomaly: normal images stay among the training data."""

from __future__ import annotations

import numpy as np

from medclipad.methods.mediclip.synthesis.task import check_image


class Identity:
    """No anomaly: a copy of the image, with a label of zeros. Nothing is drawn."""

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return a copy of an image uint8 (S, S), and zeros float64 (S, S)."""
        check_image(image)
        return image.copy(), np.zeros(image.shape)
