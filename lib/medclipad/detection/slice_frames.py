"""A volume as the slices that an encoder sees: oriented, windowed, background black, framed to its square."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import Self

import numpy as np
from numpy.typing import ArrayLike
from scipy.ndimage import gaussian_filter, gaussian_filter1d

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
from medclipad.volume.shelf import beside

_TRUNCATE = 3.0  # standard deviations of the Gaussian that smooths maps
_LEAST_WEIGHT = 1e-6  # of what surrounds a voxel: below it, the value would be rounding
STEP = 1.0  # standard deviations of the Gaussian between two slices that are encoded, at most
SLAB = 1 << 24  # voxels smoothed together, if the Gaussian does not reach further
_VOXEL_BYTES = 4 + 1 + 2  # of each voxel: map, body, where it is wanted and later the mask at the threshold
_SLAB_BYTES = 28  # of each voxel that is being smoothed, and as many of a slab that is held against what is usual
_PLANES_BYTES = 4  # of each voxel where several planes are seen: their weight
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
    encoded
        Those of them that are encoded; smoothing fills in the others.
    window
        (low, high), the values that become black and white.
    heights
        Relative height of each slice's centre in the body, (n_slices,): 0 at its first slice, 1 at its last.
    """

    def __init__(self, volume: Volume, plane: str, intensity: str, size: int) -> None:
        """Frame a volume for square images of `size` pixels; raise VolumeError if it does not suit the preset."""
        preset = resolve_preset(intensity, volume)
        self.volume = volume
        self._foreground = beside(volume, foreground_mask(volume, preset))
        self.window = preset.window(volume, self.foreground)
        self._size = size
        self._cut(plane)

    @property
    def given(self) -> FramedVolume:
        """The volume as it was given: itself, unless it was aligned."""
        return self

    def map_to_given(self, values: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return a map float32 on this grid, which is 0 where nothing was seen, on the given volume's."""
        return values

    def scores_to_given(self, scores: np.ndarray) -> np.ndarray:
        """Return scores of this volume's slices, nan where skipped, for the given volume's."""
        return scores

    @property
    def foreground(self) -> np.ndarray:
        """Bool (I, J, K), the body."""
        return self._foreground.open()

    def _crop_to_body(self) -> None:
        """Frame the rectangle that holds the body in all slices, so that the encoder's pixels go to tissue."""
        body = self.slicing.slices(self.foreground)
        sides = [np.flatnonzero(body.any(axis=axes)) for axes in ((0, 2), (0, 1), (1, 2))]
        if not len(sides[0]):
            sides = [np.arange(length) for length in (*self.slicing.shape, len(self.slicing))]
        rows, columns, slices = ((int(at[0]), int(at[-1]) + 1) for at in sides)
        self._rectangle = slice(*rows), slice(*columns)
        self.heights = (np.arange(len(self.slicing)) + 0.5 - slices[0]) / (slices[1] - slices[0])
        shape = rows[1] - rows[0], columns[1] - columns[0]
        self._frame = SquareFrame(shape, self.slicing.pixel_spacing, self._size)

    def along(self, plane: str) -> Self:
        """Return the same volume along another plane."""
        other = copy(self)
        other._cut(plane)
        return other

    def _cut(self, plane: str) -> None:
        """Cut the volume along a plane."""
        self.slicing = Slicing(self.volume, plane)
        self.analysed = np.flatnonzero(slice_foreground(self.foreground, self.slicing) >= MINIMUM_FOREGROUND)
        self.encoded = self.analysed
        self._crop_to_body()

    def only(self, numbers: ArrayLike) -> Self:
        """Return a copy in which only these slices are analysed."""
        fewer = copy(self)
        fewer.analysed = fewer.encoded = np.intersect1d(self.analysed, np.asarray(numbers, dtype=int))
        return fewer

    def thinned(self, smoothing: float) -> Self:
        """Return a copy in which only every n-th slice is encoded, if smoothing by so many mm fills in the others."""
        step = max(1, int(STEP * smoothing / self.volume.spacing[self.slicing.axis]))
        fewer = copy(self)
        fewer.encoded = self.analysed[(len(self.analysed) - 1) % step // 2 :: step]
        return fewer

    def flags(self, numbers: ArrayLike) -> np.ndarray:
        """Return which voxels lie in some slices, bool, to be broadcast to (I, J, K)."""
        flags = np.zeros(len(self.slicing), dtype=bool)
        flags[[self.slicing.index(int(number)) for number in np.asarray(numbers, dtype=int)]] = True
        return flags.reshape([-1 if axis == self.slicing.axis else 1 for axis in range(3)])

    @property
    def weight(self) -> float:
        """What this plane's map counts beside other planes', in (0, 1]: the ratio of its pixels' sides.

        A plane across thick slices sees little.
        """
        return min(self.slicing.pixel_spacing) / max(self.slicing.pixel_spacing)

    @property
    def area(self) -> int:
        """Pixels of the body in the slice that shows most of it."""
        return int(self.slicing.slices(self.foreground).sum(axis=(1, 2)).max())

    def images(self, numbers: ArrayLike) -> np.ndarray:
        """Return slices float32 (B, size, size) in [0, 1]; all but the body is black, also where 0 is a tissue."""
        slices = to_unit(self._cropped(self.volume.array, numbers), *self.window)
        slices[~self._cropped(self.foreground, numbers)] = 0
        return self._frame.apply(slices)

    def masks(self, mask: np.ndarray, numbers: ArrayLike) -> np.ndarray:
        """Return slices bool (B, size, size) of a mask (I, J, K) on the volume's grid."""
        return self._frame.apply(self._cropped(mask, numbers).astype(np.float32)) > 0.5

    def add(self, maps: np.ndarray, numbers: ArrayLike, into: np.ndarray, weight: float = 1.0) -> None:
        """Add weighted maps (B, size, size) of slices to an array (I, J, K), in the body."""
        index = np.asarray(numbers, dtype=int)
        body = self._cropped(self.foreground, index)
        part = self.slicing.slices(into)[:, *self._rectangle]
        part[index] += np.float32(weight) * self._frame.invert(maps) * body

    def _cropped(self, array: np.ndarray, numbers: ArrayLike) -> np.ndarray:
        """Return slices (B, h, w) of an array (I, J, K), cut to the rectangle that is framed."""
        return self.slicing.slices(array)[:, *self._rectangle][np.asarray(numbers, dtype=int)]


def smoothed_scores(scores: np.ndarray, spacing: float, sigma: float) -> np.ndarray:
    """Return slice scores (n_slices,) smoothed along the stack by a Gaussian; nan stays where it is.

    Parameters
    ----------
    scores
        Score of each slice; nan where it was skipped.
    spacing
        mm between slices.
    sigma
        Standard deviation in mm; 0: none.
    """
    known = np.isfinite(scores)
    if not sigma or not known.any():
        return scores
    total, weight = (
        gaussian_filter1d(part, sigma / spacing, mode="constant")
        for part in (np.where(known, scores, 0.0), known.astype(np.float64))
    )
    return np.divide(total, weight, where=known, out=np.full(len(scores), np.nan))


def seen_in(frames: Sequence[FramedVolume]) -> np.ndarray:
    """Return where a volume's map is wanted, bool (I, J, K): its body in a slice that is analysed along any plane."""
    wanted = np.zeros(frames[0].volume.shape, dtype=bool)
    for framed in frames:
        wanted |= framed.flags(framed.analysed)
    wanted &= frames[0].foreground
    return wanted


def smooth(
    total: np.ndarray, weight: np.ndarray, wanted: np.ndarray, body: np.ndarray, spacing: Sequence[float], sigma: float
) -> None:
    """Turn the sum of weighted maps into their smoothed mean, in place.

    A normalised convolution with a Gaussian: what lies outside the body neither adds to the map nor dilutes it, and
    body between slices that were encoded is filled in from them. Done in slabs along the first axis, each with as much
    beside it as the Gaussian reaches, so that the volume is never copied as a whole.

    Parameters
    ----------
    total
        float32 (I, J, K), sum of weight times value; becomes the smoothed mean.
    weight
        Weight of each voxel, to be broadcast to (I, J, K); it counts in the body only.
    wanted
        bool, to be broadcast to (I, J, K): where the body's map is wanted; it becomes 0 elsewhere.
    body
        bool (I, J, K).
    spacing
        mm along each axis.
    sigma
        Standard deviation in mm; 0: the mean alone.
    """
    box = box_of(body)  # nothing happens outside the body
    if box is None:
        return
    weight, wanted = (np.broadcast_to(part, body.shape)[box] for part in (weight, wanted))
    part, body = total[box], body[box]
    widths = [sigma / step for step in spacing]
    reach, step = _slabs(widths[0], part[0].size)
    before = part[:0]
    for start in range(0, len(part), step):
        first, last, end = max(0, start - reach), start + step, start + step + reach
        share = (body[first:end] * weight[first:end]).astype(np.float32)
        values = np.concatenate([before, part[start:end]])  # `before`: not smoothed yet
        before = values[max(0, step - reach + start - first) : last - first].copy()
        if sigma:
            values = gaussian_filter(values, widths, mode="constant", truncate=_TRUNCATE)
            share = gaussian_filter(share, widths, mode="constant", truncate=_TRUNCATE)
        inside = body[first:end] & wanted[first:end] & (share > _LEAST_WEIGHT)
        smoothed = np.divide(values, share, where=inside, out=np.zeros_like(values))
        part[start:last] = smoothed[start - first : last - first]


def reach_of(width: float) -> int:
    """Return how many rows a Gaussian with a standard deviation of `width` rows reaches."""
    return int(_TRUNCATE * width + 0.5)


def _slabs(width: float, row: int) -> tuple[int, int]:
    """Return the reach of a Gaussian of `width` rows, and the rows smoothed together, of `row` voxels each."""
    reach = reach_of(width)
    return reach, max(2 * reach, SLAB // row, 1)


def detection_memory(volume: Volume, planes: Sequence[str], smoothing: float, batch: int) -> int:
    """Return the bytes that a detection takes at its peak beside volume and encoder, from the grid alone."""
    rows, row = volume.shape[0], volume.shape[1] * volume.shape[2]
    reach, step = _slabs(smoothing / volume.spacing[0], row)
    slab = (min(rows, step + 2 * reach) * row + min(rows * row, max(SLAB, row))) * _SLAB_BYTES
    shapes = [(len(slicing), *slicing.shape) for slicing in (Slicing(volume, plane) for plane in planes)]
    slices = max(min(batch, n) * height * width * _BATCH_BYTES for n, height, width in shapes)
    weights = _PLANES_BYTES * volume.array.size if len(planes) > 1 else 0
    return volume.array.size * _VOXEL_BYTES + weights + max(slab, slices)


def box_of(mask: np.ndarray) -> tuple[slice, slice, slice] | None:
    """Return the smallest box around what is True in (I, J, K), None if nothing is."""
    places = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not len(places[0]):
        return None
    i, j, k = (slice(int(at[0]), int(at[-1]) + 1) for at in places)
    return i, j, k


def batches(numbers: np.ndarray, size: int) -> Iterator[np.ndarray]:
    """Yield numbers (n,) in pieces of at most `size`."""
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
