"""Folders with the files of a DICOM series."""

from __future__ import annotations

from pathlib import Path


def is_dicom_folder(path: Path) -> bool:
    """Return whether one of the first 20 files in a folder starts as DICOM files do."""
    files = (entry for entry in sorted(path.iterdir())[:20] if entry.is_file())
    return any(_has_magic(file) for file in files)


def _has_magic(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"
