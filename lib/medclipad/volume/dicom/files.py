"""DICOM: the files of a folder, a list, a DICOMDIR or a zip archive."""

from __future__ import annotations

import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

import pydicom
from pydicom.filereader import read_dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, MediaStorageDirectoryStorage

from medclipad.errors import VolumeError, VolumeSizeError
from medclipad.volume.memory_budget import bytes_in_words
from medclipad.volume.read_errors import BoundedFile, volume_errors
from medclipad.volume.readers.archives import (
    inflation_allowance,
    is_dicom_name,
    is_dicom_start,
    require_no_dicom_name,
    unpack_dicom,
)

ARCHIVE = ".zip"

_META_START = 132  # preamble and DICM
_BLOCK = 1 << 20


def is_dicom(path: Path) -> bool:
    """Return whether a file starts as DICOM: with its preamble or, in old files, with a tag of the first groups."""
    with path.open("rb") as stream:
        return is_dicom_start(stream.read(132))


def require_bounded_deflate(path: Path) -> None:
    """Raise VolumeSizeError if a deflated DICOM file inflates to far more than its size: pydicom would take it all.

    Parameters
    ----------
    path
        DICOM file; one that is not deflated is accepted.
    """
    with path.open("rb") as stream:
        start = stream.read(_META_START + _BLOCK // 256)
        if DeflatedExplicitVRLittleEndian.encode() not in start:
            return
        stream.seek(_META_START)
        meta = read_dataset(stream, False, True, stop_when=lambda tag, *_: tag.group != 2)
        if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
            return
        allowed, inflated = inflation_allowance(path.stat().st_size), 0
        inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        packed = stream.read(_BLOCK)
        while packed and not inflater.eof:
            inflated += len(inflater.decompress(packed, _BLOCK))
            if inflated > allowed:
                raise VolumeSizeError(
                    f"{path.name}: it inflates to more than {bytes_in_words(allowed)}, as no image of its size does; "
                    "export it again, uncompressed."
                )
            packed = inflater.unconsumed_tail or stream.read(_BLOCK)


def may_be_dicom(name: str) -> bool:
    """Return whether a file may be DICOM by its name.

    Examples
    --------
    >>> [may_be_dicom(name) for name in ("IM1", "1.2.840.7", "a.dcm", "notes.txt", ".DS_Store")]
    [True, True, True, False, False]
    """
    return is_dicom_name(name) or not (name.startswith(".") or PurePosixPath(name).suffix[1:].isalpha())


def others_note(files: Sequence[Path]) -> list[str]:
    """Return a note on files that are not DICOM, though by their names they might be.

    Parameters
    ----------
    files
        Files that lie beside the images.

    Returns
    -------
    list of str
        One note, or none.

    Raises
    ------
    VolumeError
        If a file is named as DICOM but is not: a damaged slice must not be lost.
    """
    others = [path.name for path in files if may_be_dicom(path.name) and not is_dicom(path)]
    for name in others:
        require_no_dicom_name(name)
    if not others:
        return []
    named = ", ".join(repr(name)[1:-1] for name in others[:3]) + (", ..." if len(others) > 3 else "")
    what = "1 file that is not DICOM was" if len(others) == 1 else f"{len(others)} files that are not DICOM were"
    return [f"{what} left out ({named})"]


@contextmanager
def dicom_files(source: Path | Sequence[Path]) -> Iterator[tuple[list[Path], bool]]:
    """Find the files of a DICOM source.

    Parameters
    ----------
    source
        A folder (searched with its subfolders), a DICOMDIR, a zip archive (unpacked while the block lasts), a single
        file or a list of files.

    Yields
    ------
    files : list of Path
        Candidate files.
    explicit : bool
        Whether the caller named the files, so that each must be a DICOM image.

    Raises
    ------
    VolumeError
        If a DICOMDIR or an archive is damaged or lists files that are not there.
    """
    if not isinstance(source, Path):
        yield list(dict.fromkeys(source)), True
    elif source.is_dir():
        yield sorted(path for path in source.rglob("*") if path.is_file()), False
    elif source.suffix.lower() == ARCHIVE:
        with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
            yield sorted(unpack_dicom(source, Path(folder), also=may_be_dicom)), False
    elif (listed := _listed_files(source)) is not None:
        yield listed, False
    else:
        yield [source], True


def _listed_files(path: Path) -> list[Path] | None:
    """Return the files that a DICOMDIR lists; None if the file is not a DICOMDIR."""
    if not path.is_file() or not is_dicom(path):
        return None
    with volume_errors(path):
        require_bounded_deflate(path)
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
            raise VolumeError(f"{path.name}: it lists a file outside its folder; pass the folder instead.")
        if not file.is_file():
            raise VolumeError(
                f"{path.name}: it lists {file.name}, which is missing; copy the whole medium, or pass the folder."
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
