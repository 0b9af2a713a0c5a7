"""Write files and folders whole or not at all, and hash them.

What is written here appears under its name with one rename, after it has reached the disk: a reader, a crash, a kill or
a full disk never leaves half a file. Half-written files of killed processes are called `.part-<pid>-...`, and
`remove_leftovers` takes them away.
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
        File to make or replace. Its folder must exist.

    Yields
    ------
    Path
        A new file name in the same folder, with the same suffix, for the block to write to.

    Raises
    ------
    OSError
        If the disk refuses. `path` is then what it was before.
    """
    path = Path(path)
    temp_path = _temp_path(path)
    try:
        yield temp_path
        _sync(temp_path)
        os.replace(temp_path, path)
        sync_folder(path.parent)
    finally:
        temp_path.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | os.PathLike) -> Iterator[Path]:
    """Make a new folder in one step when the block ends without an exception.

    Parameters
    ----------
    path
        Folder to make. Its parent must exist, it must not.

    Yields
    ------
    Path
        An empty folder beside it, for the block to fill.

    Raises
    ------
    OSError
        If the disk refuses, or a folder of that name that is not empty has appeared meanwhile.
    """
    path = Path(path)
    temp_path = _temp_path(path)
    temp_path.mkdir()
    try:
        yield temp_path
        for file in temp_path.rglob("*"):
            if file.is_file():
                _sync(file)
        sync_folder(temp_path)
        temp_path.rename(path)
        sync_folder(path.parent)
    finally:
        shutil.rmtree(temp_path, ignore_errors=True)


def write_text(path: str | os.PathLike, text: str) -> None:
    """Write a text file in UTF-8 in one step, line ends as they are; raise OSError if the disk refuses."""
    with atomic_file(path) as temp_path:
        temp_path.write_text(text, encoding="utf-8", newline="")


def remove_folder(folder: Path) -> None:
    """Remove a folder that must be gone at once and whole, whatever happens to the removal of its files."""
    temp_path = _temp_path(folder)
    folder.rename(temp_path)
    shutil.rmtree(temp_path, ignore_errors=True)


def remove_leftovers(folder: Path, is_stale: Callable[[str], bool] = lambda pid: True) -> None:
    """Remove what killed processes left half-written in a folder.

    Parameters
    ----------
    folder
        Folder to clean; one that does not exist is clean.
    is_stale
        Called with the number of the process that wrote a file; only files for which it returns True are removed.
    """
    for path in folder.glob(f"{_PREFIX}*"):
        if not is_stale(path.name.split("-")[1]):
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make a rename in a folder last through a power cut; Windows has no way to, nor need."""
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
    """Return the SHA-256 (hex) of a text in UTF-8."""
    return hashlib.sha256(text.encode()).hexdigest()


def _temp_path(path: Path) -> Path:
    """Return a new name beside `path` with its suffixes: writers choose the format by them."""
    suffix = "".join(path.suffixes[-2:])[-32:]
    return path.with_name(f"{_PREFIX}{os.getpid()}-{uuid.uuid4().hex}{suffix}")


def _sync(file: Path) -> None:
    with open(file, "rb+") as stream:
        os.fsync(stream.fileno())
