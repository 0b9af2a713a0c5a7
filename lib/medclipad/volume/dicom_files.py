"""DICOM: the files behind a folder, a list, a DICOMDIR or a zip archive."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from medclipad.errors import VolumeError

from .archive import is_dicom_start, unpack_dicom
from .damage import BoundedFile, damage_named

ARCHIVE = ".zip"


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM does: with its preamble or, in old files, with a tag of the first groups."""
    with path.open("rb") as stream:
        return is_dicom_start(stream.read(132))


@contextmanager
def dicom_files(source: Path | Sequence[Path]) -> Iterator[tuple[list[Path], bool]]:
    """(files, chosen): a folder's files with those of its subfolders, a DICOMDIR's, a zip's (unpacked as long as the
    block lasts), or the very files given; `chosen` where each must be an image.

    Raises VolumeError for a DICOMDIR or an archive that cannot be followed.
    """
    if not isinstance(source, Path):
        yield list(dict.fromkeys(source)), True
    elif source.is_dir():
        yield sorted(path for path in source.rglob("*") if path.is_file()), False
    elif source.suffix.lower() == ARCHIVE:
        with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
            yield sorted(unpack_dicom(source, Path(folder))), False
    elif (listed := _listed(source)) is not None:
        yield listed, False
    else:
        yield [source], True


def _listed(path: Path) -> list[Path] | None:
    """The files that a DICOMDIR lists; None if the file is none."""
    if not path.is_file() or not is_dicom(path):
        return None
    with damage_named(path):
        with BoundedFile(path) as stream:
            dataset = pydicom.dcmread(stream, force=True, specific_tags=["DirectoryRecordSequence"])
        if dataset.file_meta.get("MediaStorageSOPClassUID") != MediaStorageDirectoryStorage:
            return None
        records = dataset.get("DirectoryRecordSequence") or []
        ids = [record.ReferencedFileID for record in records if record.get("ReferencedFileID")]
    home, files = path.resolve().parent, []
    for parts in ids:
        file = home.joinpath(*([parts] if isinstance(parts, str) else parts)).resolve()
        if not file.is_relative_to(home):
            raise VolumeError(f"{path.name}: it lists a file outside of its folder; pass the folder instead.")
        if not file.is_file():
            raise VolumeError(
                f"{path.name}: it lists {file.name}, which is not there; copy the whole medium, or pass the folder."
            )
        files.append(file)
    return files
