"""MediCLIP's mixture of tasks: which anomaly an image gets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from medclipad.errors import TrainingError
from medclipad.methods.mediclip.synthesis.cutpaste import CutPaste
from medclipad.methods.mediclip.synthesis.identity import Identity
from medclipad.methods.mediclip.synthesis.intensity_change import GaussIntensityChange
from medclipad.methods.mediclip.synthesis.source import Source
from medclipad.methods.mediclip.synthesis.task import check_variant

MIXTURES = {
    "reference": {"cutpaste": 0.25, "gauss": 0.25, "source": 0.25, "identity": 0.25},
    "paper": {"cutpaste": 1 / 3, "gauss": 1 / 3, "source": 1 / 3},
}
"""Probability of each task, by variant."""

_MAKERS = {
    "cutpaste": CutPaste,
    "gauss": lambda support, variant: GaussIntensityChange(),
    "source": lambda support, variant: Source(variant),
    "identity": lambda support, variant: Identity(),
}


class AnomalySynthesis:
    """Puts a random anomaly on a normal image.

    support: uint8 (N, S, S), the normal images, of which CutPaste takes its patches.
    variant: "reference" (as coded) or "paper" (Poisson-blended CutPaste, uniform stretching, no unchanged images).
    tasks: relative frequency of each task by name, instead of the variant's; names as in MIXTURES["reference"].
    Raises TrainingError for an unknown variant or task, for frequencies that are no probabilities, and for bad support.
    """

    def __init__(
        self,
        support: np.ndarray | Sequence[np.ndarray],
        variant: str = "reference",
        tasks: Mapping[str, float] | None = None,
    ) -> None:
        check_variant(variant)
        tasks = MIXTURES[variant] if tasks is None else tasks
        if unknown := sorted(set(tasks) - set(_MAKERS)):
            raise TrainingError(f"There is no synthesis task {unknown[0]!r}: use {', '.join(_MAKERS)}.")
        weights = np.array(list(tasks.values()), dtype=np.float64)
        if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
            raise TrainingError("The frequencies of synthesis tasks must be 0 or more, and one of them more than 0.")
        self.tasks = {name: _MAKERS[name](support, variant) for name in tasks}
        self._probabilities = weights / weights.sum()

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """image uint8 (S, S) -> altered image uint8 (S, S) and its label float64 (S, S) in [0, 1]; image is kept."""
        task = list(self.tasks.values())[rng.choice(len(self.tasks), p=self._probabilities)]
        return task(image, rng)
