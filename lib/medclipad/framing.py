"""A volume as the slices that an encoder sees: oriented, windowed, background black, framed to its square."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from scipy.ndimage import find_objects, gaussian_filter

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


class FramedVolume:
    """Slices of a volume along a plane, and the way of their maps back to its grid.

    Attributes
    ----------
    slicing: the slices; foreground: bool (I, J, K), the body; analysed: numbers of the slices with enough of it.
    window: (low, high), the values that become black and white.
    """

    def __init__(self, volume: Volume, plane: str, intensity: str, size: int) -> None:
        """`plane` and `intensity` as in `medclipad.volume`; `size` in pixels. Raises VolumeError."""
        preset = resolve_preset(intensity, volume)
        self.volume = volume
        self.slicing = Slicing(volume, plane)
        self.foreground = foreground_mask(volume, preset)
        self.analysed = np.flatnonzero(slice_foreground(self.foreground, self.slicing) >= MINIMUM_FOREGROUND)
        self.window = preset.window(volume, self.foreground)
        self._frame = SquareFrame(self.slicing.shape, self.slicing.pixel_spacing, size)

    def images(self, numbers: Sequence[int]) -> np.ndarray:
        """Slices float32 (B, size, size) in [0, 1]; what is not body is black, also where 0 is a tissue's value."""
        index = np.asarray(numbers, dtype=int)
        slices = to_unit(self.slicing.slices(self.volume.array)[index], *self.window)
        slices[~self.slicing.slices(self.foreground)[index]] = 0
        return self._frame.apply(slices)

    def masks(self, mask: np.ndarray, numbers: Sequence[int]) -> np.ndarray:
        """Slices bool (B, size, size) of a mask (I, J, K) on the volume's grid."""
        index = np.asarray(numbers, dtype=int)
        return self._frame.apply(self.slicing.slices(mask)[index].astype(np.float32)) > 0.5

    def put(self, maps: np.ndarray, numbers: Sequence[int], into: np.ndarray) -> None:
        """Write maps (B, size, size) of slices into an array (I, J, K), 0 outside the body."""
        index = np.asarray(numbers, dtype=int)
        self.slicing.slices(into)[index] = self._frame.invert(maps) * self.slicing.slices(self.foreground)[index]


def smooth(anomaly_map: np.ndarray, framed: FramedVolume, sigma: float) -> None:
    """Smooth a map (I, J, K) in place with a Gaussian of `sigma` mm, among the voxels of body in analysed slices only.

    A normalised convolution: what lies outside neither adds to the map nor dilutes it.
    """
    weight = np.zeros(anomaly_map.shape, dtype=np.float32)
    framed.slicing.slices(weight)[framed.analysed] = framed.slicing.slices(framed.foreground)[framed.analysed]
    inside = weight > 0
    if not inside.any():
        return
    box = find_objects(inside.astype(np.uint8))[0]  # nothing happens outside the body's box
    widths = [sigma / spacing for spacing in framed.volume.spacing]
    part, share = anomaly_map[box], weight[box]
    spread = gaussian_filter(share, widths, mode="constant", truncate=3)
    part[:] = np.divide(
        gaussian_filter(part, widths, mode="constant", truncate=3), spread, where=share > 0, out=part * 0
    )


def batches(numbers: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    """`numbers` in pieces of at most `size`."""
    for start in range(0, len(numbers), size):
        yield numbers[start : start + size]
