"""What commands say about files and memory on standard error, and their checks before long work."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from medclipad.errors import MedCLIPADError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from medclipad.detection.cases import CaseSource, Reading
    from medclipad.volume import Volume
    from medclipad.volume.shelf import Shelf

_MUCH = 2e9  # bytes


def read_with_notes(
    sources: Iterable[CaseSource], reading: Reading, need_mask: bool = False, shelf: Shelf | None = None
) -> list[tuple[Volume, Volume | None]]:
    """Return volumes and masks as `read_cases` does, and say how each volume was understood."""
    from medclipad.detection.cases import read_cases

    cases = read_cases(list(sources), reading, need_mask, shelf)
    for volume, _ in cases:
        print_notes(volume)
    return cases


def print_notes(volume: Volume) -> None:
    """Say how a file was understood, where that is not obvious."""
    from medclipad.volume import label_note

    for note in (*volume.notes, *filter(None, [label_note(volume)])):
        print(f"{volume.name}: {note}", file=sys.stderr)


def print_memory_note(volume: Volume, needed: int) -> None:
    """Say how much memory a detection takes, if that is much; it is refused if it is not free."""
    from medclipad.volume.memory_budget import bytes_in_words, free_memory, in_words

    if needed > _MUCH:
        print(
            f"{volume.name}: {in_words(volume.shape)} need about {bytes_in_words(needed)} of memory beside the "
            f"{bytes_in_words(volume.array.nbytes)} of the volume, {bytes_in_words(free_memory())} is free",
            file=sys.stderr,
        )


def require_new(path: Path, what: str) -> None:
    """Raise MedCLIPADError if `path` exists or cannot be made: checked before the work, not after it."""
    if path.exists():
        raise MedCLIPADError(f"{path} exists already: choose another {what}.")
    parent = next(folder for folder in path.absolute().parents if folder.exists())
    require_writable(parent, what)


def require_writable(folder: Path, what: str) -> None:
    """Raise MedCLIPADError if nothing can be written to an existing folder."""
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise MedCLIPADError(f"Nothing can be written to {folder}: choose another {what}.")
