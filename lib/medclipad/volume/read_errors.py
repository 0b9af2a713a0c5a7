"""Missing and damaged files: one sentence for each, and no allocation of what a header only promises."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from medclipad.errors import VolumeError, VolumeSizeError

_MAX_DEFLATE = 1032  # deflate cannot compress by more than this factor
_PIECE = 1 << 20


@contextmanager
def volume_errors(path: Path) -> Iterator[None]:
    """Turn any exception of a reading library into a VolumeError that names `path`."""
    try:
        yield
    except VolumeError:
        raise
    except Exception as error:
        if isinstance(error, MemoryError) or "alloc" in str(error):  # std::bad_alloc, "failed to allocate"
            raise VolumeSizeError(
                f"{path.name}: reading it needs more memory than is free; use a machine with more memory, or crop or "
                "downsample the volume first."
            ) from error
        raise VolumeError(
            f"{path.name}: the file is damaged or not what its name says ({reason(error)}); export it again."
        ) from error


def not_found_error(path: Path) -> VolumeError:
    """Return the error for a path that does not exist.

    Its cause is a FileNotFoundError, so callers can distinguish it from errors about damage, which have other causes.
    """
    error = VolumeError(f"{path}: there is no such file or folder; check the path.")
    error.__cause__ = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    return error


def itk_path(path: Path) -> str:
    """Return a path as ITK accepts it; raise VolumeError if it is not UTF-8, which would crash the process."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise VolumeError(f"{path.name}: its path is not valid Unicode; rename the file or its folders.") from error
    return str(path)


class BoundedFile(io.BufferedReader):
    """File that, asked for more bytes than it holds, allocates no more than it holds."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(str(path)))
        self._size = path.stat().st_size

    def read(self, size: int | None = -1) -> bytes:
        """Return at most `size` bytes, or all that are left."""
        left = max(0, self._size - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


class BoundedGzip(gzip.GzipFile):
    """Gzip stream that, asked for more bytes than it holds, allocates no more than it holds."""

    def read(self, size: int | None = -1) -> bytes:
        """Return at most `size` bytes, or all that are left."""
        if size is None or size <= _PIECE:
            return super().read(size)
        pieces = []
        while size > 0 and (piece := super().read(min(size, _PIECE))):
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)


def reason(error: Exception) -> str:
    """Return the informative line of a library's message: ITK's own without its prefix, else the last line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    informative = [line for line in lines if line.startswith(("ITK ERROR", "[nrrd]"))] or lines
    return re.sub(r"^ITK ERROR: |\(0x[0-9a-f]+\)", "", informative[-1]).rstrip(". ")[:200]


def require_enough_bytes(path: Path, needed: float, offset: int = 0, packed: bool = True) -> None:
    """Raise ValueError if a file cannot hold the voxels that its header promises.

    Parameters
    ----------
    path
        File with header and voxels.
    needed
        Bytes of voxels by the header.
    offset
        Bytes before the voxels.
    packed
        Whether the voxels may be compressed; the highest possible compression is then assumed.
    """
    if path.stat().st_size * (_MAX_DEFLATE if packed else 1) - offset < needed:
        raise ValueError(f"its header promises {needed:.0f} bytes of voxels, more than the file can hold")
