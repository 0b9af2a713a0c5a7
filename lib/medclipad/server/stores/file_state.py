"""Notice that a file has changed, without reading its voxels."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

from medclipad.files import sha256_of_text

_HEADER_BYTES = 65536  # of a header with its voxels in other files: it is text, and short
_DATA_FILE = re.compile(r"^\s*(?:ElementDataFile\s*=|data ?file\s*:)\s*(.*?)\s*$", re.IGNORECASE | re.MULTILINE)


def file_state(path: str | os.PathLike[str]) -> str:
    """Return a text that changes when the image at `path` does.

    It covers the file, the files of a DICOM folder, and those that hold the voxels of a .mhd or .nhdr header: name,
    size, number and times of each. A time of change that a program cannot set makes it notice a file that was replaced
    and given its old date.

    Raises
    ------
    OSError
        If there is no such file or folder.
    """
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path, *data_files(path)]
    states = [
        (file.name, (stat := file.stat()).st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino) for file in files
    ]
    return sha256_of_text(json.dumps(states))


def quick_look(path: Path) -> tuple[int, ...]:
    """Return numbers that change when a file or folder is replaced, or the voxels of a header; raise OSError if gone.

    It is quicker than `file_state`: of the files in a folder only their number and names count.
    """
    stats = [file.stat() for file in (path, *data_files(path))]
    return tuple(value for stat in stats for value in (stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino))


def data_files(path: Path) -> list[Path]:
    """Return the existing files that hold the voxels of a header file; [] for other files.

    A header names one file, a list of files (one in each line), or a pattern such as "slice%03d.raw 1 20 1".
    """
    if path.suffix.lower() not in (".mhd", ".nhdr"):
        return []
    with open(path, "rb") as stream:
        text = stream.read(_HEADER_BYTES).decode("latin-1")
    found = _DATA_FILE.search(text)
    if found is None:
        return []
    name = found[1]
    if name.upper().startswith("LIST"):
        names = [line.strip() for line in text[found.end() :].splitlines() if line.strip()]
        files = [path.parent / line for line in names]
    elif "%" in name:
        pattern = re.sub(r"%0?\d*d", "*", name.split()[0])
        files = sorted(path.parent.glob(Path(pattern).name))
    else:
        files = [path.parent / name]
    return [file for file in files if file.is_file()]
