"""What the rows of `benchmarks.speed` share: encoders, detectors, pictures, and the reference's model for U."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from statistics import median

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

import medclipad as mc
from benchmarks.recipe import recipe_file
from benchmarks.speed_clock import Clock, Work, seconds_of
from benchmarks.speed_reference import Reference
from medclipad.detection.detector import AnomalyDetector, load_detector
from medclipad.encoders import default_device, load_encoder
from medclipad.encoders.tensor_cache import FOLDER_VARIABLE

FULL = {"mvfa": "ViT-L-14-336", "mediclip": "ViT-L-14-quickgelu"}
SIZES = {"mvfa": 240, "mediclip": 224}
SHOTS = 4
TOGETHER = 16  # slices of a volume that are detected together
WHOLE = (240, 240, 155)
SIDE = 240  # of the volume whose slices are detected, pixels


class Bench:
    """Folder for what is made once, architectures, data and clock."""

    def __init__(self, work: Path, architecture: str | None, data: Path | None, budget: float, loss_epochs: int):
        """`architecture` of both methods in place of the papers'; `budget` in seconds, of each fidelity row."""
        self.work, self.data, self.budget, self.loss_epochs = work, data, budget, loss_epochs
        self.is_full = architecture is None
        self.architectures = FULL if self.is_full else dict.fromkeys(FULL, architecture)
        self.device = default_device()
        self._references: dict[str, Reference] = {}
        os.environ[FOLDER_VARIABLE] = str(work / "cache")  # of this process and its children

    @cached_property
    def clock(self) -> Clock:
        return Clock(self.reference("mvfa").unit, self.device, None if self.is_full else 1)

    def reference(self, method: str) -> Reference:
        """open_clip's float32 model at the method's size, made once; U is a forward of MVFA's."""
        if method not in self._references:
            architecture = self.architectures[method]
            weights = self.weights(architecture)
            self._references[method] = Reference(architecture, weights, SIZES[method], self.device)
        return self._references[method]

    def weights(self, architecture: str) -> Path:
        """Recipe weights, made once."""
        path = self.work / f"{architecture}.pt"
        if not path.exists():
            recipe_file(architecture, path)
        return path

    def encoder_name(self, architecture: str) -> str:
        return f"{architecture}/{self.weights(architecture)}"

    def encoder(self, method: str, precision: str = "auto", architecture: str | None = None):
        """The encoder of a method at its image size."""
        name = self.encoder_name(architecture or self.architectures[method])
        return load_encoder(name, SIZES[method], precision=precision)

    def detector(self, method: str, precision: str = "auto") -> AnomalyDetector:
        """Fitted with one training step only; MVFA remembers all tokens of 4 shots, as the reference does."""
        return load_detector(self.detector_folder(method), precision=precision)

    def detector_folder(self, method: str) -> Path:
        folder = self.work / f"detector-{method}"
        if not folder.exists():
            normal, lesion = head(2 * SHOTS), head(SHOTS, seed=1)
            mask = lesion.with_array((lesion.array > np.quantile(lesion.array, 0.98)).astype(np.uint8))
            options = {"max_steps": 1}
            if method == "mvfa":
                options = {"abnormal": [(lesion, mask)], "max_samples": 8, "memory_tokens": None}
            name = self.encoder_name(self.architectures[method])
            detector = mc.fit(method, name, normal=[normal], shots=SHOTS, precision="auto", **options)
            detector.save(folder)
        return folder

    def medclipad(self, *arguments: str | Path) -> dict[str, float]:
        """Wall seconds and peak memory (GB) of a command, from the start of its process to its end."""
        command = [sys.executable, "-m", "benchmarks.speed_of", sys.executable, "-m", "medclipad", *map(str, arguments)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    @contextmanager
    def fresh_cache(self) -> Iterator[None]:
        """Inside, nothing is read from the disk cache or kept in it."""
        kept = os.environ[FOLDER_VARIABLE]
        os.environ[FOLDER_VARIABLE] = "off"
        try:
            yield
        finally:
            os.environ[FOLDER_VARIABLE] = kept

    def some(self, sizes: Sequence) -> Sequence:
        """All of them, or those of a smoke run."""
        return sizes if self.is_full else sizes[:2]

    @cached_property
    def whole(self) -> Path:
        """A volume of the size that the goal names."""
        return self.volume_file("whole", WHOLE if self.is_full else (64, 64, 40))

    def repeated(self, work: Work, repetitions: int) -> dict:
        """Median wall seconds of so many calls, and each of them."""
        spent = [seconds_of(work) for _ in range(repetitions if self.is_full else 1)]
        return {"measured": median(spent), "values": spent, "seconds": median(spent)}

    def volume_file(self, name: str, shape: tuple[int, int, int]) -> Path:
        """A head as NIfTI, made once."""
        path = self.work / f"{name}.nii.gz"
        if not path.exists():
            nib.save(nib.Nifti1Image(head(shape[2], shape[0]).array, np.eye(4)), path)
        return path


def head(slices: int, side: int = SIDE, seed: int = 0) -> mc.Volume:
    """A cylinder of smooth tissue in noisy air, int16 (side, side, slices), 1 mm: no slice is skipped or repeated."""
    x = np.linspace(-1, 1, side)
    inside = (x[:, None] ** 2 + x**2 < 0.8)[..., None]
    rng = np.random.default_rng(seed)
    tissue = gaussian_filter(rng.standard_normal((side, side, slices), np.float32), (4, 4, 1))
    array = np.where(inside, 600 + 150 * tissue / tissue.std(), 0) + 5 * rng.random(tissue.shape, np.float32)
    return mc.Volume(array.astype(np.int16), np.eye(4), name="head", modality="MR")


@cache
def pictures(n: int, size: int, seed: int = 0) -> np.ndarray:
    """Such heads as slices, float32 (n, size, size) in [0, 1]."""
    array = np.moveaxis(head(n, size, seed).array, 2, 0).astype(np.float32)
    return (array / array.max()).clip(0, 1)
