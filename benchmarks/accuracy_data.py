"""Images that `benchmarks.accuracy` measures on: grey squares in [0, 1], labels, and lesions where known."""

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
THUMBNAIL = 48  # pixels, side of the small images that are compared to find near duplicates
SAME = 0.97  # correlation of two thumbnails above which they count as one image
STEP = 3  # every third slice of a BRATS volume is tested
FLAIR, LABELS = "Flair_subtrMeanDivStd.nii.gz", "OTMultiClass.nii.gz"


@dataclass(frozen=True)
class Draw:
    """Shots, and the images that are tested.

    Attributes
    ----------
    shots : Shots
        Images to learn from.
    images : numpy.ndarray
        Tested images, float32 (n, S, S) in [0, 1].
    abnormal : numpy.ndarray
        Whether each of them is abnormal, bool (n,).
    lesions : numpy.ndarray or None
        Their lesions, bool (n, S, S), where they are known.
    """

    shots: Shots
    images: np.ndarray
    abnormal: np.ndarray
    lesions: np.ndarray | None


class ImageSet:
    """Set of 2D images without masks, near duplicates dropped.

    Parameters
    ----------
    normal, abnormal
        Files of the images.

    Attributes
    ----------
    images : numpy.ndarray
        float32 (n, S, S) in [0, 1].
    abnormal : numpy.ndarray
        bool (n,).
    half : numpy.ndarray
        int (n,), by a hash of each file: 0 for images on which defaults were tuned (see `benchmarks.ablation`), else 1.
    draws : int
        Number of possible draws.
    """

    draws = 1000  # any number: a draw is random

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
        """Return the numbers of images in words."""
        return (
            f"{(~self.abnormal).sum()} normal, {self.abnormal.sum()} abnormal "
            f"({self.exact} exact and {self.near} near duplicates dropped)"
        )

    def draw(self, k: int, seed: int) -> Draw:
        """Draw `k` normal and `k` abnormal shots, which include those of smaller `k`; the rest is tested."""
        rng = np.random.default_rng(seed)
        normal = rng.permutation(np.flatnonzero(~self.abnormal))[:k]
        abnormal = rng.permutation(np.flatnonzero(self.abnormal))[:k]
        rest = np.setdiff1d(np.arange(len(self.images)), np.concatenate([normal, abnormal]))
        shots = Shots(self.images[normal], self.images[abnormal], (None,) * k)
        return Draw(shots, self.images[rest], self.abnormal[rest], None)


class PatientSet:
    """Axial slices of volumes with lesion masks; one patient is left out in each draw.

    Parameters
    ----------
    folders
        One folder for each patient.

    Attributes
    ----------
    stacks : list of tuple
        For each patient the slices float32 (n, S, S), whether they are abnormal, bool (n,), and lesions bool (n, S, S).
    draws : int
        Number of possible draws, one for each patient.
    """

    def __init__(self, folders: list[Path]) -> None:
        self.stacks = []
        for folder in folders:
            volume, truth = mc.read_volume(folder / FLAIR), mc.read_volume(folder / LABELS)
            framed = FramedVolume(volume, "axial", "mr", SIZE)
            analysed = [int(index) for index in framed.analysed]
            lesions = framed.masks(truth.array > 0, analysed)
            inside = framed.slicing.slices(truth.array > 0)[framed.analysed].any(axis=(1, 2))
            self.stacks.append((framed.images(analysed), inside, lesions))
        self.draws = len(self.stacks)

    def describe(self) -> str:
        """Return the number of patients in words."""
        return f"{len(self.stacks)} patients, every {STEP}rd axial slice of the one left out"

    def draw(self, k: int, seed: int) -> Draw:
        """Draw `k` normal and `k` abnormal shots from all patients but number `seed`, who is tested."""
        rng = np.random.default_rng(seed)
        others = [stack for index, stack in enumerate(self.stacks) if index != seed]
        images, abnormal, lesions = (np.concatenate(parts) for parts in zip(*others, strict=True))
        normal = rng.permutation(np.flatnonzero(~abnormal))[:k]
        diseased = rng.permutation(np.flatnonzero(lesions.any(axis=(1, 2))))[:k]
        shots = Shots(images[normal], images[diseased], tuple(lesions[diseased]))
        return Draw(shots, *(part[::STEP] for part in self.stacks[seed]))


def data_sets(folder: Path) -> Iterator[tuple[str, ImageSet | PatientSet]]:
    """Yield the data sets that a folder holds, by name."""
    brain, head, brats = folder / "brain_mri_253", folder / "head_ct_hemorrhage", folder / "brats2013_deepmedic"
    if brain.is_dir():
        yield "brain_mri_253", ImageSet(sorted((brain / "no").iterdir()), sorted((brain / "yes").iterdir()))
    if head.is_dir():
        rows = [row.split(",") for row in (head / "labels.csv").read_text().splitlines()[1:] if row.strip()]
        paths = {int(path.stem): path for path in sorted((head / "images").iterdir())}
        normal, abnormal = ([paths[int(number)] for number, label in rows if int(label) == own] for own in (0, 1))
        yield "head_ct_hemorrhage", ImageSet(normal, abnormal)
    if brats.is_dir():
        yield "brats2013", PatientSet(sorted(path for path in brats.iterdir() if (path / FLAIR).is_file()))
