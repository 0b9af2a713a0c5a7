"""MediCLIP's benchmark as its train.py has it: k normal pictures, synthetic anomalies, a test set of pictures."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medclipad.encoders import load_encoder
from medclipad.errors import TrainingError
from medclipad.methods.common.benchmark import BenchmarkProtocol, BenchmarkSuite, Scores, Tick, no_tick
from medclipad.methods.common.benchmark_settings import Ablation, Settings
from medclipad.methods.common.labelled_images import (
    LabelledImage,
    LabelledImages,
    check_pictures,
    open_picture,
    require_lesions,
)
from medclipad.methods.mediclip.ablations import Parts, ablations
from medclipad.methods.mediclip.jsonlines import dataset_folder, test_pictures, train_pictures
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mediclip.prompts import N_CONTEXT
from medclipad.methods.mediclip.reference import MediCLIPReference
from medclipad.methods.mediclip.synthesis import AnomalySynthesis
from medclipad.methods.mediclip.training import new_optimiser, step
from medclipad.volume.progress import Progress, no_progress

REFERENCE: dict[str, Any] = {
    "encoder": "ViT-L-14-quickgelu/openai",
    "image_size": 224,
    "epochs": 200,
    "learning_rate": 1e-3,
    "max_images": None,
    "variant": "reference",
}


class MediCLIPProtocol(BenchmarkProtocol):
    """k normal training pictures of a data set, and its test set.

    Parameters
    ----------
    data
        Folder of the data sets.
    settings
        Settings of the run.
    progress
        Called while pictures are checked.

    Attributes
    ----------
    normal
        Training pictures, uint8 (k, S, S).

    Raises
    ------
    VolumeError
        If a picture or list is missing or damaged.
    TrainingError
        If there are fewer than k normal training pictures.
    DetectorError
        If the encoder is unknown or cannot be loaded.
    """

    name, batch = "mediclip", 8
    format = MediCLIPReference()
    seeding = "shots, weights and anomalies drawn from the seed: the reference never seeds"
    selection_leakage = (
        "As in the reference, the best-test epoch is chosen by its AUROC on the test set: too good a figure."
    )
    model: MediCLIPNetwork

    def __init__(self, data: Path, settings: Settings, progress: Progress = no_progress) -> None:
        self.reference = REFERENCE
        folder = dataset_folder(data, settings.class_name)
        train, tests = train_pictures(folder), test_pictures(folder, settings.max_images)
        if settings.shots > len(train):
            raise TrainingError(
                f"{folder} has {len(train)} normal training pictures, not {settings.shots}: ask for fewer shots."
            )
        chosen = random.Random(settings.seed).sample(train, settings.shots)
        self.pictures_sha256, self.duplicates = check_pictures(tests, chosen, progress)
        encoder, parts = load_encoder(settings.encoder, settings.image_size), Parts(**settings.ablated)
        size = encoder.image_size
        learns = parts.learnable_tokens or parts.adapters  # otherwise every epoch is like the first
        self.settings = replace(settings, image_size=size, epochs=settings.epochs if learns else 1)
        options = MediCLIPOptions(
            variant=settings.variant,
            schedule="published",
            epochs=settings.epochs,
            batch=self.batch,
            learning_rate=settings.learning_rate,
            memory_share=0,
        )
        with torch.random.fork_rng():
            torch.manual_seed(settings.seed)
            n_context = N_CONTEXT if parts.learnable_tokens else 0
            self.model = MediCLIPNetwork(encoder, options, n_context, parts.adapters)
        self.remarks = []
        if not encoder.has_text:
            self.remarks.append("learned vectors in place of prompts: the encoder has no text tower")
        self._take_tests(tests, folder)
        self.normal = np.stack([training_square(open_picture(picture.path), size) for picture in chosen])
        self.synthesis = AnomalySynthesis(self.normal, options.variant, parts.mixture(options.variant))
        self._dropped = parts.dropped_losses
        self.optimiser = new_optimiser(self.model)
        self.optimisers = {"all": self.optimiser}
        self.rng = np.random.default_rng(settings.seed)
        self.steps = -(-len(chosen) // self.batch)

    def _take_tests(self, pictures: Sequence[LabelledImage], folder: Path) -> None:
        """Make these pictures of a data set the test set."""
        size = self.model.encoder.image_size
        self.tests = LabelledImages(pictures, partial(test_square, size=size))
        self.truth = None
        if any(picture.mask for picture in pictures):
            self.truth = require_lesions(np.stack([_mask(picture, size) for picture in pictures]), folder)

    def test_on(self, data: Path, class_name: str, progress: Progress) -> None:
        """Take the test set of another data set; see `BenchmarkProtocol.test_on`."""
        folder = dataset_folder(data, class_name)
        pictures = test_pictures(folder, self.settings.max_images)
        check_pictures(pictures, (), progress)
        self._take_tests(pictures, folder)

    @property
    def random_state(self) -> str:
        """State of the generator that draws orders and anomalies, as JSON."""
        return json.dumps(self.rng.bit_generator.state)

    @random_state.setter
    def random_state(self, state: str) -> None:
        self.rng.bit_generator.state = json.loads(state)

    def batches(self) -> Sequence[np.ndarray]:
        """Draw the order of an epoch; return the indices of each step's training pictures."""
        order = self.rng.permutation(len(self.normal))
        return [order[start : start + self.batch] for start in range(0, len(order), self.batch)]

    def step(self, indices: np.ndarray) -> float:
        """Train on new synthetic anomalies in the pictures with these indices; return the loss."""
        pairs = [self.synthesis(self.normal[index], self.rng) for index in indices]
        images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        return sum(step(self.model, self.optimiser, images, masks, self._dropped))

    def test(self, keep: Sequence[int] = (), tick: Tick = no_tick) -> Scores:
        """Score all test pictures; see `BenchmarkProtocol.test`."""
        self.model.freeze_text_features()
        maps, scores, kept = [], [], {}
        for start in range(0, len(self.tests), self.batch):
            indices = range(start, min(start + self.batch, len(self.tests)))
            batch_maps = self.model.anomaly(self.tests[indices])[0].cpu().numpy()
            scores.append(batch_maps.max(axis=(1, 2)))
            kept |= {index: batch_maps[index - start] for index in indices if index in keep}
            if self.truth is not None:
                maps.append(batch_maps)
            tick(len(indices))
        images = np.concatenate(scores)
        return Scores(images.astype(np.float64), kept, self.figures(images, np.concatenate(maps) if maps else None))


