"""MediCLIP's benchmark as its train.py has it: k normal pictures, synthetic anomalies, a test set of pictures."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
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
from medclipad.methods.common.benchmark import BenchmarkProtocol, BenchmarkSuite, Scores, Settings, Tick
from medclipad.methods.common.labelled_images import LabelledImage, LabelledImages, check, open_picture, require_lesions
from medclipad.methods.mediclip.jsonlines import dataset_folder, test_pictures, train_pictures
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mediclip.reference import MediCLIPReference
from medclipad.methods.mediclip.synthesis import AnomalySynthesis
from medclipad.methods.mediclip.training import new_optimiser, step
from medclipad.volume.progress import Progress, no_progress

REFERENCE = {
    "encoder": "ViT-L-14-quickgelu/openai",
    "image_size": 224,
    "epochs": 200,
    "learning_rate": 1e-3,
    "max_images": None,
    "variant": "reference",
}


class MediCLIPProtocol(BenchmarkProtocol):
    """k normal training pictures of a data set, and its test set."""

    name, batch = "mediclip", 8
    format = MediCLIPReference()
    seeding = "shots, weights and anomalies drawn from the seed: the reference never seeds"
    choice = "As in the reference, the best-test epoch is chosen by its AUROC on the test set: too good a figure."

    def __init__(self, data: Path, settings: Settings, progress: Progress = no_progress) -> None:
        """Read and check the pictures, load the encoder; raises VolumeError, TrainingError or DetectorError."""
        self.reference = REFERENCE
        folder = dataset_folder(data, settings.class_name)
        train, tests = train_pictures(folder), test_pictures(folder, settings.max_images)
        if settings.shots > len(train):
            raise TrainingError(
                f"{folder} has {len(train)} normal training pictures, not {settings.shots}: ask for fewer shots."
            )
        chosen = random.Random(settings.seed).sample(train, settings.shots)
        self.pictures, self.repeats = check(tests, chosen, progress)
        tower = load_encoder(settings.encoder, settings.image_size)
        self.settings = replace(settings, image_size=tower.image_size)
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
            self.model = MediCLIPNetwork(tower, options)
        blind = "learned vectors in place of prompts: the encoder has no text tower"
        self.remarks = [] if tower.has_text else [blind]
        size = tower.image_size
        self.tests = LabelledImages(tests, partial(test_square, size=size))
        masked = any(one.mask for one in tests)
        self.truth = require_lesions(np.stack([_mask(one, size) for one in tests]), folder) if masked else None
        self.normal = np.stack([training_square(open_picture(one.path), size) for one in chosen])
        self.synthesis = AnomalySynthesis(self.normal, options.variant)
        self.optimiser = new_optimiser(self.model)
        self.optimisers = {"all": self.optimiser}
        self.rng = np.random.default_rng(settings.seed)
        self.steps = -(-len(chosen) // self.batch)

    @property
    def draws(self) -> str:
        return json.dumps(self.rng.bit_generator.state)

    @draws.setter
    def draws(self, state: str) -> None:
        self.rng.bit_generator.state = json.loads(state)

    def batches(self) -> Sequence[np.ndarray]:
        order = self.rng.permutation(len(self.normal))
        return [order[start : start + self.batch] for start in range(0, len(order), self.batch)]

    def step(self, chosen: np.ndarray) -> float:
        pairs = [self.synthesis(self.normal[index], self.rng) for index in chosen]
        images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        return sum(step(self.model, self.optimiser, images, masks))

    def test(self, keep: Sequence[int] = (), tick: Tick = lambda done: None) -> Scores:
        self.model.freeze_text_features()
        maps, scores, kept = [], [], {}
        for indices in torch.arange(len(self.tests)).split(self.batch):
            found = self.model.anomaly(self.tests[indices.tolist()])[0].cpu().numpy()
            scores.append(found.max(axis=(1, 2)))
            kept |= {index: one for index, one in zip(indices.tolist(), found, strict=True) if index in keep}
            if self.truth is not None:
                maps.append(found)
            tick(len(indices))
        images = np.concatenate(scores)
        return Scores(images.astype(np.float64), kept, self.figures(images, np.concatenate(maps) if maps else None))


def training_square(image: Image.Image, size: int) -> np.ndarray:
    """A training picture as the reference loads it, uint8 (size, size): resized first, made grey second."""
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR).convert("L"))


def test_square(image: Image.Image, size: int) -> Tensor:
    """A test picture as the reference loads it, float32 RGB (3, size, size) in [0, 1]: RGB first, resized second."""
    resized = np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR), dtype=np.float32)
    return torch.from_numpy(resized / 255).permute(2, 0, 1)


def _mask(picture: LabelledImage, size: int) -> np.ndarray:
    if picture.mask is None:
        return np.zeros((size, size), bool)
    return np.asarray(open_picture(picture.mask).convert("L").resize((size, size), Image.Resampling.NEAREST)) > 0


class MediCLIPBenchmark(BenchmarkSuite):
    """MediCLIP on its three data sets. Of its figures no public table is at hand."""

    name = "mediclip"
    layout = "MediCLIP's data sets, each with samples/train.json and test.json"
    classes = ("brainmri", "busi", "chexpert")
    default_shots = 16
    checkpoint_variants = ("reference", "paper")

    def reference(self, zero_shot: bool) -> dict[str, Any]:
        """Return the settings of train.py."""
        return REFERENCE

    def make(
        self, data: Path, settings: Settings, zero_shot: bool, seeds: Path | None, progress: Progress
    ) -> BenchmarkProtocol:
        """Return the experiment on a data set."""
        return MediCLIPProtocol(data, settings, progress)
