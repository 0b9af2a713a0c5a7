"""Regions of a map: connected parts above the outline's threshold whose peak exceeds a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from medclipad.volume import Slicing, Volume

MAX_REGIONS = 200  # a limit near zero gives thousands of specks
_NEIGHBOURS = np.ones((3, 3, 3))  # voxels that share a corner are connected
_MIDDLE = 0.2  # a peak less than this share of the half width from the middle is on neither side


@dataclass(frozen=True)
class Region:
    """A connected part of a map.

    Attributes
    ----------
    volume_ml
        Volume in ml.
    peak, mean
        Highest and mean value of the map in it, on the scale of `Calibration`.
    ijk
        Voxel of the peak.
    position
        The peak's centre in RAS+ mm.
    side
        Where in the body the peak lies, in words, such as "right anterior upper".
    first, last
        Its first and last slice.
    slice
        Slice of the peak.
    """

    volume_ml: float
    peak: float
    mean: float
    ijk: tuple[int, int, int]
    position: tuple[float, float, float]
    side: str
    first: int
    last: int
    slice: int

    def to_dict(self) -> dict[str, Any]:
        """Return the fields in JSON's types, rounded to what they mean."""
        return {
            "volume_ml": round(self.volume_ml, 3),
            "peak": round(self.peak, 4),
            "mean": round(self.mean, 4),
            "ijk": list(self.ijk),
            "position": [round(value, 2) for value in self.position],
            "side": self.side,
            "first": self.first,
            "last": self.last,
            "slice": self.slice,
        }


def region_labels(array: np.ndarray, outline: float, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the regions of a map as labels, and their peaks.

    Parameters
    ----------
    array
        Map (I, J, K).
    outline
        Value that all voxels of a region exceed, if `limit` is not lower.
    limit
        Value that the peak of a region exceeds.

    Returns
    -------
    labels
        int32 (I, J, K); 0 outside, 1 for the region with the most voxels, and so on.
    peaks
        (n,) highest value of each.
    """
    found: Any = ndimage.label(array > min(outline, limit), _NEIGHBOURS)  # typed as a union
    labels, count = found
    if not count:
        return labels, np.empty(0)
    inside = np.flatnonzero(labels)
    peaks = np.full(count, -np.inf, dtype=array.dtype)
    np.maximum.at(peaks, labels.ravel()[inside] - 1, array.ravel()[inside])
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    kept = np.array([i for i in np.argsort(-sizes, kind="stable") if peaks[i] > limit], dtype=int)
    renumbered = np.zeros(count + 1, dtype=labels.dtype)
    renumbered[kept + 1] = np.arange(1, len(kept) + 1)
    return renumbered[labels], peaks[kept]


def find_regions(
    anomaly_map: Volume, foreground: np.ndarray, slicing: Slicing, outline: float, limit: float
) -> list[Region]:
    """Return the regions of a map, the largest first, at most 200.

    Parameters
    ----------
    anomaly_map
        The map.
    foreground
        bool (I, J, K), the body; sides are told from its box.
    slicing
        Slices in which `first`, `last` and `slice` are counted.
    outline, limit
        As in `region_labels`.
    """
    array = anomaly_map.array
    labels, peaks = region_labels(array, outline, limit)
    voxel_ml = abs(float(np.linalg.det(anomaly_map.affine[:3, :3]))) / 1000
    centre, half = _box(foreground, anomaly_map.affine)
    regions = []
    for number, box in enumerate(ndimage.find_objects(labels)[:MAX_REGIONS], start=1):
        inside = labels[box] == number
        values = np.where(inside, array[box], -np.inf)
        inner = np.unravel_index(int(values.argmax()), values.shape)
        i, j, k = (int(part.start + at) for part, at in zip(box, inner, strict=True))
        r, a, s = anomaly_map.affine[:3, :3] @ (i, j, k) + anomaly_map.affine[:3, 3]
        span = box[slicing.axis]
        first, last = sorted(slicing.number(index) for index in (span.start, span.stop - 1))
        regions.append(
            Region(
                volume_ml=float(inside.sum() * voxel_ml),
                peak=float(peaks[number - 1]),
                mean=float(array[box][inside].mean()),
                ijk=(i, j, k),
                position=(float(r), float(a), float(s)),
                side=_side((np.array([r, a, s]) - centre) / half),
                first=first,
                last=last,
                slice=slicing.number((i, j, k)[slicing.axis]),
            )
        )
    return regions


def _box(mask: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and half size in RAS+ mm of the box around a mask."""
    spans = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    if not len(spans[0]):
        spans = [np.arange(n) for n in mask.shape]
    corners = np.array([[i, j, k] for i in spans[0][[0, -1]] for j in spans[1][[0, -1]] for k in spans[2][[0, -1]]])
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    low, high = world.min(axis=0), world.max(axis=0)
    return (low + high) / 2, np.maximum((high - low) / 2, 1e-6)


def _side(relative: np.ndarray) -> str:
    """Return a place in words, from coordinates (R, A, S) in [-1, 1] relative to the body's box."""
    r, a, s = relative
    words = ["right" if r > _MIDDLE else "left" if r < -_MIDDLE else "midline"]
    words += ["anterior"] * bool(a > 1 / 3) + ["posterior"] * bool(a < -1 / 3)
    words += ["upper"] * bool(s > 1 / 3) + ["lower"] * bool(s < -1 / 3)
    return " ".join(words)