def training_square(image: Image.Image, size: int) -> np.ndarray:
    """Return a training picture as the reference loads it, uint8 (size, size): resized first, then made grey."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR).convert("L"))


def test_square(image: Image.Image, size: int) -> Tensor:
    """Return a test picture as the reference loads it, float32 (3, size, size) in [0, 1]: made RGB, then resized."""
    resized = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)
    return torch.from_numpy(resized / 255).permute(2, 0, 1)


def _mask(picture: LabelledImage, size: int) -> np.ndarray:
    """Return a picture's mask, bool (size, size); empty if it has none."""
    if picture.mask is None:
        return np.zeros((size, size), bool)
    return np.asarray(open_picture(picture.mask).convert("L").resize((size, size), Image.Resampling.NEAREST)) > 0


class MediCLIPBenchmark(BenchmarkSuite):
    """MediCLIP on its three data sets. No public table of its figures is at hand."""

    name = "mediclip"
    layout = "MediCLIP's data sets, each with samples/train.json and test.json"
    classes = ("brainmri", "busi", "chexpert")
    default_shots = 16
    has_transfer = True
    checkpoint_variants = ("reference", "paper")

    def reference(self, zero_shot: bool) -> Mapping[str, Any]:
        """Return the settings of train.py."""
        return REFERENCE

    def make(
        self, data: Path, settings: Settings, zero_shot: bool, seeds: Path | None, progress: Progress
    ) -> BenchmarkProtocol:
        """Return the experiment on a data set."""
        return MediCLIPProtocol(data, settings, progress)

    def ablations(self, data: Path, settings: Settings, seeds: Path | None) -> Mapping[str, Ablation]:
        """Return prompts and adapters where the encoder has a text tower, synthesis, losses and shots."""
        return ablations(settings, len(train_pictures(dataset_folder(data, settings.class_name))))
