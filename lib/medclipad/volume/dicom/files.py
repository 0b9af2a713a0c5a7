"""DICOM: the files behind a folder, a list, a DICOMDIR or a zip archive."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pydicom
from pydicom.uid import MediaStorageDirectoryStorage

from medclipad.errors import VolumeError
from medclipad.volume.read_errors import BoundedFile, damage_named
from medclipad.volume.readers.archives import is_dicom_name, is_dicom_start, require_no_dicom_name, unpack_dicom

ARCHIVE = ".zip"


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM does: with its preamble or, in old files, with a tag of the first groups."""
    with path.open("rb") as stream:
        return is_dicom_start(stream.read(132))


def may_be_dicom(name: str) -> bool:
    """Whether a file may be meant as DICOM by its name: IM1, 1.2.840.7 and a.dcm, but not notes.txt or .DS_Store."""
    return is_dicom_name(name) or not (name.startswith(".") or PurePosixPath(name).suffix[1:].isalpha())


def others_note(files: Sequence[Path]) -> list[str]:
    """A note on files beside the images that are not DICOM, where their names do not tell what else they are.

    Raises VolumeError if a name says that it is DICOM: a damaged slice must not get lost.
    """
    others = [path.name for path in files if may_be_dicom(path.name) and not is_dicom(path)]
    for name in others:
        require_no_dicom_name(name)
    if not others:
        return []
    named = ", ".join(repr(name)[1:-1] for name in others[:3]) + (", ..." if len(others) > 3 else "")
    return [f"{len(others)} files that are not DICOM were left out ({named})"]


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
            yield sorted(unpack_dicom(source, Path(folder), also=may_be_dicom)), False
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
        listed = [home.joinpath(*([parts] if isinstance(parts, str) else parts)).resolve() for parts in ids]
    for file in listed:
        if not file.is_relative_to(home):
            raise VolumeError(f"{path.name}: it lists a file outside of its folder; pass the folder instead.")
        if not file.is_file():
            raise VolumeError(
                f"{path.name}: it lists {file.name}, which is not there; copy the whole medium, or pass the folder."
            )
        if not is_dicom(file):
            raise VolumeError(f"{path.name}: it lists {file.name}, which is not DICOM; copy the whole medium again.")
        files.append(file)
    beside = {file for folder in {file.parent for file in files} for file in folder.iterdir() if file.is_file()}
    found = sum(is_dicom(file) for file in beside - {path.resolve()})
    if found > len(set(files)):
        raise VolumeError(
            f"{path.name}: it lists {len(set(files))} of the {found} DICOM files in their folders; pass the folder."
        )
    return files
