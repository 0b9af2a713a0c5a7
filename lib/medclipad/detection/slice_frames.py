"""A volume as the slices that an encoder sees: oriented, windowed, background black, framed to its square."""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter

from medclipad.volume import (
    MINIMUM_FOREGROUND,
    Slicing,
    SquareFrame,
    Volume,
    foreground_mask,
    resolve_preset,
    slice_foreground,
    to_unit,
)

_TRUNCATE = 3.0  # standard deviations of the Gaussian that smooths maps
SLAB = 1 << 24  # voxels smoothed together, if the Gaussian does not reach further
_VOXEL_BYTES = 4 + 1 + 2  # of each voxel: map, body, mask at the threshold
_SLAB_BYTES = 24  # of each voxel that is being smoothed
_BATCH_BYTES = 20  # of each pixel of a batch of slices


class FramedVolume:
    """Slices of a volume as an encoder sees them, and the way of their maps back to its grid.

    Attributes
    ----------
    volume
        The volume.
    slicing
        Its slices along the plane.
    foreground
        bool (I, J, K), the body.
    analysed
        Numbers of the slices with enough of the body, int64 (n,).
    window
        (low, high), the values that become black and white.
    """

    def __init__(self, volume: Volume, plane: str, intensity: str, size: int) -> None:
        """Frame a volume for square images of `size` pixels; raise VolumeError if it does not suit the preset."""
        preset = resolve_preset(intensity, volume)
        self.volume = volume
        self.slicing = Slicing(volume, plane)
        self.foreground = foreground_mask(volume, preset)
        self.analysed = np.flatnonzero(slice_foreground(self.foreground, self.slicing) >= MINIMUM_FOREGROUND)
        self.window = preset.window(volume, self.foreground)
        self._frame = SquareFrame(self.slicing.shape, self.slicing.pixel_spacing, size)

    def only(self, numbers: ArrayLike) -> FramedVolume:
        """Return a copy in which only these slices are analysed."""
        fewer = copy(self)
        fewer.analysed = np.intersect1d(self.analysed, np.asarray(numbers, dtype=int))
        return fewer

    def images(self, numbers: ArrayLike) -> np.ndarray:
        """Return slices float32 (B, size, size) in [0, 1]; all but the body is black, also where 0 is a tissue."""
        index = np.asarray(numbers, dtype=int)
        slices = to_unit(self.slicing.slices(self.volume.array)[index], *self.window)
        slices[~self.slicing.slices(self.foreground)[index]] = 0
        return self._frame.apply(slices)

    def masks(self, mask: np.ndarray, numbers: ArrayLike) -> np.ndarray:
        """Return slices bool (B, size, size) of a mask (I, J, K) on the volume's grid."""
        index = np.asarray(numbers, dtype=int)
        return self._frame.apply(self.slicing.slices(mask)[index].astype(np.float32)) > 0.5

    def put(self, maps: np.ndarray, numbers: ArrayLike, into: np.ndarray) -> None:
        """Write maps (B, size, size) of slices into an array (I, J, K), 0 outside the body."""
        index = np.asarray(numbers, dtype=int)
        self.slicing.slices(into)[index] = self._frame.invert(maps) * self.slicing.slices(self.foreground)[index]


def smooth(anomaly_map: np.ndarray, framed: FramedVolume, sigma: float) -> None:
    """Smooth a map (I, J, K) in place with a Gaussian of `sigma` mm, among the voxels of body in analysed slices only.

    A normalised convolution: what lies outside neither adds to the map nor dilutes it. Done in slabs along the first
    axis, each with as much beside it as the Gaussian reaches, so that the volume is never copied as a whole.
    """
    axis = framed.slicing.axis
    seen = np.zeros(framed.foreground.shape[axis], dtype=bool)
    seen[[framed.slicing.index(int(n)) for n in framed.analysed]] = True
    box = _box(framed.foreground)  # nothing happens outside the body
    if box is None:
        return
    part, body, seen = anomaly_map[box], framed.foreground[box], seen[box[axis]]
    seen = seen.reshape([-1 if a == axis else 1 for a in range(3)])
    widths = [sigma / spacing for spacing in framed.volume.spacing]
    reach, step = _slabs(widths[0], part[0].size)
    before = part[:0]
    for start in range(0, len(part), step):
        first, last, end = max(0, start - reach), start + step, start + step + reach
        share = (body[first:end] & (seen[first:end] if axis == 0 else seen)).astype(np.float32)
        values = np.concatenate([before, part[start:end]])  # `before`: not smoothed yet
        before = values[max(0, step - reach + start - first) : last - first].copy()
        inside = share > 0
        smoothed = gaussian_filter(values, widths, mode="constant", truncate=_TRUNCATE)
        spread = gaussian_filter(share, widths, mode="constant", truncate=_TRUNCATE)
        smoothed = np.divide(smoothed, spread, where=inside, out=np.zeros_like(smoothed))
        part[start:last] = smoothed[start - first : last - first]


def _slabs(width: float, row: int) -> tuple[int, int]:
    """Return the reach of a Gaussian of `width` rows, and the rows smoothed together, of `row` voxels each."""
    reach = int(_TRUNCATE * width + 0.5)
    return reach, max(2 * reach, SLAB // row, 1)


def detection_memory(volume: Volume, plane: str, smoothing: float, batch: int) -> int:
    """Return the bytes that a detection takes at its peak beside volume and encoder, from the grid alone."""
    rows, row = volume.shape[0], volume.shape[1] * volume.shape[2]
    reach, step = _slabs(smoothing / volume.spacing[0], row)
    slab = min(rows, step + 2 * reach) * row * _SLAB_BYTES if smoothing else 0
    slicing = Slicing(volume, plane)
    slices = min(batch, len(slicing)) * slicing.shape[0] * slicing.shape[1] * _BATCH_BYTES
    return volume.array.size * _VOXEL_BYTES + max(slab, slices)


def _box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Return the smallest box around what is True in (I, J, K), None if nothing is."""
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    return tuple(slice(at[0], at[-1] + 1) for at in places) if len(places[0]) else None


def batches(numbers: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield numbers (n,) in pieces of at most `size`."""
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
