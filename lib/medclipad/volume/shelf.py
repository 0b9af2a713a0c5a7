"""Volumes on the disk instead of in the main memory, for work that looks at many of them, one after the other."""

from __future__ import annotations

import mmap
import tempfile
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np

from medclipad.errors import VolumeError
from medclipad.volume.memory_budget import bytes_in_words
from medclipad.volume.volume import Volume


@dataclass(frozen=True)
class ShelvedArray:
    """An array on a shelf.

    Attributes
    ----------
    shape
        Its shape.
    dtype
        Its type.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    _order: tuple[int, ...]  # of its axes in memory
    _start: int
    _file: BinaryIO

    def open(self) -> np.ndarray:
        """Return the array, read-only, with the memory order it had; it takes memory until it is dropped."""
        size = int(np.prod(self.shape)) * self.dtype.itemsize
        if not size:
            return np.empty(self.shape, self.dtype)
        mapped = mmap.mmap(self._file.fileno(), size, access=mmap.ACCESS_READ, offset=self._start)
        stored = np.frombuffer(mapped, self.dtype).reshape([self.shape[axis] for axis in self._order])
        return stored.transpose(np.argsort(self._order))


class Shelf:
    """Arrays in one temporary file, which the system removes with the process, however that ends.

    It lies in the temporary folder (`TMPDIR`) and holds arrays uncompressed.

    Examples
    --------
    >>> shelf = Shelf()
    >>> shelf.put(np.arange(6).reshape(2, 3)).open().tolist()
    [[0, 1, 2], [3, 4, 5]]
    """

    def __init__(self) -> None:
        self._file: BinaryIO = tempfile.TemporaryFile(prefix="medclipad-")  # type: ignore[assignment]  # noqa: SIM115
        self._end = 0

    def put(self, array: np.ndarray) -> ShelvedArray:
        """Write an array; raise VolumeError if the disk is full."""
        order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
        start = -(-self._end // mmap.ALLOCATIONGRANULARITY) * mmap.ALLOCATIONGRANULARITY
        try:
            self._file.seek(start)
            self._file.write(np.ascontiguousarray(array.transpose(order)).data.cast("B") if array.size else b"")
            self._file.flush()
        except OSError as error:
            raise VolumeError(
                f"The temporary folder {tempfile.gettempdir()} cannot hold {bytes_in_words(start + array.nbytes)} of "
                f"volumes ({error.strerror}): free some space, or set TMPDIR to another folder."
            ) from error
        self._end = start + array.nbytes
        return ShelvedArray(array.shape, array.dtype, tuple(map(int, order)), start, self._file)

    def put_volume(self, volume: Volume) -> Volume:
        """Return a volume whose voxels are on the shelf; raise VolumeError if the disk is full."""
        return _ShelvedVolume.of(volume, self)


class _ShelvedVolume(Volume):
    """A volume whose voxels are read whenever they are asked for."""

    @classmethod
    def of(cls, volume: Volume, shelf: Shelf) -> Volume:
        """Return a volume with its voxels on a shelf."""
        shelved = cls(volume.array, volume.affine, volume.name, volume.modality, volume.metadata)
        shelved.__dict__ |= {"voxels": shelf.put(volume.array), "shelf": shelf}
        return shelved

    @property
    def array(self) -> np.ndarray:
        """(I, J, K) voxels."""
        voxels = self.__dict__["voxels"]
        return voxels.open() if isinstance(voxels, ShelvedArray) else voxels

    @array.setter
    def array(self, voxels: np.ndarray) -> None:  # the frozen class's own way of setting its fields ends here
        self.__dict__["voxels"] = voxels

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, J, K), number of voxels along each array axis."""
        return self.__dict__["voxels"].shape


@dataclass(frozen=True)
class HeldArray:
    """An array in the main memory, opened as one on a shelf is."""

    array: np.ndarray

    def open(self) -> np.ndarray:
        """Return the array."""
        return self.array


def beside(volume: Volume, array: np.ndarray) -> ShelvedArray | HeldArray:
    """Keep what belongs to a volume where its voxels are: on their shelf, or in the main memory."""
    shelf = volume.__dict__.get("shelf")
    return HeldArray(array) if shelf is None else shelf.put(array)


def volume_beside(volume: Volume, other: Volume) -> Volume:
    """Keep another volume where a volume's voxels are; see `beside`."""
    shelf = volume.__dict__.get("shelf")
    return other if shelf is None else shelf.put_volume(other)
