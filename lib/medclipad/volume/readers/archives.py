"""Unpack zip archives of DICOM files from untrusted sources, limited before and while they are unpacked."""

from __future__ import annotations

import re
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from medclipad.errors import VolumeError, VolumeSizeError
from medclipad.volume.read_errors import reason

MAX_FILES = 50_000
"""Files in an archive."""

MAX_BYTES = 8 * 1024**3
"""Size of all files together after unpacking."""

MAX_RATIO = 200
"""Unpacked to packed size, above FREE_BYTES: images are compressed to a tenth, a zip bomb to a thousandth."""

FREE_BYTES = 64 * 1024**2
"""Unpacked size below which MAX_RATIO does not apply."""

DICOM_SUFFIXES = (".dcm", ".dicom", ".ima")
_BLOCK = 1024**2
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]")


def is_dicom_start(start: bytes) -> bool:
    """Return whether a file's first 132 bytes are DICOM: a preamble or, in old files, a tag of the first groups."""
    old = start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00"
    return len(start) == 132 and (old or start[128:] == b"DICM")


def is_dicom_name(name: str) -> bool:
    """Return whether a file has a DICOM name (and not that of a macOS resource file, ._1.dcm beside 1.dcm)."""
    path = PurePosixPath(name)
    return path.suffix.lower() in DICOM_SUFFIXES and not path.name.startswith(".")


def require_no_dicom_name(name: str, archive: str = "") -> None:
    """Raise VolumeError if a file that is not DICOM is named as DICOM: a damaged slice must not be lost."""
    if is_dicom_name(name):
        where = f"{archive}: its {PurePosixPath(name).name}" if archive else PurePosixPath(name).name
        raise VolumeError(f"{where} is named as a DICOM file but is not one; copy it again, or remove it.")


def unpack_dicom(
    archive: Path, folder: Path, name: str | None = None, also: Callable[[str], bool] = lambda member: False
) -> list[Path]:
    """Unpack the DICOM files of a zip archive.

    Parameters
    ----------
    archive
        Zip file.
    folder
        Existing folder to unpack to. All files are placed at its top level under new names, so none can point outside.
    name
        Name of the archive in messages; by default its file name.
    also
        Called with the name of each file that is not DICOM; the file is unpacked if it returns True. By default, all
        such files are skipped.

    Returns
    -------
    list of Path
        The unpacked files.

    Raises
    ------
    VolumeError
        If the archive is damaged or encrypted, contains links or names that point outside it, exceeds MAX_BYTES,
        MAX_FILES or MAX_RATIO, or contains no DICOM file.
    """
    name = name or archive.name
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if not member.is_dir()]
            _require_harmless(members, archive.stat().st_size, name)
            left, found = inflation_allowance(archive.stat().st_size), []
            for number, member in enumerate(members):
                own = PurePosixPath(member.filename).name
                target = folder / f"{number:05d}_{_UNSAFE.sub('_', own)[-60:]}"
                with opened.open(member) as source:
                    left -= _unpack(source, target, left, name, keep_others=also(own))
                if target.exists():
                    found.append(target)
    except VolumeError:
        raise
    except Exception as error:  # zipfile raises many kinds of exception over damaged archives
        raise VolumeError(f"{name}: the archive cannot be unpacked ({reason(error)}); pack it again.") from error
    if not found:
        raise VolumeError(f"{name}: the archive holds no DICOM files; pack the folder of a DICOM series.")
    return found


def unpacked_size(archive: Path) -> int:
    """Return the bytes that a zip archive says it unpacks to; 0 if it is damaged (`unpack_dicom` then raises)."""
    try:
        with zipfile.ZipFile(archive) as opened:
            return sum(member.file_size for member in opened.infolist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return 0


def inflation_allowance(packed: int) -> int:
    """Return the bytes that an archive or a deflated file of `packed` bytes may unpack to."""
    return min(MAX_BYTES, max(FREE_BYTES, MAX_RATIO * packed))


def _require_harmless(members: list[zipfile.ZipInfo], packed: int, name: str) -> None:
    """Raise VolumeError if the archive's own list of members is unacceptable, before anything is written."""
    if len(members) > MAX_FILES:
        raise VolumeError(f"{name}: the archive holds {len(members)} files, more than {MAX_FILES}; pack fewer series.")
    for member in members:
        path = PurePosixPath(member.filename.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or re.match(r"[A-Za-z]:", member.filename):
            raise VolumeError(f"{name}: the archive holds a name that points outside it; pack it again without it.")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise VolumeError(f"{name}: the archive holds a link instead of a file; pack it again without links.")
        if member.flag_bits & 0x1:
            raise VolumeError(f"{name}: the archive is encrypted; pack it again without a password.")
    if sum(member.file_size for member in members) > inflation_allowance(packed):
        raise _too_large(name)


def _too_large(name: str) -> VolumeError:
    """Return the error for an archive that unpacks to too much."""
    return VolumeSizeError(
        f"{name}: the archive unpacks to more than {MAX_BYTES // 1024**3} GiB or {MAX_RATIO} times its size; "
        "unpack it yourself, or split it."
    )


def _unpack(source: IO[bytes], target: Path, left: int, name: str, keep_others: bool) -> int:
    """Write one member to `target` and return the bytes that really came out; 0 and no file if it is skipped."""
    block = source.read(132)
    if not is_dicom_start(block):
        require_no_dicom_name(source.name, name)
        if not keep_others:
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
