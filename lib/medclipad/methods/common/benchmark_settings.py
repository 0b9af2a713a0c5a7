"""Settings of a benchmark run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from medclipad.methods.registry import Variant

_TRAINING_SETTINGS = ("epochs", "learning_rate", "seed")  # they mean nothing where a checkpoint is tested


@dataclass(frozen=True)
class Settings:
    """Settings of a benchmark run.

    Attributes
    ----------
    class_name
        Class or data set of the benchmark.
    shots
        Training pictures of each kind; 0 for zero-shot.
    encoder
        Name of the encoder.
    image_size
        Side of the encoder's input in pixels; None for the encoder's own.
    epochs
        Passes over the training pictures.
    learning_rate
        Of Adam.
    seed
        Seed of everything that is drawn.
    iterate
        Which draw of shots to use, where the benchmark has several.
    max_images
        Test pictures of each kind, for trial runs; None for all.
    select
        Which weights count: those with the best AUROC on the test set, as in the reference codes, or the last.
    variant
        What the reference code computes, or what the paper says.
    """

    class_name: str
    shots: int
    encoder: str
    image_size: int | None
    epochs: int
    learning_rate: float
    seed: int = 111
    iterate: int = 0
    max_images: int | None = None
    select: Literal["best-test", "last"] = "best-test"
    variant: Variant = "reference"

    @property
    def encoder_label(self) -> str:
        """Name of the encoder, without the folder of its weights file."""
        architecture, _, weights = self.encoder.partition("/")
        return f"{architecture}/{Path(weights).name}" if weights else architecture

    def deviations(self, reference: Mapping[str, Any], trained: bool) -> list[str]:
        """Return how these settings differ from the reference's, in words.

        Parameters
        ----------
        reference
            Settings of the reference code, by the names of the attributes.
        trained
            Whether the run trains. Otherwise settings of the training do not count.
        """
        own = {**asdict(self), "encoder": self.encoder_label}
        return [
            f"{key.replace('_', ' ')} {own[key]} instead of {value}"
            for key, value in reference.items()
            if own[key] != value and (trained or key not in _TRAINING_SETTINGS)
        ]
