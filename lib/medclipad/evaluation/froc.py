"""Free-response ROC (FROC): lesions that regions find, against false regions per scan.

**Lesion.** A connected component of the truth mask, however small; voxels that share a corner are connected.

**Region.** As `AnomalyResult.regions` shows them: a connected part of the map above the outline's threshold whose peak
reaches a limit. At a limit below that threshold, which gives many false regions per scan, it is a connected part above
the limit, as when a detector learns its own limits.

**Hit.** The rule of LUNA16 (Setio et al. 2017, Medical Image Analysis 42, 1-13): a candidate is located at one point,
and finds the lesion that this point lies in; there the lesion is a ball around the nodule's centre, here it is its
mask. The point is the peak of the region, where a reader is taken to. Further regions in the same lesion are neither
hits nor false. A region whose peak is in no lesion is false.

An overlap of one voxel would be reached by the few huge regions at a low limit, and an intersection over union of 0.1
(PI-CAI, nnDetection) would be missed by a region that lies wholly in a large lesion, as is common in anomaly maps.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from medclipad.detection.calibrate import LOWER
from medclipad.detection.calibration import REGION_RATES, THRESHOLD
from medclipad.detection.regions import region_labels

RATES = REGION_RATES
"""False regions per scan at which the sensitivity is given; its mean over them is the score of LUNA16."""
LEVELS = (THRESHOLD, *LOWER)  # what regions are outlined at, descending
SIZES = (0.0, 6.0, 12.0, 20.0)
"""Lower ends in mm of the classes of lesions; the last has no upper end."""
RULES = {
    "lesion": "a connected component of the truth mask (26 neighbours), however small",
    "region": f"a connected part of the map above {THRESHOLD:g} (26 neighbours) whose peak reaches a limit; below "
    f"{THRESHOLD:g}, a connected part above the limit",
    "hit": "a region finds the lesion that its peak lies in; a region whose peak is in no lesion is false; further "
    "regions in a lesion that is found are neither (LUNA16, Setio et al. 2017, with the lesion's mask in place of a "
    "ball around its centre)",
    "false regions per scan": "mean over all scans, normal and abnormal",
    "sensitivity": "share of all lesions that are found, at the best limit with at most so many false regions per "
    "scan; not interpolated",
    "size": "diameter in mm of the ball of the lesion's volume",
}
"""What the figures rest on, in words."""
_NEIGHBOURS = np.ones((3, 3, 3))
_NOT_FOUND = -math.inf


@dataclass(frozen=True)
class LevelRegions:
    """What the regions above a level hit.

    Attributes
    ----------
    level
        Value that all voxels of a region exceed.
    false_peaks
        Peaks of the regions that hit no lesion.
    found_peaks
        For each lesion the highest peak of the regions that hit it; -inf if none does.
    """

    level: float
    false_peaks: tuple[float, ...]
    found_peaks: tuple[float, ...]


@dataclass(frozen=True)
class PromisedRegions:
    """What the regions above a limit hit that the detector itself learned from normal scans.

    Attributes
    ----------
    promised
        False regions per normal scan that the limit stands for.
    limit
        Map value that the peak of a region exceeds.
    false
        Regions that hit no lesion.
    found
        Whether each lesion is hit.
    """

    promised: float
    limit: float
    false: int
    found: tuple[bool, ...]


@dataclass(frozen=True)
class CaseRegions:
    """Lesions of a case, and the regions of its map that hit or miss them.

    Attributes
    ----------
    lesion_ml
        Volume in ml of each lesion; empty in a normal case.
    levels
        Hits at each of `LEVELS`.
    promised
        Hits at each limit that the detector learned from normal scans.
    """

    lesion_ml: tuple[float, ...]
    levels: tuple[LevelRegions, ...]
    promised: tuple[PromisedRegions, ...] = ()

    @property
    def diameters(self) -> np.ndarray:
        """Diameter in mm of the ball of each lesion's volume, (n,)."""
        return np.cbrt(6000 / np.pi * np.array(self.lesion_ml, dtype=float))


def match_regions(
    anomaly_map: np.ndarray, truth: np.ndarray, voxel_ml: float, limits: Iterable[tuple[float, float]] = ()
) -> CaseRegions:
    """Return which lesions the regions of a map hit; see the rules of this module.

    Parameters
    ----------
    anomaly_map
        Map (I, J, K) on the scale of `Calibration`.
    truth
        (I, J, K), non-zero in the lesions; all zero in a normal case.
    voxel_ml
        Volume of a voxel in ml.
    limits
        Pairs of a rate of false regions per normal scan and the detector's own limit for it.
    """
    lesions, count = ndimage.label(np.asarray(truth) != 0, _NEIGHBOURS)  # pyright: ignore[reportGeneralTypeIssues]
    sizes = np.bincount(lesions.ravel(), minlength=count + 1)[1:]
    levels = {level: _hits(anomaly_map, lesions, count, level) for level in LEVELS}
    promised = []
    for rate, limit in limits:
        outline = min(THRESHOLD, limit)
        at = levels[outline] if outline in levels else _hits(anomaly_map, lesions, count, outline)
        false = sum(peak > limit for peak in at.false_peaks)
        promised.append(PromisedRegions(rate, limit, false, tuple(peak > limit for peak in at.found_peaks)))
    return CaseRegions(tuple((sizes * voxel_ml).tolist()), tuple(levels.values()), tuple(promised))


