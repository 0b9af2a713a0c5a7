"""What is usual at each place of the body: a method's map and the brightness, held against those of normal scans.

A method says how unlike a slice is to those that it learned from. Some places are always unlike, such as the border of
the brain, and some findings look like normal tissue that is elsewhere, such as an enlarged ventricle. So a map is read
relative to what normal scans show at the same relative place of the body's box, and brightness that is unusual for its
place adds to it. Each normal scan is compared with the others alone, as a new one is with all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from nibabel.orientations import io_orientation
from scipy.ndimage import gaussian_filter

from medclipad.detection.slice_frames import FramedVolume, reach_of, smooth

GRID = 24  # cells along each side of the body's box
SHARE = 1.2  # standard deviation in cells of the Gaussian over which places share what is known
PRIOR = 1.0  # scans that count for what is usual anywhere, beside those that show the place
LOCAL = 0.5  # share of the place's own spread in what a map is measured by; the rest is that of all places
LOCAL_BRIGHTNESS = 0.7  # the same for brightness
TOLERANCE = 1.0  # spreads of brightness that are not counted
BRIGHTNESS_WEIGHT = 0.7  # of a spread beyond them, beside a spread of the map
SQUASH = 4.0  # spreads of evidence that become a value of 0.75
_CLIP = 6.0  # spreads of brightness; beyond, it is not told apart
_LEVELS = (0.3, 0.4, 0.7)  # quantiles of a map: its level is the second, its spread lies between the others
_LEAST = 1e-6  # smallest spread
_MANY = 1 << 26  # voxels; of more, some give a median as well


@dataclass(frozen=True)
class Sums:
    """Sums over the voxels of scans that fall into each cell, (GRID, GRID, GRID) each: weights, values, squares.

    Those of several scans add up, and those of one can be taken away again.
    """

    weight: np.ndarray
    value: np.ndarray
    square: np.ndarray
    scans: int = 1

    def __add__(self, other: Sums) -> Sums:
        return self._with(other, 1)

    def __sub__(self, other: Sums) -> Sums:
        return self._with(other, -1)

    def _with(self, other: Sums, sign: int) -> Sums:
        return Sums(*(getattr(self, field.name) + sign * getattr(other, field.name) for field in fields(self)))


class Places:
    """Relative places of a volume's voxels in the box around its body, in anatomical order.

    Parameters
    ----------
    framed
        The volume.
    """

    def __init__(self, framed: FramedVolume) -> None:
        self.body = framed.foreground
        self._ml = float(np.prod(framed.volume.spacing)) / 1000
        orientation = io_orientation(framed.volume.affine)
        self._axes = np.argsort(orientation[:, 0])  # array axis of each anatomical one
        self._shares = []  # for each array axis, how much each of its planes counts in each layer of cells
        for axis in range(3):
            inside = np.flatnonzero(self.body.any(axis=tuple({0, 1, 2} - {axis})))
            first, last = (inside[0], inside[-1] + 1) if len(inside) else (0, self.body.shape[axis])
            at = (np.arange(self.body.shape[axis]) + 0.5 - first) / (last - first)
            cell = np.clip((at if orientation[axis, 1] > 0 else 1 - at) * GRID - 0.5, 0, GRID - 1)
            self._shares.append(np.maximum(0, 1 - np.abs(cell[:, None] - np.arange(GRID))).astype(np.float32))

    def sums(self, values: np.ndarray, where: np.ndarray) -> Sums:
        """Return the sums of values float32 (I, J, K) over the voxels of a mask; a voxel weighs its volume in ml."""
        weight = where.astype(np.float32)
        weighted = weight * values
        return Sums(self._gather(weight), self._gather(weighted), self._gather(weighted * values))

    def sample(self, cells: np.ndarray, rows: slice = slice(None)) -> np.ndarray:
        """Return values of cells (GRID, GRID, GRID) at the voxels, float32 (i, J, K), linear between their centres."""
        cells = cells.transpose(np.argsort(self._axes)).astype(np.float32)
        plane = np.einsum("xyz,jy,kz->xjk", cells, *self._shares[1:], optimize=True)
        return np.einsum("ix,xjk->ijk", self._shares[0][rows], plane, optimize=True)

    def _gather(self, values: np.ndarray) -> np.ndarray:
        cells = np.einsum("ijk,ix,jy,kz->xyz", values, *self._shares, optimize=True)
        return cells.transpose(self._axes).astype(np.float64) * self._ml


@dataclass(frozen=True)
class Usual:
    """Mean and spread of a quantity among normal scans: at each place, and anywhere.

    Attributes
    ----------
    mean, spread
        float32 (GRID, GRID, GRID), drawn towards those of all places by how little is known of the place.
    overall_mean, overall_spread
        Of all places together.
    """

    mean: np.ndarray
    spread: np.ndarray
    overall_mean: float
    overall_spread: float

    @classmethod
    def of(cls, sums: Sums) -> Usual:
        """Return what sums over normal scans say."""
        total = sums.weight.sum()
        mean = float(sums.value.sum() / total)
        variance = float(sums.square.sum() / total) - mean**2
        # What one scan weighs in a cell that shows the body, on average.
        prior = PRIOR * total / max(1, np.count_nonzero(sums.weight)) / sums.scans
        weight, value, square = (gaussian_filter(part, SHARE) for part in (sums.weight, sums.value, sums.square))
        at_place = (value + prior * mean) / (weight + prior)
        spread = (square + prior * (variance + mean**2)) / (weight + prior) - at_place**2
        return cls(
            at_place.astype(np.float32),
            np.sqrt(np.maximum(spread, _LEAST**2)).astype(np.float32),
            mean,
            max(variance, _LEAST**2) ** 0.5,
        )


@dataclass(frozen=True)
class NormalAtlas:
    """What normal scans show at each place.

    Attributes
    ----------
    map
        Of the method's own map.
    brightness
        Of the brightness, see `relative_brightness`.
    level, spread
        Usual and highest level of a normal scan's map, and the same of its spread, in units of the usual spread.
    """

    map: Usual
    brightness: Usual
    level: tuple[float, float] = (0.0, 0.0)
    spread: tuple[float, float] = (1.0, 1.0)

    def unusual(self, raw: np.ndarray, places: Places, local: bool = True, rows: slice = slice(None)) -> None:
        """Turn a method's map float32 (i, J, K) into its distance from what is usual, in spreads, in place.

        Parameters
        ----------
        raw
            The method's map, smoothed, in some rows of the volume.
        places
            Places of the volume's voxels.
        local
            Whether to compare with the same place too; else with all places alone.
        rows
            Which rows these are, along the first axis.
        """
        usual = self.map
        overall = (raw - np.float32(usual.overall_mean)) / np.float32(usual.overall_spread)
        if local:
            measure = LOCAL * places.sample(usual.spread, rows) + np.float32((1 - LOCAL) * usual.overall_spread)
            raw -= places.sample(usual.mean, rows)
            raw /= measure
            raw += overall
            raw /= 2
        else:
            raw[:] = overall

    def relative_to_itself(self, unusual: np.ndarray, seen: np.ndarray) -> None:
        """Take a volume's own level and spread out of its map, in place, as far as normal scans differ in them.

        A scanner or slice thickness lifts the whole map. A volume whose level is higher than that of all normal scans
        keeps the rest: it may be abnormal everywhere.
        """
        level, spread = own_level(unusual, seen)
        usual, highest = self.level
        unusual -= np.float32(usual + np.clip(level - usual, 0, highest - usual))
        usual, highest = self.spread
        unusual /= np.float32(np.clip(spread / usual, 1, highest / usual))

    def unusual_brightness(self, brightness: np.ndarray, places: Places, rows: slice = slice(None)) -> np.ndarray:
        """Return by how many spreads beyond `TOLERANCE` brightness (i, J, K) is unlike that of its place, ≥ 0."""
        usual = self.brightness
        measure = LOCAL_BRIGHTNESS * places.sample(usual.spread, rows)
        measure += np.float32((1 - LOCAL_BRIGHTNESS) * usual.overall_spread)
        away = brightness - places.sample(usual.mean, rows)
        np.abs(away, out=away)
        away /= measure
        away -= np.float32(TOLERANCE)
        return np.maximum(away, 0, out=away)


class RelativeBrightness:
    """Brightness of a volume in spreads from the median of its body.

    Parameters
    ----------
    framed
        The volume.
    """

    def __init__(self, framed: FramedVolume) -> None:
        self._framed = framed
        inside = _some(framed.volume.array, framed.foreground).astype(np.float32)
        known = inside[np.isfinite(inside)]
        self._centre = float(np.median(known)) if len(known) else 0.0
        around = float(np.median(np.abs(known - self._centre))) if len(known) else 0.0
        self._spread = max(around, float(np.ptp(known)) * _LEAST if len(known) else 0.0, _LEAST**2)

    def smoothed(self, sigma: float, rows: slice = slice(None)) -> np.ndarray:
        """Return it float32 (i, J, K) in some rows along the first axis, smoothed by a Gaussian of `sigma` mm."""
        spacing = self._framed.volume.spacing
        first, last, _ = rows.indices(len(self._framed.volume.array))
        reach = reach_of(sigma / spacing[0])
        start = max(0, first - reach)
        part = slice(start, last + reach)
        body = self._framed.foreground[part]
        relative = (self._framed.volume.array[part][body].astype(np.float32) - self._centre) / np.float32(self._spread)
        brightness = np.zeros(body.shape, dtype=np.float32)
        brightness[body] = np.clip(np.nan_to_num(relative, copy=False), -_CLIP, _CLIP)
        everywhere = np.ones((1, 1, 1), dtype=np.float32)
        smooth(brightness, everywhere, everywhere > 0, body, spacing, sigma)
        return brightness[first - start : last - start]


def own_level(values: np.ndarray, seen: np.ndarray) -> tuple[float, float]:
    """Return the level and the spread of a map's values where it was seen; robust to a large lesion."""
    low, level, high = np.quantile(_some(values, seen), _LEVELS)
    return float(level), max(float(high - low), _LEAST)


def _some(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return the values in a mask (I, J, K), of every n-th plane of the first axis where there are too many."""
    step = -(-values.size // _MANY)
    return values[::step][where[::step]] if step == 1 or where[::step].any() else values[where]


def levels_of(own: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return usual and highest level of scans, and usual and highest spread, of what `own_level` returned for each."""
    levels, spreads = np.array(own).T
    return (float(levels.mean()), float(levels.max())), (float(spreads.mean()), float(spreads.max()))


def squash(evidence: np.ndarray) -> None:
    """Bring evidence in spreads into (0, 1), in place; the order stays."""
    evidence /= SQUASH + np.abs(evidence)
    evidence += 1
    evidence /= 2
