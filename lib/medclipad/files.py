"""Write files and folders completely or not at all, and hash them.

A file or folder appears under its name by one rename, after its content has reached the disk: neither a reader nor a
crash, a kill or a full disk ever leaves half a file. A killed process may leave a temporary file named
`.part-<pid>-...`; `remove_leftovers` deletes it.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = ".part-"


@contextmanager
def atomic_file(path: str | os.PathLike) -> Iterator[Path]:
    """Replace a file in one step when the block ends without an exception.

    Parameters
    ----------
    path
        File to create or replace. Its folder must exist.

    Yields
    ------
    Path
        A temporary path in the same folder, with the same suffix, for the block to write to.

    Raises
    ------
    OSError
        If the disk refuses. `path` is then unchanged.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = Path(folder) / "scores.csv"
    ...     with atomic_file(path) as temp_path:
    ...         existed = path.exists()
    ...         _ = temp_path.write_text("slice,score")
    ...     existed, path.read_text()
    (False, 'slice,score')
    """
    path = Path(path)
    temp_path = _temp_path(path)
    try:
        yield temp_path
        _sync_file(temp_path)
        os.replace(temp_path, path)
        sync_folder(path.parent)
    finally:
        temp_path.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Create a folder in one step when the block ends without an exception.

    Parameters
    ----------
    path
        Folder to create. Its parent must exist; the folder itself must not.

    Yields
    ------
    Path
        An empty temporary folder beside it, for the block to fill.

    Raises
    ------
    OSError
        If the disk refuses, or if a non-empty folder of that name has appeared in the meantime.
    """
    path = Path(path)
    temp_path = _temp_path(path)
    temp_path.mkdir()
    try:
        yield temp_path
        for file in temp_path.rglob("*"):
            if file.is_file():
                _sync_file(file)
        sync_folder(temp_path)
        temp_path.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temp_path, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in one step, as UTF-8 with unchanged line ends.

    Parameters
    ----------
    path
        File to create or replace. Its folder must exist.
    text
        Content of the file.

    Raises
    ------
    OSError
        If the disk refuses. `path` is then unchanged.
    """
    with atomic_file(path) as temp_path:
        temp_path.write_text(text, encoding="utf-8", newline="")


def remove_folder(folder: Path) -> None:
    """Remove a folder in one step: its name is free at once, even if some of its files cannot be deleted."""
    temp_path = _temp_path(folder)
    folder.rename(temp_path)
    shutil.rmtree(temp_path, ignore_errors=True)


def remove_leftovers(folder: Path, is_stale: Callable[[str], bool] = lambda pid: True) -> None:
    """Remove the temporary files that killed processes left in a folder.

    Parameters
    ----------
    folder
        Folder to clean. It need not exist.
    is_stale
        Called with the id of the process that wrote a file. Only files for which it returns True are removed; by
        default, all of them.
    """
    for path in folder.glob(f"{_PREFIX}*"):
        if not is_stale(path.name.split("-")[1]):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a rename in it survives a power cut (a no-op on Windows)."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: str | os.PathLike) -> str:
    """Return the SHA-256 (hex) of a file, read block by block."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of_text(text: str) -> str:
    """Return the SHA-256 (hex) of a text in UTF-8.

    Examples
    --------
    >>> sha256_of_text("MedCLIPAD")[:8]
    'b1087a8e'
    """
    return hashlib.sha256(text.encode()).hexdigest()


def _temp_path(path: Path) -> Path:
    """Return a new path beside `path` with the same suffixes, by which writers choose the format."""
    suffix = "".join(path.suffixes[-2:])[-32:]
    return path.with_name(f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex}{suffix}")


def _sync_file(file: Path) -> None:
    """Flush a file to disk."""
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())
