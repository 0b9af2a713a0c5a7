"""Settings of a benchmark run, and ablations: runs that differ in one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
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
    ablated
        Parts of the method that are left out or replaced, by the method's own names and in JSON's types; empty for the
        whole method.
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
    ablated: Mapping[str, Any] = field(default_factory=dict)

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


@dataclass(frozen=True)
class Arm:
    """One of the runs that an ablation compares.

    Attributes
    ----------
    name
        What tables call it, such as "level 1".
    ablated
        As in `Settings`; empty for the whole method.
    shots
        Training pictures of each kind; None for those of the run.
    """

    name: str
    ablated: Mapping[str, Any] = field(default_factory=dict)
    shots: int | None = None

    @property
    def folder(self) -> str:
        """Name of the folder of its results."""
        return "-".join(re.findall(r"\w+", self.name))

    def settings(self, run: Settings) -> Settings:
        """Return the settings of a run with this arm's changes."""
        return replace(run, ablated=self.ablated, shots=self.shots or run.shots)


@dataclass(frozen=True)
class Ablation:
    """Runs to compare.

    Attributes
    ----------
    arms
        The runs, in the order of the table.
    left_out
        Runs that are not possible, and why, in words; "" if all are.
    """

    arms: tuple[Arm, ...]
    left_out: str = ""


SHOTS = (1, 2, 4, 8, 16, 32)
"""Numbers of shots that `compare_shots` compares."""


def compare_shots(possible: Callable[[int], bool], reason: str) -> Ablation:
    """Return the ablation of the number of training pictures.

    Parameters
    ----------
    possible
        Whether the data allow a number of shots.
    reason
        Why they do not allow others, in words.
    """
    arms = tuple(Arm(f"{k}-shot", shots=k) for k in SHOTS if possible(k))
    missing = ", ".join(str(k) for k in SHOTS if not possible(k))
    return Ablation(arms, f"{missing} shots, because {reason}" if missing else "")
