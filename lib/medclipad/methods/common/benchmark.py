"""The benchmark of a method's paper: settings, a model in training, and evaluations on the test set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from medclipad.errors import DetectorError, TrainingError
from medclipad.methods.base import AnomalyModel
from medclipad.methods.common.auroc import auroc
from medclipad.methods.common.labelled_images import LabelledImages
from medclipad.methods.common.reference import ReferenceFormat
from medclipad.volume.progress import Progress

_OF_TRAINING = ("epochs", "learning_rate", "seed")


@dataclass(frozen=True)
class Settings:
    """What defines a run.

    shots: 0 for zero-shot. image_size: None for the encoder's own. max_images: of each kind of each test set, for
    miniature runs. variant: "reference", what the code computes, or "paper", what the paper says.
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
    select: str = "best-test"
    variant: str = "reference"

    @property
    def encoder_label(self) -> str:
        """The encoder without the folder of its file."""
        architecture, _, weights = self.encoder.partition("/")
        return f"{architecture}/{Path(weights).name}" if weights else architecture

    def deviations(self, reference: dict, trained: bool) -> list[str]:
        """How the run differs from the reference's settings, in words."""
        own = {**asdict(self), "encoder": self.encoder_label}
        return [
            f"{key.replace('_', ' ')} {own[key]} instead of {theirs}"
            for key, theirs in reference.items()
            if own[key] != theirs and (trained or key not in _OF_TRAINING)
        ]


class Figures(NamedTuple):
    """AUROCs over the test set; pixels only where there are masks."""

    image_auroc: float
    pixel_auroc: float | None

    @property
    def merit(self) -> float:
        """What the reference codes choose the epoch by: the sum (or mean) of both."""
        return self.image_auroc + (self.pixel_auroc or 0)


class Scores(NamedTuple):
    """What a look at the test set gives."""

    images: np.ndarray  # (n,)
    maps: dict[int, np.ndarray]  # (S, S) of the pictures asked for
    figures: Figures


Tick = Callable[[int], None]
"""Called with the number of test pictures just looked at."""


class BenchmarkProtocol(ABC):
    """A model, its training pictures and its test set.

    settings, reference: of this run and of the reference code. pictures: SHA-256 of the files. repeats: sentences on
    pictures that are there twice. choice, scale: what the reference lets the test set decide, in a sentence: which
    weights count, how scores are scaled. seeding, remarks: other differences from the reference, of what is drawn and
    of the model, in words. batch: pictures a step.
    """

    name: ClassVar[str]
    keeps_latest: ClassVar[bool] = False  # of epochs with equal figures the last is the best
    choice: ClassVar[str]
    scale: ClassVar[str | None] = None
    seeding: ClassVar[str]

    settings: Settings
    reference: dict
    format: ReferenceFormat
    batch: int
    pictures: str
    repeats: list[str]
    remarks: list[str]
    model: AnomalyModel
    optimisers: dict[str, torch.optim.Optimizer]
    tests: LabelledImages
    truth: np.ndarray | None  # bool (n, S, S)
    steps: int  # an epoch

    @abstractmethod
    def batches(self) -> Sequence[Tensor | np.ndarray]:
        """Draw an epoch's order: the pictures of each step."""

    @abstractmethod
    def step(self, chosen: Tensor | np.ndarray) -> float:
        """Learn from the chosen pictures; returns the loss."""

    def evaluations(self) -> set[int]:
        """Before which steps of an epoch the reference tests; `steps` stands for after the last."""
        return {self.steps}

    @property
    @abstractmethod
    def draws(self) -> Tensor | str:
        """State of the random generator."""

    @draws.setter
    @abstractmethod
    def draws(self, state: Tensor | str) -> None: ...

    @abstractmethod
    def test(self, keep: Sequence[int] = (), tick: Tick = lambda done: None) -> Scores:
        """Score all test pictures with the present weights, and keep the maps of some."""

    def load_checkpoint(self, state: dict) -> None:
        """Take weights as the reference saves them; raises DetectorError if they do not fit."""
        if not self.model.encoder.has_text:
            raise DetectorError(
                f'The reference\'s checkpoints belong to CLIP: give a CLIP encoder, not "{self.settings.encoder}".'
            )
        self.format.load_state(self.model, state)

    def checkpoint(self) -> dict | None:
        """The weights as the reference saves them; None where its format has no place for learned vectors."""
        return self.format.state(self.model) if self.model.encoder.has_text else None

    def deviations(self, trained: bool) -> list[str]:
        """How this run, with its training or without, differs from the reference's, in words."""
        return [*self.settings.deviations(self.reference, trained), *self.remarks, *([self.seeding] if trained else [])]

    def weights(self) -> dict[str, Tensor]:
        """Copies of the trained tensors."""
        trained = ((name, value) for name, value in self.model.named_parameters() if value.requires_grad)
        return {name: value.detach().cpu().clone() for name, value in trained}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Put back what `weights` gave."""
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)

    def figures(self, images: np.ndarray, maps: np.ndarray | None) -> Figures:
        """AUROCs of image scores (n,) and, if there is a truth, of maps (n, S, S)."""
        if not np.isfinite(images).all():
            raise TrainingError("The training diverged: the scores are not numbers; lower the learning rate.")
        pixel = None if self.truth is None else auroc(maps, self.truth)
        return Figures(auroc(images, self.tests.labels.numpy() > 0), pixel)


class PublishedFigures(NamedTuple):
    """AUROCs in 0..1 of a paper and of its published code and weights, and where they stand.

    Each of the two is a pair (image AUROC, pixel AUROC); None where no figure is known.
    """

    source: str
    paper: tuple[float | None, float | None]
    reference_code: tuple[float | None, float | None]


NOT_AT_HAND = "not at hand"
UNKNOWN_FIGURES = PublishedFigures(NOT_AT_HAND, (None, None), (None, None))


class BenchmarkSuite(ABC):
    """The experiments of a method's paper.

    Attributes
    ----------
    name
        Name of the method.
    layout
        What `--data` must hold, for the help text.
    classes
        The classes or data sets of the paper's table.
    default_shots
        How many normal images (and abnormal ones, if the method needs them) it learns from by default.
    has_zero_shot
        Whether there is a zero-shot experiment.
    checkpoint_variants
        Variants whose weights the reference code's checkpoints can hold.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    default_shots: ClassVar[int]
    has_zero_shot: ClassVar[bool] = False
    checkpoint_variants: ClassVar[tuple[str, ...]] = ("reference",)

    @abstractmethod
    def reference(self, zero_shot: bool) -> dict[str, Any]:
        """Return the settings of the reference code, by the names of `Settings`."""

    @abstractmethod
    def make(
        self, data: Path, settings: Settings, zero_shot: bool, seeds: Path | None, progress: Progress
    ) -> BenchmarkProtocol:
        """Return an experiment on a class; raise VolumeError, TrainingError or DetectorError if it cannot be run.

        `seeds` is a folder that names the few-shot images, for benchmarks that have one.
        """

    def published(self, class_name: str, shots: int) -> PublishedFigures:
        """Return the figures of the paper and of its code; `shots` is 0 for zero-shot."""
        return UNKNOWN_FIGURES


def example_indices(labels: Sequence[int], normal: int = 3, abnormal: int = 5) -> list[int]:
    """Pictures to draw, evenly spread over the normal and over the abnormal ones."""
    chosen = []
    for label, count in enumerate((normal, abnormal)):
        kind = np.flatnonzero(np.asarray(labels) == label)
        chosen += kind[np.unique(np.linspace(0, len(kind) - 1, min(count, len(kind))).round().astype(int))].tolist()
    return chosen
