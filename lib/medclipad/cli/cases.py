"""What the commands are given: IMAGE, or IMAGE:MASK."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from medclipad.errors import MedCLIPADError

if TYPE_CHECKING:
    from medclipad.volume import Volume

Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    typer.Option(help="Of the frozen encoder: float32 as published; auto: bfloat16 where that is faster."),
]

_MUCH = 2e9  # bytes


def read_case(text: str, mask_required: bool = False) -> Volume | tuple[Volume, Volume]:
    """A volume, or (volume, mask), from "IMAGE" or "IMAGE:MASK"; raises MedCLIPADError if it cannot be read."""
    from medclipad.volume import read_volume

    image, _, mask = text.rpartition(":") if _has_mask(text) else (text, "", "")
    if not mask and mask_required:
        raise MedCLIPADError(f'"{text}" lacks its mask: write IMAGE:MASK.')
    volume = read_volume(image)
    tell(volume)
    return (volume, read_volume(mask)) if mask else volume


def tell(volume: Volume) -> None:
    """Say how a file was understood, where that is not obvious."""
    from medclipad.volume import label_note

    for note in (*volume.notes, *filter(None, [label_note(volume)])):
        print(f"{volume.name}: {note}", file=sys.stderr)


def tell_memory(volume: Volume, needed: int) -> None:
    """Say what a detection will take of the memory, if that is much; it is refused where it cannot be had."""
    from medclipad.volume.memory_budget import bytes_in_words, free_memory, in_words

    if needed > _MUCH:
        print(
            f"{volume.name}: {in_words(volume.shape)} need about {bytes_in_words(needed)} of memory beside the "
            f"{bytes_in_words(volume.array.nbytes)} of the volume, {bytes_in_words(free_memory())} are free",
            file=sys.stderr,
        )


def require_new(path: Path, what: str) -> None:
    """Raises MedCLIPADError if `path` exists or cannot be made: better known before the work than after it."""
    if path.exists():
        raise MedCLIPADError(f"{path} exists already: choose another {what}.")
    home = next(folder for folder in path.absolute().parents if folder.exists())
    if not home.is_dir() or not os.access(home, os.W_OK):
        raise MedCLIPADError(f"Nothing can be written to {home}: choose another {what}.")


def _has_mask(text: str) -> bool:
    """Whether the last colon parts an image from a mask: not that of C:\\ and not one in a file's name."""
    return ":" in text[2:] and not Path(text).exists()
