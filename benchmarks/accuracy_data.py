"""The images that `benchmarks.accuracy` measures on: grey squares in [0, 1], labels, and lesions where known."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import medclipad as mc
from medclipad.detection.slice_frames import FramedVolume
from medclipad.methods.base import Shots

SIZE = 224
THUMBNAIL = 48  # side in pixels of what is compared to find near duplicates
SAME = 0.97  # correlation of two thumbnails from which on they count as one picture
STEP = 3  # of the slices of a BRATS volume that are tested: every third
FLAIR, LABELS = "Flair_subtrMeanDivStd.nii.gz", "OTMultiClass.nii.gz"


@dataclass(frozen=True)
class Draw:
    """Shots, and everything that is tested: images float32 (n, S, S), abnormal bool (n,), lesions bool (n, S, S)."""

    shots: Shots
    images: np.ndarray
    abnormal: np.ndarray
    lesions: np.ndarray | None


class Pictures:
    """A set of 2D pictures without masks; the near duplicates of an earlier one are dropped.

    half: int (n,), 0 for those on which defaults were tuned (see `benchmarks.ablation`), else 1; by the files' hash.
    """

    draws = 1000  # as many as one likes

    def __init__(self, normal: list[Path], abnormal: list[Path]) -> None:
        kept, thumbnails, seen = [], [], set()
        self.exact = self.near = 0
        for path, label in [(path, 0) for path in normal] + [(path, 1) for path in abnormal]:
            digest = hashlib.sha256(path.read_bytes()).digest()
            if digest in seen:
                self.exact += 1
                continue
            seen.add(digest)
            grey = Image.open(path).convert("L")
            small = np.asarray(grey.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BILINEAR), float).ravel()
            small = (small - small.mean()) / (np.linalg.norm(small - small.mean()) + 1e-9)
            if thumbnails and max(np.stack(thumbnails) @ small) > SAME:
                self.near += 1
                continue
            thumbnails.append(small)
            half = int(hashlib.md5(path.read_bytes()).hexdigest()[:8], 16) % 2
            square = grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
            kept.append((np.asarray(square, np.float32) / 255, label, half))
        images, labels, halves = zip(*kept, strict=True)
        self.images, self.abnormal, self.half = np.stack(images), np.array(labels, bool), np.array(halves)

    def describe(self) -> str:
        return (
            f"{(~self.abnormal).sum()} normal, {self.abnormal.sum()} abnormal "
            f"({self.exact} exact and {self.near} near duplicates dropped)"
        )

    def draw(self, k: int, seed: int) -> Draw:
        """k normal and k abnormal shots (those of a smaller k are among those of a greater); the rest is tested."""
        rng = np.random.default_rng(seed)
        normal = rng.permutation(np.flatnonzero(~self.abnormal))[:k]
        abnormal = rng.permutation(np.flatnonzero(self.abnormal))[:k]
        rest = np.setdiff1d(np.arange(len(self.images)), np.concatenate([normal, abnormal]))
        shots = Shots(self.images[normal], self.images[abnormal], (None,) * k)
        return Draw(shots, self.images[rest], self.abnormal[rest], None)


class Patients:
    """Axial slices of volumes with lesion masks. A draw leaves out patient `seed`, so there are as many as patients."""

    def __init__(self, folders: list[Path]) -> None:
        self.stacks = []
        for folder in folders:
            volume, truth = mc.read_volume(folder / FLAIR), mc.read_volume(folder / LABELS)
            framed = FramedVolume(volume, "axial", "mr", SIZE)
            lesions = framed.masks(truth.array > 0, framed.analysed)
            inside = framed.slicing.slices(truth.array > 0)[framed.analysed].any(axis=(1, 2))
            self.stacks.append((framed.images(framed.analysed), inside, lesions))
        self.draws = len(self.stacks)

    def describe(self) -> str:
        return f"{len(self.stacks)} patients, every {STEP}rd axial slice of the one left out"

    def draw(self, k: int, seed: int) -> Draw:
        rng = np.random.default_rng(seed)
        others = [stack for place, stack in enumerate(self.stacks) if place != seed]
        images, abnormal, lesions = (np.concatenate(parts) for parts in zip(*others, strict=True))
        normal = rng.permutation(np.flatnonzero(~abnormal))[:k]
        diseased = rng.permutation(np.flatnonzero(lesions.any(axis=(1, 2))))[:k]
        shots = Shots(images[normal], images[diseased], tuple(lesions[diseased]))
        return Draw(shots, *(part[::STEP] for part in self.stacks[seed]))


def data_sets(folder: Path) -> Iterator[tuple[str, Pictures | Patients]]:
    """Those that are in the folder, by name."""
    brain, head, brats = folder / "brain_mri_253", folder / "head_ct_hemorrhage", folder / "brats2013_deepmedic"
    if brain.is_dir():
        yield "brain_mri_253", Pictures(sorted((brain / "no").iterdir()), sorted((brain / "yes").iterdir()))
    if head.is_dir():
        rows = [row.split(",") for row in (head / "labels.csv").read_text().splitlines()[1:] if row.strip()]
        paths = {int(path.stem): path for path in sorted((head / "images").iterdir())}
        by_label = [[paths[int(number)] for number, label in rows if int(label) == wanted] for wanted in (0, 1)]
        yield "head_ct_hemorrhage", Pictures(*by_label)
    if brats.is_dir():
        yield "brats2013", Patients(sorted(path for path in brats.iterdir() if (path / FLAIR).is_file()))
