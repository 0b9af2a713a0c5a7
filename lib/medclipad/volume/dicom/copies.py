"""DICOM: the same image twice in a source, as after an export that was copied into its own folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medclipad.errors import VolumeError
from medclipad.volume.dicom.mosaic import slices_of
from medclipad.volume.dicom.pixels import stored_values

_SAME = ("ImagePositionPatient", "ImageOrientationPatient", "Rows", "Columns", "NumberOfFrames", "InstanceNumber")


def without_copies(headers: dict[Path, Dataset]) -> tuple[dict[Path, Dataset], list[str]]:
    """Return the headers without those of copies, and a note on the copies.

    Parameters
    ----------
    headers
        Headers of images, by file.

    Raises
    ------
    VolumeError
        If two files have one SOP Instance UID and one place, but different pixels.

    Notes
    -----
    A file is a copy if it has the SOP Instance UID, the place and the number of another one, and its bytes or at least
    its pixels. Programs that remove identities may give one UID to all images: those differ in place or number, and
    stay.
    """
    kept: dict[tuple[str, ...], list[Path]] = {}
    copies: set[Path] = set()
    for path, header in headers.items():
        key = tuple(str(header.get(keyword, "")) for keyword in ("SOPInstanceUID", *_SAME))
        others = kept.setdefault(key, [])
        if any(_same_image(headers, path, other, named=bool(key[0])) for other in others):
            copies.add(path)
        else:
            others.append(path)
    if not copies:
        return headers, []
    what = "1 file is a copy of another one and was" if len(copies) == 1 else f"{len(copies)} files are copies and were"
    return {path: header for path, header in headers.items() if path not in copies}, [
        f"{what} left out (same SOP Instance UID and pixels)"
    ]


def _same_image(headers: dict[Path, Dataset], path: Path, other: Path, named: bool) -> bool:
    """Return whether two files of one key hold the same image; raise VolumeError if they have one UID and do not."""
    if path.stat().st_size == other.stat().st_size and _digest(path) == _digest(other):
        return True
    if not named:
        return False
    own, theirs = (stored_values(slices_of(file, headers[file])[0]) for file in (path, other))
    if np.array_equal(own, theirs):
        return True
    raise VolumeError(
        f"{path.name}: it has the same SOP Instance UID and place as {other.name}, but other pixels; "
        "move one of them to another folder."
    )


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
