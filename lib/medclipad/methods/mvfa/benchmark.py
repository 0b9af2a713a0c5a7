"""MVFA's benchmark on BMAD, few-shot and zero-shot, as train_few.py, train_zero.py and their tests have it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medclipad.encoders import load_encoder
from medclipad.encoders.registry import encoder_family
from medclipad.errors import DetectorError
from medclipad.methods.base import Shots
from medclipad.methods.common.augment import square
from medclipad.methods.common.benchmark import (
    BenchmarkProtocol,
    BenchmarkSuite,
    PublishedFigures,
    Scores,
    Tick,
    no_tick,
)
from medclipad.methods.common.benchmark_settings import Ablation, Settings
from medclipad.methods.common.frozen_states import FrozenStates
from medclipad.methods.common.labelled_images import (
    LabelledImage,
    LabelledImages,
    check_pictures,
    open_picture,
    require_lesions,
)
from medclipad.methods.mvfa import bmad
from medclipad.methods.mvfa.ablations import Parts, ablations
from medclipad.methods.mvfa.adapters import Projections
from medclipad.methods.mvfa.evidence import Evidence, combine, unit_range
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import PAPER_BATCH, MVFAOptions
from medclipad.methods.mvfa.prompts import CLASS_NAMES, text_features
from medclipad.methods.mvfa.published import published
from medclipad.methods.mvfa.reference import MVFAReference
from medclipad.methods.mvfa.training import Trainer, encode_class, initialise, samples
from medclipad.volume.progress import Progress, no_progress

REFERENCE: dict[str, Any] = {
    "encoder": "ViT-L-14-336/openai",
    "image_size": 240,
    "epochs": 50,
    "learning_rate": 1e-3,
    "seed": 111,
    "iterate": 0,
    "max_images": None,
    "variant": "reference",
}
ZERO_REFERENCE: dict[str, Any] = {**REFERENCE, "learning_rate": 1e-4}
SEEDS = "fewshot_seed"  # default folder of the seed files, in that of the data
EVALUATIONS = 5  # on the test set in an epoch of zero-shot training, as in the reference code
_CHUNK = 8  # test pictures scored together


class _BMADProtocol(BenchmarkProtocol):
    """One class of BMAD: the model, its test set, and how evidence becomes scores."""

    name, batch = "mvfa", 1
    format = MVFAReference()
    seeding = "weights and order drawn from the seed by this program: the reference's draws differ"
    model: MVFANetwork

    def __init__(
        self,
        data: Path,
        settings: Settings,
        reference: Mapping[str, Any],
        training: Sequence[LabelledImage],
        progress: Progress,
    ) -> None:
        self.reference, class_name = reference, settings.class_name
        pictures = bmad.test_pictures(data, class_name, settings.max_images)
        self.pictures_sha256, self.duplicates = check_pictures(pictures, training, progress)
        encoder, parts = load_encoder(settings.encoder, settings.image_size), Parts(**settings.ablated)
        self.settings = replace(settings, image_size=encoder.image_size)
        options = MVFAOptions(
            variant=settings.variant,
            class_name=CLASS_NAMES[class_name],
            epochs=settings.epochs,
            batch=self.batch,
            learning_rate=settings.learning_rate,
            max_samples=0,
            memory_tokens="all",
            residual=0 if parts.projection else None,
        )
        self.model = MVFANetwork(encoder, options, parts.levels, Projections if parts.projection else None)
        self.remarks = []
        initialise(self.model, settings.seed)
        if encoder.has_text:
            encode_class(self.model, progress)
        else:
            self.remarks.append("learned vectors in place of prompts, and no residual: the encoder has no text tower")
        self.size = encoder.image_size
        self.tests = LabelledImages(pictures, partial(square, size=self.size))
        self.truth = None
        if class_name in bmad.MASKED:
            truth = np.stack([self.mask(picture).numpy() > 0 for picture in pictures])
            self.truth = require_lesions(truth, data / f"{class_name}_AD" / "test")
        self.trainer = Trainer(self.model, settings.learning_rate, parts.dropped_losses)
        self.optimisers = self.trainer.optimisers
        self.generator = torch.Generator().manual_seed(settings.seed)

    def mask(self, picture: LabelledImage) -> Tensor:
        """Return a picture's mask, float32 (S, S) in {0, 1}, thresholded as in the reference; empty if it has none."""
        if picture.mask is None:
            return torch.zeros(self.size, self.size)
        return (square(open_picture(picture.mask), self.size, mask=True) > 0.5).float()

    @property
    def random_state(self) -> Tensor:
        """State of the generator that draws orders."""
        return self.generator.get_state()

    @random_state.setter
    def random_state(self, state: Tensor) -> None:
        self.generator.set_state(state)

    def test(self, keep: Sequence[int] = (), tick: Tick = no_tick) -> Scores:
        """Score all test pictures; see `BenchmarkProtocol.test`."""
        self.prepare()
        n = len(self.tests)
        # All maps are held only where their pixels count; at least one always, so that `combined` has a range to scale.
        held = list(range(n)) if self.truth is not None else list(keep) or [0]
        row = {index: position for position, index in enumerate(held)}
        maps = np.zeros((2, len(held), self.size, self.size), np.float32)
        scores = np.zeros((2, n), np.float32)
        for index, evidence in self._evidence(tick):
            scores[:, index] = evidence.zero_score.item(), evidence.few_score.item()
            if index in row:
                maps[0, row[index]], maps[1, row[index]] = evidence.zero_map.cpu(), evidence.few_map.cpu()
        images, combined = self.combined(scores, maps)
        kept = {index: combined[row[index]] for index in keep}
        return Scores(images.astype(np.float64), kept, self.figures(images, combined))

    def _evidence(self, tick: Tick) -> Iterator[tuple[int, Evidence]]:
        """Yield the index of each test picture and the evidence on it."""
        for start in range(0, len(self.tests), _CHUNK):
            indices = range(start, min(start + _CHUNK, len(self.tests)))
            evidence = self.model.evidence(self.tests[indices])
            for position, index in enumerate(indices):
                yield index, Evidence(*(part[position] for part in evidence))
            tick(len(indices))

    def checkpoint(self) -> dict[str, dict[str, Tensor]] | None:
        """Return the weights as the reference saves them; None where its format cannot hold them.

        Beside what the base class says, it has no place for the projectors of the paper's variant.
        """
        return super().checkpoint() if self.settings.variant == "reference" else None

    def prepare(self) -> None:
        """Update what depends on the present adapters, before a test."""

    @abstractmethod
    def combined(self, scores: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Combine zero-shot and few-shot evidence.

        Parameters
        ----------
        scores
            (2, n): zero-shot scores, then few-shot scores.
        maps
            (2, m, S, S): zero-shot maps, then few-shot maps.

        Returns
        -------
        scores
            (n,).
        maps
            (m, S, S).
        """


class FewShot(_BMADProtocol):
    """train_few.py: k normal and k abnormal shots, augmented elevenfold, and a memory of the normal ones.

    Parameters
    ----------
    data
        Folder that holds Brain_AD and the other classes.
    seeds
        Folder of the seed files that name the shots.
    settings
        Settings of the run.
    progress
        Called while pictures are checked and prompts are encoded.

    Attributes
    ----------
    data
        Augmented shots.

    Raises
    ------
    VolumeError
        If a picture, mask or seed file is missing or damaged.
    DetectorError
        If the encoder is unknown or cannot be loaded.
    """

    selection_leakage = (
        "As in the reference, the best-test epoch is chosen by its AUROC on the test set: too good a figure."
    )
    scaling_leakage = (
        "As in the reference, both parts of a score are min-max normalised over the whole test set before the sum."
    )

    def __init__(self, data: Path, seeds: Path, settings: Settings, progress: Progress = no_progress) -> None:
        if settings.variant == "paper":
            self.batch = PAPER_BATCH
        shots = bmad.shots(data, seeds, settings.class_name, settings.shots, settings.iterate)
        super().__init__(data, settings, REFERENCE, shots, progress)
        images = LabelledImages(shots, partial(square, size=self.size))[range(len(shots))].numpy()
        normal, abnormal = images[: settings.shots], images[settings.shots :]
        masks = tuple(self._soft_mask(shot) for shot in shots[settings.shots :])
        self.data = samples(Shots(normal, abnormal, masks))
        self.model.has_masks = torch.tensor(self.truth is not None, device=self.model.encoder.device)
        self.frozen = FrozenStates(self.model, self.data.images)
        self.steps = -(-len(self.data.images) // self.batch)

    def _soft_mask(self, picture: LabelledImage) -> np.ndarray | None:
        """Return a mask before its threshold, which follows the augmentation; None if the class has no masks."""
        if picture.mask is None:
            return None
        return square(open_picture(picture.mask), self.size, mask=True).numpy()

    def batches(self) -> Sequence[Tensor]:
        """Draw the order of an epoch; return the indices, int64, of each step's samples."""
        return torch.randperm(len(self.data.images), generator=self.generator).split(self.batch)

    def step(self, indices: Tensor) -> float:
        """Train on the samples with these indices; return the loss."""
        device = self.model.encoder.device
        losses = self.trainer.step(self.frozen[indices], *(part[indices].to(device) for part in self.data[1:]))
        return losses.total.item()

    def prepare(self) -> None:
        """Fill the memory with the normal shots, as the present adapters see them."""
        self.model.remember(self.data.images[self.data.labels == 0])

    def combined(self, scores: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return half of each kind of evidence, scaled over the test set; with masks a score is its map's maximum."""
        combined = combine(maps[0], maps[1])
        images = combine(scores[0], scores[1]) if self.truth is None else combined.max(axis=(1, 2))
        return images, combined


class ZeroShot(_BMADProtocol):
    """train_zero.py: trained on the test sets of the five other classes, tested on the sixth.

    Image scores come from the det head, maps always from the seg head.

    Parameters
    ----------
    data
        Folder that holds Brain_AD and the other classes.
    settings
        Settings of the run.
    progress
        Called while pictures are checked and prompts are encoded.

    Attributes
    ----------
    training
        Training pictures and their classes.

    Raises
    ------
    VolumeError
        If a picture or mask is missing or damaged.
    DetectorError
        If the encoder is unknown, cannot be loaded, or has no text tower.
    """

    keeps_latest = True
    selection_leakage = (
        "As in the reference, the best-test weights are chosen by their AUROC on the test set, which is evaluated "
        f"{EVALUATIONS} times an epoch: too good a figure."
    )

    def __init__(self, data: Path, settings: Settings, progress: Progress = no_progress) -> None:
        bmad.check_class(settings.class_name)
        if not encoder_family(settings.encoder).has_text:
            raise DetectorError(
                f'Zero-shot needs prompts, and encoder "{settings.encoder}" has no text tower: use a CLIP encoder such '
                f'as "{REFERENCE["encoder"]}".'
            )
        others = [name for name in bmad.CLASSES if name != settings.class_name]
        self.training = [
            (picture, name) for name in others for picture in bmad.test_pictures(data, name, settings.max_images)
        ]
        pictures = [picture for picture, _ in self.training]
        super().__init__(data, settings, ZERO_REFERENCE, pictures, progress)
        self.texts: dict[str, Tensor] = {}
        for done, name in enumerate(others):
            progress("text of the other classes", done, len(others), {})
            self.texts[name] = text_features(self.model.encoder.require_text(), CLASS_NAMES[name])
        progress("text of the other classes", len(others), len(others), {})
        if settings.variant == "paper":
            self.remarks.append(f"{self.batch} picture a step instead of the paper's {PAPER_BATCH}")
        self.model.has_masks = torch.tensor(True, device=self.model.encoder.device)  # maps of the seg head, always
        self.frozen = FrozenStates(self.model, LabelledImages(pictures, partial(square, size=self.size)))
        self.steps = len(pictures)

    def batches(self) -> Sequence[Tensor]:
        """Draw the order of an epoch; return the index, int64 (1,), of each step's picture."""
        return torch.randperm(self.steps, generator=self.generator).split(self.batch)

    def evaluations(self) -> set[int]:
        """Return before which steps of an epoch the reference evaluates."""
        every = max(1, self.steps // EVALUATIONS)
        return set(range(0, self.steps, every))

    def step(self, indices: Tensor) -> float:
        """Train on the picture with this index; return the loss."""
        picture, name = self.training[int(indices)]
        device = self.model.encoder.device
        labels, has_mask = torch.tensor([float(picture.label)], device=device), name in bmad.MASKED
        masks, known = self.mask(picture)[None].to(device), torch.tensor([has_mask], device=device)
        return self.trainer.step(self.frozen[indices], labels, masks, known, self.texts[name]).total.item()

    def combined(self, scores: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the zero-shot evidence, scaled over the test set."""
        return unit_range(scores[0]), unit_range(maps[0])


class MVFABenchmark(BenchmarkSuite):
    """MVFA on the six classes of BMAD, few-shot and zero-shot."""

    name = "mvfa"
    layout = "BMAD: folders Brain_AD and its like"
    classes = bmad.CLASSES
    default_shots = 4
    has_zero_shot = True

    def reference(self, zero_shot: bool) -> Mapping[str, Any]:
        """Return the settings of train_zero.py or train_few.py."""
        return ZERO_REFERENCE if zero_shot else REFERENCE

    def make(
        self, data: Path, settings: Settings, zero_shot: bool, seeds: Path | None, progress: Progress
    ) -> BenchmarkProtocol:
        """Return the experiment on a class; `seeds` is the reference project's fewshot_seed, by default in `data`."""
        if zero_shot:
            return ZeroShot(data, settings, progress)
        return FewShot(data, seeds or data / SEEDS, settings, progress)

    def ablations(self, data: Path, settings: Settings, seeds: Path | None) -> Mapping[str, Ablation]:
        """Return levels, adapters, losses where there are masks to learn from, and shots."""
        return ablations(settings, seeds or data / SEEDS)

    def published(self, class_name: str, shots: int) -> PublishedFigures:
        """Return the figures that the reference project's README gives."""
        return published(class_name, shots)
