"""Missing and damaged files: all becomes one sentence, and no header makes us allocate what is not there."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medclipad.errors import VolumeError

_MAX_DEFLATE = 1032  # deflate cannot shrink data further than this


_PIECE = 1 << 20


@contextmanager
def damage_named(path: Path) -> Iterator[None]:
    """Turn any exception of a reading library into a VolumeError about `path`."""
    try:
        yield
    except VolumeError:
        raise
    except Exception as error:
        raise VolumeError(
            f"{path.name}: the file is damaged or not what its name says ({reason(error)}); export it again."
        ) from error


def no_such_file(path: Path) -> VolumeError:
    """The error for a path with nothing at it; its cause tells it from others, as that of `damage_named` does."""
    error = VolumeError(f"{path}: there is no such file or folder; check the path.")
    error.__cause__ = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return error


def itk_name(path: Path) -> str:
    """The path as ITK takes it; VolumeError for a name that is not UTF-8, over which it would end the process."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise VolumeError(f"{path.name}: its path is not valid Unicode; rename the file or its folders.") from error
    return str(path)


class BoundedFile(io.BufferedReader):
    """A file to read from that, asked for more than it holds, allocates no more than it holds."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(str(path)))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


class BoundedGzip(gzip.GzipFile):
    """A gzip stream to read from that, asked for more than it holds, allocates no more than it holds."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size <= _PIECE:
            return super().read(size)
        pieces = []
        while size > 0 and (piece := super().read(min(size, _PIECE))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def reason(error: Exception) -> str:
    """The telling line of a library's message: ITK's own after its prefix, of several the last and innermost."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    telling = [line for line in lines if line.startswith(("ITK ERROR", "[nrrd]"))] or lines
    return re.sub(r"^ITK ERROR: |\(0x[0-9a-f]+\)", "", telling[-1]).rstrip(". ")[:200]


def require_enough_bytes(path: Path, wanted: float, offset: int = 0, packed: bool = True) -> None:
    """Raise ValueError if a file, compressed as far as can be if `packed`, cannot hold `wanted` bytes of voxels."""
    if path.stat().st_size * (_MAX_DEFLATE if packed else 1) - offset < wanted:
        raise ValueError(f"its header promises {wanted:.0f} bytes of voxels, which it cannot hold")
