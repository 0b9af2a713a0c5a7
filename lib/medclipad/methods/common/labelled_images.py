"""Pictures of a benchmark: where they are, whether they are sound, and their tensors, read when asked for."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from medclipad.errors import VolumeError
from medclipad.files import sha256_of_file
from medclipad.volume.progress import Progress

_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises on damaged files


@dataclass(frozen=True)
class LabelledImage:
    """An image, its label (0 normal, 1 abnormal), and its lesion's mask where the benchmark has one."""

    path: Path
    label: int
    mask: Path | None = None


class LabelledImages:
    """RGB tensors (B, 3, S, S) in [0, 1] of pictures, read anew each time: a test set need not fit in memory."""

    def __init__(self, pictures: Sequence[LabelledImage], load: Callable[[Image.Image], Tensor]) -> None:
        self.pictures, self._load = tuple(pictures), load

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, chosen: Sequence[int]) -> Tensor:
        return torch.stack([self._load(open_picture(self.pictures[index].path)) for index in chosen])

    @property
    def labels(self) -> Tensor:
        """int64 (n,)."""
        return torch.tensor([picture.label for picture in self.pictures])


def open_picture(path: Path) -> Image.Image:
    """A picture with its pixels; raises VolumeError if it is missing or damaged."""
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError as error:
        raise VolumeError(f"{path} is missing: restore the file, or take it out of the list that names it.") from error
    except _UNREADABLE as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VolumeError(f"{path} is not a readable picture ({reason}): fetch the file again.") from error
    if image.mode.startswith(("I", "F")):
        raise VolumeError(f"{path} has more than 8 bits a pixel, which the reference codes cut off: save it with 8.")
    return image


class Checked(NamedTuple):
    """What `check` found."""

    sha256: str  # of names, labels and contents of pictures and masks
    repeats: list[str]  # sentences on pictures that are there twice, byte for byte


def check(tests: Sequence[LabelledImage], training: Sequence[LabelledImage], progress: Progress) -> Checked:
    """Read every picture and mask once, so that a fault shows now and not after hours of training.

    Raises VolumeError for a damaged file, and a mask of another size than its picture.
    """
    digest, pictures, contents = hashlib.sha256(), [*tests, *training], []
    for done, picture in enumerate(pictures):
        progress("check the pictures", done, len(pictures), {})
        size = open_picture(picture.path).size
        if picture.mask is not None and (other := open_picture(picture.mask).size) != size:
            raise VolumeError(
                f"{picture.mask} has {other[0]} × {other[1]} pixels and its picture {size[0]} × {size[1]}: "
                "give the mask that belongs to it."
            )
        contents.append(sha256_of_file(picture.path))
        mask = sha256_of_file(picture.mask) if picture.mask else None
        digest.update(f"{picture.path.name!r} {contents[-1]} {picture.label} {mask}\n".encode())
    progress("check the pictures", len(pictures), len(pictures), {})
    shown, learned = contents[: len(tests)], contents[len(tests) :]
    counts = {
        f"of the {len(shown)} test pictures are training pictures too": sum(one in set(learned) for one in shown),
        "test pictures are there more than once": len(shown) - len(set(shown)),
        "training pictures are there more than once": len(learned) - len(set(learned)),
    }
    return Checked(digest.hexdigest(), [f"{count} {what}." for what, count in counts.items() if count])


def require_lesions(truth: np.ndarray, where: Path) -> np.ndarray:
    """`truth`, bool (n, S, S); raises VolumeError unless some pixels of the test set are abnormal and others not."""
    if truth.all() or not truth.any():
        kind = "normal" if truth.any() else "abnormal"
        raise VolumeError(f"The masks in {where} leave no {kind} pixel: they must be 255 on lesions and 0 elsewhere.")
    return truth


def require_both(pictures: Sequence[LabelledImage], where: Path) -> None:
    """Raises VolumeError unless a test set has normal and abnormal pictures."""
    for label, kind in enumerate(("normal", "abnormal")):
        if all(picture.label != label for picture in pictures):
            raise VolumeError(f"The test set in {where} has no {kind} picture: an AUROC needs both kinds.")


def few(pictures: list[LabelledImage], limit: int | None) -> list[LabelledImage]:
    """The first `limit` normal and the first `limit` abnormal pictures, in their order; all for None."""
    seen: Counter[int] = Counter()
    kept = []
    for picture in pictures:
        seen[picture.label] += 1
        if limit is None or seen[picture.label] <= limit:
            kept.append(picture)
    return kept
