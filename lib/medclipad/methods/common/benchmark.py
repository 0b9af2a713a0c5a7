"""The benchmark of a method's paper: a model in training, and evaluations on the test set."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor

from medclipad.errors import DetectorError, TrainingError
from medclipad.methods.base import AnomalyModel
from medclipad.methods.common.auroc import auroc
from medclipad.methods.common.benchmark_settings import Ablation, Settings
from medclipad.methods.common.labelled_images import LabelledImages
from medclipad.methods.common.reference import ReferenceFormat
from medclipad.methods.registry import Variant
from medclipad.volume.progress import Progress


class Figures(NamedTuple):
    """Figures over the test set.

    Attributes
    ----------
    image_auroc
        AUROC of the image scores, in [0, 1].
    pixel_auroc
        AUROC of the maps' pixels, in [0, 1]; None where the test set has no masks.
    """

    image_auroc: float
    pixel_auroc: float | None

    @property
    def merit(self) -> float:
        """Figure by which the reference codes choose the epoch: the sum of both AUROCs."""
        return self.image_auroc + (self.pixel_auroc or 0)


class Scores(NamedTuple):
    """Result of an evaluation on the test set.

    Attributes
    ----------
    images
        Score of each picture, float64 (n,).
    maps
        Maps (S, S) of the pictures that were asked for, by index.
    figures
        AUROCs.
    """

    images: np.ndarray
    maps: dict[int, np.ndarray]
    figures: Figures


Tick = Callable[[int], None]
"""Called with the number of test pictures that were just scored."""


def no_tick(done: int) -> None:
    """No-op `Tick`."""


class BenchmarkProtocol(ABC):
    """One experiment of a paper: a model, its training pictures and its test set.

    Attributes
    ----------
    name
        Name of the method.
    keeps_latest
        Whether, of epochs with equal figures, the last counts as the best.
    selection_leakage
        Sentence on how the reference chooses weights by the test set.
    scaling_leakage
        Sentence on how the reference scales scores by the test set; None if it does not.
    seeding
        How drawing differs from the reference, in words.
    format
        How the reference code saves its weights.
    batch
        Pictures in a training step.
    settings
        Settings of this run.
    reference
        Settings of the reference code.
    pictures_sha256
        Hash of all pictures and masks.
    duplicates
        A sentence on each kind of pictures that occur more than once.
    remarks
        How the model differs from the reference's, in words.
    model
        The model.
    optimisers
        Optimisers by name; they belong to the state of an interrupted run.
    tests
        Test pictures.
    truth
        Lesions of the test pictures, bool (n, S, S); None if the test set has no masks.
    steps
        Training steps in an epoch.
    """

    name: ClassVar[str]
    keeps_latest: ClassVar[bool] = False
    selection_leakage: ClassVar[str]
    scaling_leakage: ClassVar[str | None] = None
    seeding: ClassVar[str]
    format: ClassVar[ReferenceFormat]

    batch: int
    settings: Settings
    reference: Mapping[str, Any]
    pictures_sha256: str
    duplicates: list[str]
    remarks: list[str]
    model: AnomalyModel
    optimisers: dict[str, torch.optim.Optimizer]
    tests: LabelledImages
    truth: np.ndarray | None
    steps: int

    @abstractmethod
    def batches(self) -> Sequence[Any]:
        """Draw the order of an epoch; return the indices of each step's pictures."""

    @abstractmethod
    def step(self, indices: Any) -> float:
        """Train on the pictures of one of the `batches`; return the loss."""

    def evaluations(self) -> set[int]:
        """Return before which steps of an epoch the reference evaluates; `steps` stands for after the last."""
        return {self.steps}

    @property
    @abstractmethod
    def random_state(self) -> Tensor | str:
        """State of the random generator that draws orders and anomalies."""

    @random_state.setter
    @abstractmethod
    def random_state(self, state: Any) -> None: ...

    @abstractmethod
    def test(self, keep: Sequence[int] = (), tick: Tick = no_tick) -> Scores:
        """Score all test pictures with the present weights.

        Parameters
        ----------
        keep
            Indices of the pictures whose maps are returned.
        tick
            Called after each part of the test set.
        """

    def test_on(self, data: Path, class_name: str, progress: Progress) -> None:
        """Take the test set of another class instead of the own one; the weights stay.

        Only protocols of a suite with `has_transfer` can do that.

        Parameters
        ----------
        data
            Folder of the benchmark's pictures.
        class_name
            The other class.
        progress
            Called while its pictures are checked.

        Raises
        ------
        VolumeError
            If a picture or list is missing or damaged.
        """
        raise NotImplementedError  # a suite with `has_transfer` has protocols that can

    def load_checkpoint(self, state: Mapping[str, Any]) -> None:
        """Load weights as the reference code saves them.

        Raises
        ------
        DetectorError
            If they do not fit the model.
        """
        if not self.model.encoder.has_text:
            raise DetectorError(
                f'The reference\'s checkpoints belong to CLIP: give a CLIP encoder, not "{self.settings.encoder}".'
            )
        self.format.load_state(self.model, dict(state))

    def checkpoint(self) -> dict[str, dict[str, Tensor]] | None:
        """Return the weights as the reference code saves them; None where its format cannot hold them.

        It holds neither learned vectors nor a method with parts left out.
        """
        whole = self.model.encoder.has_text and not self.settings.ablated
        return self.format.state(self.model) if whole else None

    def deviations(self, trained: bool) -> list[str]:
        """Return how this run differs from the reference's, in words.

        Parameters
        ----------
        trained
            Whether the run trains. Otherwise settings of the training do not count.
        """
        return [*self.settings.deviations(self.reference, trained), *self.remarks, *([self.seeding] if trained else [])]

    def weights(self) -> dict[str, Tensor]:
        """Return copies of the trained tensors, by name."""
        trained = ((name, value) for name, value in self.model.named_parameters() if value.requires_grad)
        return {name: value.detach().cpu().clone() for name, value in trained}

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what `weights` returned."""
        own = dict(self.model.named_parameters())
        with torch.no_grad():
            for name, value in weights.items():
                own[name].copy_(value)

    def figures(self, images: np.ndarray, maps: np.ndarray | None) -> Figures:
        """Return the AUROCs of an evaluation.

        Parameters
        ----------
        images
            Image scores (n,).
        maps
            (n, S, S); they count only if there is a truth.

        Raises
        ------
        TrainingError
            If a score is not finite.
        """
        if not np.isfinite(images).all():
            raise TrainingError("The training diverged: the scores are not numbers; lower the learning rate.")
        pixel = None if self.truth is None or maps is None else auroc(maps, self.truth)
        # Not None: `require_both_labels` has seen normal and abnormal pictures.
        image = cast(float, auroc(images, self.tests.labels.numpy() > 0))
        return Figures(image, pixel)


class PublishedFigures(NamedTuple):
    """Published AUROCs, in [0, 1].

    Attributes
    ----------
    source
        Where the figures stand.
    paper
        Image and pixel AUROC of the paper; None where unknown.
    reference_code
        The same, of the published code and weights.
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
        What the folder `--data` must hold, for the help text.
    classes
        Classes or data sets of the paper's table.
    default_shots
        Normal training pictures (and as many abnormal ones, if the method needs them) where the user names no number.
    has_zero_shot
        Whether there is a zero-shot experiment.
    has_transfer
        Whether a model that has learned from one class can be tested on another.
    checkpoint_variants
        Variants whose weights the reference code's checkpoints can hold.
    """

    name: ClassVar[str]
    layout: ClassVar[str]
    classes: ClassVar[tuple[str, ...]]
    default_shots: ClassVar[int]
    has_zero_shot: ClassVar[bool] = False
    has_transfer: ClassVar[bool] = False
    checkpoint_variants: ClassVar[tuple[Variant, ...]] = ("reference",)

    @abstractmethod
    def reference(self, zero_shot: bool) -> Mapping[str, Any]:
        """Return the settings of the reference code, by the names of `Settings`."""

    @abstractmethod
    def make(
        self, data: Path, settings: Settings, zero_shot: bool, seeds: Path | None, progress: Progress
    ) -> BenchmarkProtocol:
        """Return an experiment on one class.

        Parameters
        ----------
        data
            Folder of the benchmark's pictures.
        settings
            Settings of the run.
        zero_shot
            Whether it is the zero-shot experiment.
        seeds
            Folder that names the few-shot pictures, for benchmarks that have one; None for its default place.
        progress
            Called while pictures are checked and the encoder is loaded.

        Raises
        ------
        VolumeError
            If a picture or list is missing or damaged.
        TrainingError
            If there are too few training pictures.
        DetectorError
            If the encoder is unknown or not suitable.
        """

    def ablations(self, data: Path, settings: Settings, seeds: Path | None) -> Mapping[str, Ablation]:
        """Return the ablations of an experiment by name; the parameters are those of `make`.

        Raises
        ------
        VolumeError
            If the data set is missing.
        """
        return {}

    def published(self, class_name: str, shots: int) -> PublishedFigures:
        """Return the figures of the paper and of its code; `shots` is 0 for zero-shot."""
        return UNKNOWN_FIGURES
