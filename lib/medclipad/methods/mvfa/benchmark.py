"""MVFA's benchmark on BMAD, few-shot and zero-shot, as train_few.py, train_zero.py and their tests have it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
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
from medclipad.methods.common.benchmark import (
    UNKNOWN_FIGURES,
    BenchmarkProtocol,
    BenchmarkSuite,
    PublishedFigures,
    Scores,
    Settings,
    Tick,
)
from medclipad.methods.common.labelled_images import LabelledImage, LabelledImages, check, open_picture, require_lesions
from medclipad.methods.mvfa import bmad
from medclipad.methods.mvfa.augment import square
from medclipad.methods.mvfa.network import Evidence, MVFANetwork, combine, unit_range
from medclipad.methods.mvfa.options import PAPER_BATCH, MVFAOptions
from medclipad.methods.mvfa.prompts import CLASS_NAMES, text_features
from medclipad.methods.mvfa.reference import MVFAReference
from medclipad.methods.mvfa.training import FrozenStates, Trainer, initialise, samples
from medclipad.volume.progress import Progress, no_progress

REFERENCE = {
    "encoder": "ViT-L-14-336/openai",
    "image_size": 240,
    "epochs": 50,
    "learning_rate": 1e-3,
    "seed": 111,
    "iterate": 0,
    "max_images": None,
    "variant": "reference",
}
ZERO_REFERENCE = {**REFERENCE, "learning_rate": 1e-4}
LOOKS = 5  # at the test set in an epoch of zero-shot training
_CHUNK = 8  # test pictures looked at together


class _BMADProtocol(BenchmarkProtocol):
    """One class of BMAD: the model, its test set, and how evidence becomes scores."""

    name, batch = "mvfa", 1
    format = MVFAReference()
    seeding = "weights and order drawn from the seed by this program: the reference's draws differ"

    def __init__(
        self, data: Path, settings: Settings, reference: dict, training: list[LabelledImage], progress: Progress
    ):
        self.reference, class_name = reference, settings.class_name
        pictures = bmad.test_pictures(data, class_name, settings.max_images)
        self.pictures, self.repeats = check(pictures, training, progress)
        tower = load_encoder(settings.encoder, settings.image_size)
        self.settings = replace(settings, image_size=tower.image_size)
        options = MVFAOptions(
            variant=settings.variant,
            class_name=CLASS_NAMES[class_name],
            epochs=settings.epochs,
            batch=self.batch,
            learning_rate=settings.learning_rate,
            max_samples=0,
            memory_tokens="all",
        )
        self.model = MVFANetwork(tower, options)
        self.remarks = []
        initialise(self.model, settings.seed)
        if tower.has_text:
            progress("text", 0, 1, {})
            self.model.use_class(options.class_name)
            progress("text", 1, 1, {})
        else:
            self.remarks.append("learned vectors in place of prompts, and no residual: the encoder has no text tower")
        self.size = tower.image_size
        self.tests = LabelledImages(pictures, partial(square, size=self.size))
        masked = class_name in bmad.MASKED
        self.truth = None
        if masked:
            truth = np.stack([self.mask(one).numpy() > 0 for one in pictures])
            self.truth = require_lesions(truth, data / f"{class_name}_AD" / "test")
        self.trainer = Trainer(self.model, settings.learning_rate)
        self.optimisers = self.trainer.optimisers
        self.generator = torch.Generator().manual_seed(settings.seed)

    def mask(self, picture: LabelledImage) -> Tensor:
        """Mask (S, S) in {0, 1} of a picture, as the reference thresholds it: empty if it has none."""
        if picture.mask is None:
            return torch.zeros(self.size, self.size)
        return (square(open_picture(picture.mask), self.size, mask=True) > 0.5).float()

    @property
    def draws(self) -> Tensor:
        return self.generator.get_state()

    @draws.setter
    def draws(self, state: Tensor) -> None:
        self.generator.set_state(state)

    def test(self, keep: Sequence[int] = (), tick: Tick = lambda done: None) -> Scores:
        self.prepare()
        n = len(self.tests)
        # All maps of a test set are held only where they count; never none, so that a range can be taken.
        held = list(range(n)) if self.truth is not None else list(keep) or [0]
        row = {index: place for place, index in enumerate(held)}
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
        for indices in torch.arange(len(self.tests)).split(_CHUNK):
            evidence = self.model.evidence(self.tests[indices.tolist()])
            for place, index in enumerate(indices.tolist()):
                yield index, Evidence(*(part[place] for part in evidence))
            tick(len(indices))

    def checkpoint(self) -> dict | None:
        """As `BenchmarkProtocol.checkpoint`: None of the paper's variant, too, whose projectors the format cannot hold."""
        return super().checkpoint() if self.settings.variant == "reference" else None

    def prepare(self) -> None:
        """Bring the model up to its present adapters before a test."""

    @abstractmethod
    def combined(self, scores: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Image scores (n,) and maps (m, S, S) of zero- and few-shot scores (2, n) and maps (2, m, S, S)."""


class FewShot(_BMADProtocol):
    """train_few.py: k normal and k abnormal shots, eleven of each by augmentation, and a memory of the normal ones."""

    choice = "As in the reference, the best-test epoch is chosen by its AUROC on the test set: too good a figure."
    scale = "As in the reference, both parts of a score are min-max normalised over the whole test set before the sum."

    def __init__(self, data: Path, seeds: Path, settings: Settings, progress: Progress = no_progress) -> None:
        """Read and check the pictures, load the encoder; raises VolumeError or DetectorError."""
        if settings.variant == "paper":
            self.batch = PAPER_BATCH
        chosen = bmad.shots(data, seeds, settings.class_name, settings.shots, settings.iterate)
        super().__init__(data, settings, REFERENCE, chosen, progress)
        images = LabelledImages(chosen, partial(square, size=self.size))[range(len(chosen))].numpy()
        k, masked = settings.shots, self.truth is not None
        # Not thresholded yet: the augmentation interpolates, the threshold follows.
        masks = [square(open_picture(one.mask), self.size, mask=True).numpy() if masked else None for one in chosen[k:]]
        self.data = samples(Shots(images[:k], images[k:], tuple(masks)))
        self.model.has_masks = torch.tensor(masked, device=self.model.encoder.device)
        self.frozen = FrozenStates(self.model, self.data.images)
        self.steps = -(-len(self.data.images) // self.batch)

    def batches(self) -> Sequence[Tensor]:
        return torch.randperm(len(self.data.images), generator=self.generator).split(self.batch)

    def step(self, chosen: Tensor) -> float:
        device = self.model.encoder.device
        losses = self.trainer.step(self.frozen[chosen], *(part[chosen].to(device) for part in self.data[1:]))
        return losses.total.item()

    def prepare(self) -> None:
        self.model.remember(self.data.images[self.data.labels == 0])

    def combined(self, scores: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        combined = combine(*maps)
        return (combine(*scores) if self.truth is None else combined.max(axis=(1, 2))), combined


class ZeroShot(_BMADProtocol):
    """train_zero.py: trained on the test sets of the five other classes, tested on the sixth; det head for images."""

    keeps_latest = True
    choice = (
        "As in the reference, the best-test weights are chosen by their AUROC on the test set, looked at "
        f"{LOOKS} times an epoch: too good a figure."
    )

    def __init__(self, data: Path, settings: Settings, progress: Progress = no_progress) -> None:
        """Read and check the pictures, load the encoder; raises VolumeError, or DetectorError without text tower."""
        bmad.check_class(settings.class_name)
        if not encoder_family(settings.encoder).has_text:
            raise DetectorError(
                f'Zero-shot needs prompts, and encoder "{settings.encoder}" has no text tower: use a CLIP encoder such '
                f'as "{REFERENCE["encoder"]}".'
            )
        others = [name for name in bmad.CLASSES if name != settings.class_name]
        self.training = [(one, name) for name in others for one in bmad.test_pictures(data, name, settings.max_images)]
        pictures = [one for one, _ in self.training]
        super().__init__(data, settings, ZERO_REFERENCE, pictures, progress)
        texts = {}
        for done, name in enumerate(others):
            progress("text of the other classes", done, len(others), {})
            texts[name] = text_features(self.model.encoder.text, CLASS_NAMES[name])
        progress("text of the other classes", len(others), len(others), {})
        self.texts = texts
        if settings.variant == "paper":
            self.remarks.append(f"{self.batch} picture a step instead of the paper's {PAPER_BATCH}")
        self.model.has_masks = torch.tensor(True, device=self.model.encoder.device)  # maps of the seg head, always
        self.frozen = FrozenStates(self.model, LabelledImages(pictures, partial(square, size=self.size)))
        self.steps = len(pictures)

    def batches(self) -> Sequence[Tensor]:
        return torch.randperm(self.steps, generator=self.generator).split(self.batch)

    def evaluations(self) -> set[int]:
        every = max(1, self.steps // LOOKS)
        return set(range(0, self.steps, every))

    def step(self, chosen: Tensor) -> float:
        picture, name = self.training[chosen.item()]
        device = self.model.encoder.device
        labels, has_mask = torch.tensor([float(picture.label)], device=device), name in bmad.MASKED
        masks, known = self.mask(picture)[None].to(device), torch.tensor([has_mask], device=device)
        return self.trainer.step(self.frozen[chosen], labels, masks, known, self.texts[name]).total.item()

    def combined(self, scores: np.ndarray, maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return unit_range(scores[0]), unit_range(maps[0])


_SOURCE = "README of MediaBrain-SJTU/MVFA-AD at a30bf7b"
# (image AUROC, pixel AUROC) in %: of the paper, and of the published code and weights.
_FIGURES = {
    4: {
        "Brain": ((92.44, 97.30), (92.31, 97.30)),
        "Liver": ((81.18, 99.73), (81.18, 99.69)),
        "Retina_RESC": ((96.18, 98.97), (96.18, 98.97)),
        "Retina_OCT2017": ((99.38, None), (99.38, None)),
        "Chest": ((81.95, None), (81.95, None)),
        "Histopathology": ((82.71, None), (82.71, None)),
    },
    0: {
        "Brain": ((78.63, 90.27), (79.80, 89.68)),
        "Liver": ((76.24, 97.85), (81.18, 97.93)),
        "Retina_RESC": ((83.31, 92.05), (88.99, 90.44)),
        "Retina_OCT2017": ((95.40, None), (95.40, None)),
        "Chest": ((71.11, None), (71.11, None)),
        "Histopathology": ((77.90, None), (76.90, None)),
    },
}
"""By shots, 0 for zero-shot."""


class MVFABenchmark(BenchmarkSuite):
    """MVFA on the six classes of BMAD, few-shot and zero-shot."""

    name = "mvfa"
    layout = "BMAD: folders Brain_AD and its like"
    classes = bmad.CLASSES
    default_shots = 4
    has_zero_shot = True

    def reference(self, zero_shot: bool) -> dict[str, Any]:
        """Return the settings of train_zero.py or train_few.py."""
        return ZERO_REFERENCE if zero_shot else REFERENCE

    def make(
        self, data: Path, settings: Settings, zero_shot: bool, seeds: Path | None, progress: Progress
    ) -> BenchmarkProtocol:
        """Return the experiment on a class; `seeds` is the reference project's fewshot_seed, by default in `data`."""
        if zero_shot:
            return ZeroShot(data, settings, progress)
        return FewShot(data, seeds or data / "fewshot_seed", settings, progress)

    def published(self, class_name: str, shots: int) -> PublishedFigures:
        """Return the figures that the reference project's README gives."""
        known = _FIGURES.get(shots, {}).get(class_name)
        if known is None:
            return UNKNOWN_FIGURES
        paper, code = ((image / 100, None if pixel is None else pixel / 100) for image, pixel in known)
        return PublishedFigures(_SOURCE, paper, code)
