"""Shared parts of `benchmarks.speed`: encoders, detectors, images, and the reference's model for U."""

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
from typing import Any, TypeVar

import nibabel as nib
import numpy as np
from scipy.ndimage import gaussian_filter

import medclipad as mc
from benchmarks.recipe import recipe_file
from benchmarks.speed_clock import Clock, Work, seconds_of
from benchmarks.speed_reference import Reference
from medclipad.detection.detector import AnomalyDetector, load_detector
from medclipad.encoders import ImageEncoder, default_device, load_encoder
from medclipad.encoders.tensor_cache import FOLDER_VARIABLE

FULL = {"mvfa": "ViT-L-14-336", "mediclip": "ViT-L-14-quickgelu"}
SIZES = {"mvfa": 240, "mediclip": 224}
SHOTS = 4
BATCH_SLICES = 16  # slices of a volume that are detected together
WHOLE = (240, 240, 155)  # voxels of a whole volume: the size of BRATS
SIDE = 240  # pixels, of the volume whose slices are detected


T = TypeVar("T")


class Bench:
    """Everything that rows share and that is made once.

    Parameters
    ----------
    work
        Folder for weights, volumes and detectors.
    architecture
        ViT for both methods, of a smoke run; None for the papers'.
    data
        Folder that holds brain_mri_253, or None.
    budget
        Seconds to spend on images in each comparison of precisions.
    loss_epochs
        Epochs of the published training whose loss is compared.
    """

    def __init__(
        self, work: Path, architecture: str | None, data: Path | None, budget: float, loss_epochs: int
    ) -> None:
        self.work, self.data, self.budget, self.loss_epochs = work, data, budget, loss_epochs
        self.is_full = architecture is None
        self.architectures = FULL if architecture is None else dict.fromkeys(FULL, architecture)
        self.device = default_device()
        self._references: dict[str, Reference] = {}
        os.environ[FOLDER_VARIABLE] = str(work / "cache")  # for this process and its children

    @cached_property
    def clock(self) -> Clock:
        """Clock that counts in units of U."""
        return Clock(self.reference("mvfa").unit, self.device, None if self.is_full else 1)

    def reference(self, method: str) -> Reference:
        """Return open_clip's float32 model at a method's image size; U is a forward pass of MVFA's."""
        if method not in self._references:
            architecture = self.architectures[method]
            weights = self.weights(architecture)
            self._references[method] = Reference(architecture, weights, SIZES[method], self.device)
        return self._references[method]

    def weights(self, architecture: str) -> Path:
        """Return the file of an architecture's recipe weights."""
        path = self.work / f"{architecture}.pt"
        if not path.exists():
            recipe_file(architecture, path)
        return path

    def encoder_name(self, architecture: str) -> str:
        """Return the name of an encoder with recipe weights."""
        return f"{architecture}/{self.weights(architecture)}"

    def encoder(self, method: str, precision: str = "auto", architecture: str | None = None) -> ImageEncoder:
        """Load the encoder of a method at its image size."""
        name = self.encoder_name(architecture or self.architectures[method])
        return load_encoder(name, SIZES[method], precision=precision)

    def detector(self, method: str, precision: str = "auto") -> AnomalyDetector:
        """Load a detector; see `detector_folder`."""
        return load_detector(self.detector_folder(method), precision=precision)

    def detector_folder(self, method: str) -> Path:
        """Return the folder of a detector.

        It is fitted with a single training step. MVFA remembers all tokens of 4 shots, as the reference does.
        """
        folder = self.work / f"detector-{method}"
        if not folder.exists():
            normal, lesion = head(2 * SHOTS), head(SHOTS, seed=1)
            mask = lesion.with_array((lesion.array > np.quantile(lesion.array, 0.98)).astype(np.uint8))
            options: dict[str, Any] = {"max_steps": 1}
            if method == "mvfa":
                options = {"abnormal": [(lesion, mask)], "max_samples": 8, "memory_tokens": "all"}
            encoder = self.encoder_name(self.architectures[method])
            detector = mc.fit(method=method, encoder=encoder, normal=[normal], shots=SHOTS, precision="auto", **options)
            detector.save(folder)
        return folder

    def medclipad(self, *arguments: str | Path | int) -> dict[str, float]:
        """Run a medclipad command; return its wall seconds and peak memory (GB), from start to end of its process."""
        command = [sys.executable, "-m", "benchmarks.speed_of", sys.executable, "-m", "medclipad", *map(str, arguments)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

    @contextmanager
    def fresh_cache(self) -> Iterator[None]:
        """Keep a block from reading the disk cache, or writing to it."""
        kept = os.environ[FOLDER_VARIABLE]
        os.environ[FOLDER_VARIABLE] = "off"
        try:
            yield
        finally:
            os.environ[FOLDER_VARIABLE] = kept

    def some(self, sizes: Sequence[T]) -> Sequence[T]:
        """Return all sizes, or in a smoke run the first two."""
        return sizes if self.is_full else sizes[:2]

    @cached_property
    def whole(self) -> Path:
        """File of a volume of the size that the goal names."""
        return self.volume_file("whole", WHOLE if self.is_full else (64, 64, 40))

    def repeated(self, work: Work, repetitions: int) -> dict:
        """Return the median wall seconds of so many calls, and those of each."""
        spent = [seconds_of(work) for _ in range(repetitions if self.is_full else 1)]
        return {"measured": median(spent), "values": spent, "seconds": median(spent)}

    def volume_file(self, name: str, shape: tuple[int, int, int]) -> Path:
        """Return the NIfTI file of a head."""
        path = self.work / f"{name}.nii.gz"
        if not path.exists():
            nib.save(nib.Nifti1Image(head(shape[2], shape[0]).array, np.eye(4)), path)
        return path


def head(slices: int, side: int = SIDE, seed: int = 0) -> mc.Volume:
    """Return a cylinder of smooth tissue in noisy air, int16 (side, side, slices), 1 mm; no two slices are equal."""
    x = np.linspace(-1, 1, side)
    inside = (x[:, None] ** 2 + x**2 < 0.8)[..., None]
    rng = np.random.default_rng(seed)
    tissue = gaussian_filter(rng.standard_normal((side, side, slices), np.float32), (4, 4, 1))
    array = np.where(inside, 600 + 150 * tissue / tissue.std(), 0) + 5 * rng.random(tissue.shape, np.float32)
    return mc.Volume(array.astype(np.int16), np.eye(4), name="head", modality="MR")


@cache
def images(n: int, size: int, seed: int = 0) -> np.ndarray:
    """Return slices of such a head, float32 (n, size, size) in [0, 1]."""
    array = np.moveaxis(head(n, size, seed).array, 2, 0).astype(np.float32)
    return (array / array.max()).clip(0, 1)
