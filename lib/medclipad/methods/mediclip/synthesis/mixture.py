"""MediCLIP's mixture of tasks: it draws which anomaly an image gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from medclipad.errors import TrainingError
from medclipad.methods.mediclip.synthesis.cutpaste import CutPaste
from medclipad.methods.mediclip.synthesis.identity import Identity
from medclipad.methods.mediclip.synthesis.intensity_change import GaussIntensityChange
from medclipad.methods.mediclip.synthesis.source import Source
from medclipad.methods.mediclip.synthesis.task import check_variant
from medclipad.methods.registry import Variant

Images = np.ndarray | Sequence[np.ndarray]
"""Images uint8 (N, S, S)."""

TaskFunction = Callable[[np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Takes an image uint8 (S, S); returns an altered copy and its label float64 (S, S) in [0, 1]."""

MIXTURES: dict[Variant, dict[str, float]] = {
    "reference": {"cutpaste": 0.25, "gauss": 0.25, "source": 0.25, "identity": 0.25},
    "paper": {"cutpaste": 1 / 3, "gauss": 1 / 3, "source": 1 / 3},
}
"""Probability of each task, for each variant."""

_MAKERS: dict[str, Callable[[Images, Variant], TaskFunction]] = {
    "cutpaste": CutPaste,
    "gauss": lambda support, variant: GaussIntensityChange(),
    "source": lambda support, variant: Source(variant),
    "identity": lambda support, variant: Identity(),
}


class AnomalySynthesis:
    """Puts a random anomaly on a normal image.

    Parameters
    ----------
    support
        Normal images, uint8 (N, S, S), from which CutPaste takes its patches.
    variant
        "reference", as coded, or "paper": Poisson-blended CutPaste, uniform stretching, no unchanged images.
    tasks
        Relative frequency of each task by its name in `MIXTURES["reference"]`, instead of the variant's.

    Attributes
    ----------
    tasks
        Tasks by name.

    Raises
    ------
    TrainingError
        If the variant or a task is unknown, a frequency is negative or not finite, all are 0, or the support is not
        square uint8 images of one size.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> normal = rng.integers(0, 256, (4, 64, 64), dtype=np.uint8)
    >>> image, label = AnomalySynthesis(normal)(normal[0], rng)
    >>> image.shape, label.shape
    ((64, 64), (64, 64))
    """

    def __init__(
        self,
        support: Images,
        variant: Variant = "reference",
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
        """Return a normal image with a random anomaly.

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
            float64 (S, S) in [0, 1].
        """
        task = list(self.tasks.values())[rng.choice(len(self.tasks), p=self._probabilities)]
        return task(image, rng)