def _hits(anomaly_map: np.ndarray, lesions: np.ndarray, count: int, level: float) -> LevelRegions:
    """Return what the regions above a level hit; `lesions` are labels from 1 to `count`."""
    labels, peaks = region_labels(anomaly_map, level, level)
    inside = np.flatnonzero(labels)
    region = labels.ravel()[inside] - 1
    at_peak = anomaly_map.ravel()[inside] == peaks[region]
    region, lesion = region[at_peak], lesions.ravel()[inside[at_peak]]
    hit = lesion > 0
    false = np.ones(len(peaks), dtype=bool)
    false[region[hit]] = False
    found = np.full(count, _NOT_FOUND)
    np.maximum.at(found, lesion[hit] - 1, peaks[region[hit]])
    return LevelRegions(level, tuple(peaks[false].tolist()), tuple(found.tolist()))


class Froc:
    """Lesions found and false regions of several cases, at each limit that finds another lesion.

    Parameters
    ----------
    cases
        Lesions and regions of n cases.

    Attributes
    ----------
    limits
        float64 (T,), descending: what the peak of a region reaches.
    false
        float64 (n, T), false regions of each case.
    found
        float64 (n, T, sizes), lesions found, by the classes of `SIZES`.
    lesions
        float64 (n, sizes), all lesions.
    """

    def __init__(self, cases: Sequence[CaseRegions]) -> None:
        top = [case.levels[0] for case in cases]
        peaks = np.unique(np.concatenate([np.empty(0), *(level.found_peaks for level in top)]))
        peaks = peaks[np.isfinite(peaks)][::-1]  # between two of them a lower limit adds only false regions
        self.limits = np.concatenate([peaks, LEVELS[1:]])
        n, sizes = len(cases), len(SIZES)
        self.false = np.zeros((n, len(self.limits)))
        self.found = np.zeros((n, len(self.limits), sizes))
        self.lesions = np.zeros((n, sizes))
        for row, case in enumerate(cases):
            size = np.searchsorted(SIZES, case.diameters, "right") - 1
            one_hot = np.eye(sizes)[size]
            self.lesions[row] = one_hot.sum(axis=0)
            for level in case.levels:
                at = np.flatnonzero(self.limits == level.level) if level.level < THRESHOLD else np.arange(len(peaks))
                self.false[row, at] = (np.array(level.false_peaks)[:, None] >= self.limits[at]).sum(axis=0)
                self.found[row, at] = (np.array(level.found_peaks)[:, None] >= self.limits[at]).T @ one_hot

    def best(self, weights: np.ndarray, rates: Sequence[float]) -> np.ndarray:
        """Return the best of the limits that keep a rate of false regions, as indices (R, rates); -1 if none finds any.

        Parameters
        ----------
        weights
            (R, n), how often each case counts.
        rates
            False regions per scan that are allowed.
        """
        rate = weights @ self.false / weights.sum(axis=1, keepdims=True)
        found = weights @ self.found.sum(axis=2)
        chosen = np.empty((len(weights), len(rates)), dtype=int)
        for column, allowed in enumerate(rates):
            usable = np.where(rate <= allowed * (1 + 1e-9), found, 0)
            best = usable.argmax(axis=1)  # the highest of equally good limits
            chosen[:, column] = np.where(usable.max(axis=1) > 0, best, -1)
        return chosen

    def sensitivity(self, weights: np.ndarray, best: np.ndarray) -> np.ndarray:
        """Return the share of the lesions of each size, and last of all, found at limits: (R, rates, sizes + 1).

        Parameters
        ----------
        weights
            (R, n), how often each case counts.
        best
            (R, rates), indices of limits as `best` returns them.
        """
        found = np.tensordot(weights, self.found, 1)
        found = np.where(best[..., None] >= 0, np.take_along_axis(found, best[..., None].clip(0), axis=1), 0)
        lesions = (weights @ self.lesions)[:, None]
        found, lesions = (np.concatenate([part, part.sum(-1, keepdims=True)], -1) for part in (found, lesions))
        return np.divide(found, lesions, out=np.full(found.shape, np.nan), where=lesions > 0)


def size_name(index: int) -> str:
    """Return the name of a class of `SIZES`.

    Examples
    --------
    >>> [size_name(index) for index in range(len(SIZES))]
    ['< 6 mm', '6–12 mm', '12–20 mm', '≥ 20 mm']
    """
    if index == 0:
        return f"< {SIZES[1]:g} mm"
    if index == len(SIZES) - 1:
        return f"≥ {SIZES[-1]:g} mm"
    return f"{SIZES[index]:g}–{SIZES[index + 1]:g} mm"
