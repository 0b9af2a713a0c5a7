"""Pictures of a benchmark: where they are, whether they are readable, and their tensors."""

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

_READ_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # what Pillow raises on damaged files


@dataclass(frozen=True)
class LabelledImage:
    """A picture file and what is known about it.

    Attributes
    ----------
    path
        The picture.
    label
        0 normal, 1 abnormal.
    mask
        Picture of its lesion, where the benchmark has one.
    """

    path: Path
    label: int
    mask: Path | None = None


class LabelledImages:
    """Tensors of pictures, read anew each time, so that a test set need not fit in memory.

    `images[[0, 3]]` is an RGB tensor (2, 3, S, S) in [0, 1].

    Parameters
    ----------
    pictures
        The pictures.
    load
        Turns an opened picture into an RGB tensor (3, S, S).

    Attributes
    ----------
    pictures
        The pictures.
    """

    def __init__(self, pictures: Sequence[LabelledImage], load: Callable[[Image.Image], Tensor]) -> None:
        self.pictures, self._load = tuple(pictures), load

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, indices: Sequence[int]) -> Tensor:
        return torch.stack([self._load(open_picture(self.pictures[index].path)) for index in indices])

    @property
    def labels(self) -> Tensor:
        """Labels of the pictures, int64 (n,): 0 normal, 1 abnormal."""
        return torch.tensor([picture.label for picture in self.pictures])


def open_picture(path: Path) -> Image.Image:
    """Return a picture with its pixels loaded.

    Raises
    ------
    VolumeError
        If the file is missing or damaged, or has more than 8 bits a pixel.
    """
    try:
        image = Image.open(path)
        image.load()
    except FileNotFoundError as error:
        raise VolumeError(f"{path} is missing: restore the file, or take it out of the list that names it.") from error
    except _READ_ERRORS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VolumeError(f"{path} is not a readable picture ({reason}): fetch the file again.") from error
    if image.mode.startswith(("I", "F")):
        raise VolumeError(f"{path} has more than 8 bits a pixel, which the reference codes cut off: save it with 8.")
    return image


class CheckedPictures(NamedTuple):
    """What `check_pictures` found.

    Attributes
    ----------
    sha256
        Hash of the names, labels and contents of all pictures and masks.
    duplicates
        A sentence on each kind of pictures that occur more than once, byte for byte.
    """

    sha256: str
    duplicates: list[str]


def check_pictures(
    tests: Sequence[LabelledImage], training: Sequence[LabelledImage], progress: Progress
) -> CheckedPictures:
    """Read every picture and mask once, so that a fault shows now and not after hours of training.

    Parameters
    ----------
    tests, training
        Pictures of the test set and of the training.
    progress
        Called after each picture.

    Returns
    -------
    CheckedPictures
        Hash of all files, and what occurs more than once.

    Raises
    ------
    VolumeError
        If a file is missing or damaged, or a mask has another size than its picture.
    """
    digest, pictures = hashlib.sha256(), [*tests, *training]
    contents: list[str] = []
    for done, picture in enumerate(pictures):
        progress("check the pictures", done, len(pictures), {})
        size = open_picture(picture.path).size
        if picture.mask is not None and (mask_size := open_picture(picture.mask).size) != size:
            raise VolumeError(
                f"{picture.mask} has {mask_size[0]} × {mask_size[1]} pixels and its picture {size[0]} × {size[1]}: "
                "give the mask that belongs to it."
            )
        contents.append(sha256_of_file(picture.path))
        mask = sha256_of_file(picture.mask) if picture.mask else None
        digest.update(f"{picture.path.name!r} {contents[-1]} {picture.label} {mask}\n".encode())
    progress("check the pictures", len(pictures), len(pictures), {})
    tested, trained = contents[: len(tests)], contents[len(tests) :]
    counts = {
        f"of the {len(tested)} test pictures are training pictures too": sum(
            content in set(trained) for content in tested
        ),
        "test pictures are there more than once": len(tested) - len(set(tested)),
        "training pictures are there more than once": len(trained) - len(set(trained)),
    }
    return CheckedPictures(digest.hexdigest(), [f"{count} {what}." for what, count in counts.items() if count])


def require_lesions(truth: np.ndarray, folder: Path) -> np.ndarray:
    """Return the truth of a test set if it has both abnormal and normal pixels.

    Parameters
    ----------
    truth
        bool (n, S, S).
    folder
        Where the masks are, for the message.

    Raises
    ------
    VolumeError
        If no pixel is abnormal, or none is normal.
    """
    if truth.all() or not truth.any():
        missing = "normal" if truth.any() else "abnormal"
        raise VolumeError(
            f"The masks in {folder} leave no {missing} pixel: they must be 255 on lesions and 0 elsewhere."
        )
    return truth


def require_both_labels(pictures: Sequence[LabelledImage], folder: Path) -> None:
    """Raise VolumeError, which names the folder, unless a test set has both normal and abnormal pictures."""
    for label, name in enumerate(("normal", "abnormal")):
        if all(picture.label != label for picture in pictures):
            raise VolumeError(f"The test set in {folder} has no {name} picture: an AUROC needs both kinds.")


def first_of_each_label(pictures: Sequence[LabelledImage], limit: int | None) -> list[LabelledImage]:
    """Return at most `limit` normal and `limit` abnormal pictures, the first ones, in their order; all for None."""
    seen: Counter[int] = Counter()
    kept = []
    for picture in pictures:
        seen[picture.label] += 1
        if limit is None or seen[picture.label] <= limit:
            kept.append(picture)
    return kept
