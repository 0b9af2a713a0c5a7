"""Zip archives of DICOM files, which may come from anybody: limited before and while they are unpacked."""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from medclipad.errors import VolumeError
from medclipad.volume.read_errors import reason

MAX_FILES = 50_000
MAX_BYTES = 8 * 1024**3
"""Unpacked, all files together."""

MAX_RATIO = 200
"""Unpacked to packed size, once more than FREE_BYTES are unpacked: images shrink to a tenth, a zip bomb to a 1000th."""

FREE_BYTES = 64 * 1024**2
DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_BLOCK = 1024**2
_PLAIN = re.compile(r"[^A-Za-z0-9._-]")


def is_dicom_start(start: bytes) -> bool:
    """Whether a file's first 132 bytes are DICOM's: a preamble or, in old files, a tag of the first groups."""
    old = start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00"
    return len(start) == 132 and (old or start[128:] == b"DICM")


def is_dicom_name(name: str) -> bool:
    """Whether a name says that a file is DICOM; macOS puts other files beside, ._1.dcm for 1.dcm."""
    path = PurePosixPath(name)
    return path.suffix.lower() in DICOM_SUFFIXES and not path.name.startswith(".")


def require_no_dicom_name(name: str, archive: str = "") -> None:
    """Raise VolumeError if a file that is not DICOM is named as if it were: a damaged slice must not get lost."""
    if is_dicom_name(name):
        where = f"{archive}: its {PurePosixPath(name).name}" if archive else PurePosixPath(name).name
        raise VolumeError(f"{where} is named as a DICOM file but is not one; copy it again, or remove it.")


def unpack_dicom(
    archive: Path, folder: Path, name: str | None = None, also: Callable[[str], bool] = lambda member: False
) -> list[Path]:
    """Unpack the DICOM files of a zip into the existing `folder`, all at its top level; returns their paths.

    Other files are left in the archive, but for those whose names `also` accepts; members get names of their own, so
    none can point outside of `folder`.

    Raises VolumeError, naming the archive as `name`, for what is no whole zip, is encrypted, holds links or names that
    point elsewhere, unpacks to more than MAX_BYTES, MAX_FILES or MAX_RATIO, or holds no DICOM file.
    """
    name = name or archive.name
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _check(members, archive.stat().st_size, name)
            left, found = _allowance(archive.stat().st_size), []
            for number, member in enumerate(members):
                own = PurePosixPath(member.filename).name
                target = folder / f"{number:05d}_{_PLAIN.sub('_', own)[-60:]}"
                written = _unpack(opened, member, target, left, name, any_kind=also(own))
                left -= written
                if target.exists():
                    found.append(target)
    except VolumeError:
        raise
    except Exception as error:  # zipfile raises many kinds over damaged archives
        raise VolumeError(f"{name}: the archive cannot be unpacked ({reason(error)}); pack it again.") from error
    if not found:
        raise VolumeError(f"{name}: the archive holds no DICOM files; pack the folder of a DICOM series.")
    return found


def unpacked_size(archive: Path) -> int:
    """Bytes that a zip says to unpack to; 0 if it is damaged, which `unpack_dicom` says."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return sum(member.file_size for member in opened.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return 0


def _check(members: list[zipfile.ZipInfo], packed: int, name: str) -> None:
    """Refuse by what the archive says of itself, before anything is written."""
    if len(members) > MAX_FILES:
        raise VolumeError(f"{name}: the archive holds {len(members)} files, more than {MAX_FILES}; pack fewer series.")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", member.filename):
            raise VolumeError(f"{name}: the archive holds a name that points outside of it; pack it again without.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise VolumeError(f"{name}: the archive holds a link instead of a file; pack it again without links.")
        if member.flag_bits & 0x1:
            raise VolumeError(f"{name}: the archive is encrypted; pack it again without a password.")
    if sum(member.file_size for member in members) > _allowance(packed):
        raise _too_large(name)


def _allowance(packed: int) -> int:
    """Bytes that an archive of `packed` bytes may unpack to."""
    return min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * packed))


def _too_large(name: str) -> VolumeError:
    return VolumeError(
        f"{name}: the archive unpacks to more than {MAX_BYTES // 1024**3} GiB or {MAX_RATIO} times its size; "
        "unpack it yourself, or split it."
    )


def _unpack(
    opened: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, left: int, name: str, any_kind: bool
) -> int:
    """Bytes written to `target`; 0 and no file if the member is not DICOM. Counts what really comes out."""
    with opened.open(member) as source:
        block = source.read(132)
        if not is_dicom_start(block):
            require_no_dicom_name(member.filename, name)
            if not any_kind:
                return 0
        written = 0
        with target.open("xb") as stream:
            while block:
                written += len(block)
                if written > left:
                    raise _too_large(name)
                stream.write(block)
                block = source.read(_BLOCK)
    return written
