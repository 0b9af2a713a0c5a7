"""From map values to statements that hold for the next patient: rarity among normal scans, limits, p-values.

The unit is the normal scan (a volume, or a picture), not the slice: slices of one person resemble each other, so many
slices of few people say little about the next person. Everything here is learned from normal scans as the detector sees
new ones: what it remembers of a scan is left out while that scan is looked at (`Calibration.basis`).

**The scale.** A map value is the rarity of what is seen among normal tissue, a fifth of a decade for each 0.2: 0.2 is
reached by 1 in 10 voxels of normal scans, 0.4 by 1 in 100, 0.6 by 1 in 1,000, 0.8 by 1 in 10,000. It means the same in
every volume, detector and method. Values rarer than anything in the normal scans are ranked above `Scale.top`, but
claim no more than "never seen in n normal scans".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from medclipad.errors import DetectorError

DECADES = 5.0  # of rarity that a map value of 1 stands for
THRESHOLD = 0.5  # map value that is outlined: 1 in 316 voxels of normal scans reach it
HIGHEST_TOP = 0.95  # rarer values are still told apart
SLICE_RATE = 0.05  # share of a normal scan's slices above the slice limit, where there are enough scans
REGION_RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False regions per normal scan that are offered by name."""
DEFAULT_REGION_RATE = 1.0
_STEP = 0.05  # between the knots of the scale
_BINS = 1 << 16  # of a histogram of raw values in [0, 1]

Basis = Literal["left out", "kept out", "other slices", "training slices", "none"]
"""How normal scans were seen: each left out of what is remembered, kept out of the training altogether, as other slices
of the volumes that were learned from, as the very slices that were learned from, or not at all."""


class Scale(BaseModel):
    """The monotone map from a method's own values in [0, 1] to rarity.

    Attributes
    ----------
    raw, value
        Knots, both strictly ascending from 0; between them it is linear.
    top
        Value of what is just rarer than anything in the normal scans.
    """

    model_config = ConfigDict(extra="forbid")

    raw: list[float] = Field(default=[0.0, 1.0], min_length=2, description="the method's own values, ascending")
    value: list[float] = Field(default=[0.0, 1.0], min_length=2, description="the rarity of each, ascending")
    top: float = Field(default=1.0, ge=0, le=1, description="value of what is in none of the normal scans")

    @model_validator(mode="after")
    def _require_ascending_pairs(self) -> Scale:
        if len(self.raw) != len(self.value) or any(np.diff(self.raw) <= 0) or any(np.diff(self.value) <= 0):
            raise ValueError("raw and value need equal lengths, and ascend")
        return self

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """Return the rarity of raw values, of the same shape and type, in [0, 1]."""
        return np.interp(raw, self.raw, self.value).astype(np.asarray(raw).dtype)

    def inverse(self, value: np.ndarray) -> np.ndarray:
        """Return the method's own values for values of the scale."""
        return np.interp(value, self.value, self.raw).astype(np.asarray(value).dtype)


class NormalScan(BaseModel):
    """What the detector said of a normal scan.

    Attributes
    ----------
    name
        Name of the volume.
    score
        Volume score; None unless the volume is known to be normal as a whole.
    """

    model_config = ConfigDict(extra="forbid")

    name: str
    score: float | None


class Calibration(BaseModel):
    """What normal scans say about map values, regions, slices and volumes.

    Attributes
    ----------
    basis
        How the normal scans were seen.
    scans
        The normal scans, with their scores.
    scale
        From the method's own map values to rarity among normal voxels.
    score_scale
        The same for slice scores, among normal slices, of methods whose scores do not follow from the map.
    slice_limit
        Slice score that at most `slice_rate` of a normal scan's slices exceed.
    slice_rate
        5 %, or with fewer than 19 scans what these support.
    region_limits
        Pairs of a map value and the number of regions in a normal scan whose peak exceeds it, values descending.
    """

    model_config = ConfigDict(extra="forbid")

    basis: Basis = Field(default="none", description="how the normal scans were seen")
    scans: list[NormalScan] = Field(default=[], description="normal scans and their volume scores")
    scale: Scale = Field(
        default_factory=Scale, description="from the method's map values to rarity among normal voxels"
    )
    score_scale: Scale | None = Field(default=None, description="the same for scores that do not follow from the map")
    slice_limit: float = Field(default=THRESHOLD, ge=0, le=1, description="limit of the slice scores")
    slice_rate: float | None = Field(default=None, description="share of a normal scan's slices above the limit")
    region_limits: list[tuple[float, float]] = Field(
        default=[], description="map values, and how many regions of a normal scan have a peak above each"
    )

    @property
    def scores(self) -> list[float]:
        """Volume scores of the scans that are normal as a whole, ascending."""
        return sorted(scan.score for scan in self.scans if scan.score is not None)

    @property
    def n(self) -> int:
        """Number of normal scans that a statement on a new scan rests on; 0 if none was left or kept out."""
        return len(self.scores) if self.basis in ("left out", "kept out") else 0

    @property
    def lowest_p(self) -> float:
        """The smallest p-value that the scans support, 1 / (n + 1)."""
        return 1 / (self.n + 1)

    def p_value(self, score: float) -> float | None:
        """Return the conformal p-value of a volume score, (1 + scans with at least it) / (1 + n); None without scans.

        Notes
        -----
        If the new scan is normal and as the others (exchangeable), p ≤ α happens with a probability of at most α
        (Vovk et al. 2005, "Algorithmic Learning in a Random World").
        """
        if not self.n or math.isnan(score):
            return None
        return (1 + self.n - int(np.searchsorted(self.scores, score))) / (1 + self.n)

    def region_limit(self, false_per_scan: float) -> float:
        """Return the map value that the peak of a region must exceed, for so many false regions in a normal scan.

        Raises
        ------
        DetectorError
            If there are too few normal scans for so few false regions.
        """
        allowed = [value for value, rate in self.region_limits if rate <= false_per_scan * (1 + 1e-9)]
        if not allowed:
            raise DetectorError(
                self._too_few(f"{false_per_scan:g} false regions per scan", math.ceil(1 / false_per_scan - 1e-9))
            )
        return allowed[-1]

    def rates(self) -> dict[float, float]:
        """Return the named rates of false regions that the scans support, with their limits."""
        supported = [rate for rate in REGION_RATES if any(least <= rate for _, least in self.region_limits)]
        return {rate: self.region_limit(rate) for rate in supported}

    def default_rate(self) -> float | None:
        """Return the rate of false regions used where none is chosen: 1, or the lowest supported; None without any."""
        return min(self.rates(), key=lambda rate: abs(rate - DEFAULT_REGION_RATE), default=None)

    def promise(self) -> str:
        """Return in a sentence what can be promised about the next normal scan."""
        if not self.n:
            reason = {
                "none": "The detector was not calibrated on normal scans",
                "other slices": "The limits come from slices of the very volumes that were learned from",
                "training slices": "The limits come from the very slices that were learned from",
            }.get(self.basis, "No volume was known to be normal as a whole")
            return f"{reason}: nothing is promised about false alarms."
        scans = "1 normal scan" if self.n == 1 else f"{self.n} normal scans"
        return f"This rests on {scans}: at most 1 false alarm in {self.n + 1} can be promised."

    def _too_few(self, wanted: str, needed: int) -> str:
        return f"{self.promise()} For {wanted}, give at least {max(needed, self.n + 1)} normal scans to fit."


class ScanRecord:
    """What is kept of a normal scan while a calibration is learned.

    Parameters
    ----------
    name
        Name of the volume.
    raw
        Method's own map values of the normal voxels, (m,) in [0, 1].
    places
        How many places of the map vary by themselves: the volume of the normal tissue over that of the smoothing.
    """

    def __init__(self, name: str, raw: np.ndarray, places: float) -> None:
        self.name = name
        self.places = max(places, 1.0)
        self._counts, _ = np.histogram(raw, _BINS, (0, 1))

    @property
    def share_above(self) -> np.ndarray:
        """Share of the voxels at or above each edge of the bins, (bins + 1,)."""
        above = np.concatenate([np.cumsum(self._counts[::-1])[::-1], [0]])
        return above / max(1, above[0])


def learn_scale(records: Iterable[ScanRecord]) -> Scale:
    """Return the scale of normal scans, each with the same weight.

    The rarity of a value is (n · share + 1 / places) / (n + 1), where share is the mean share of normal voxels at or
    above it: as if the next scan had it in one place.
    """
    total, each = np.zeros(_BINS + 1), []
    for record in records:  # one at a time: each takes a megabyte
        total += record.share_above
        each.append(record.places)
    n, share, places = len(each), total / len(each), float(np.mean(each))
    rarity = -np.log10((n * share + 1 / places) / (n + 1 / places)) / DECADES
    edges = np.linspace(0, 1, _BINS + 1)
    last = int(np.flatnonzero(share > 0)[-1]) + 1  # the edge above the highest normal value
    top = min(float(-math.log10(1 / (places * n + 1)) / DECADES), HIGHEST_TOP)
    raw, value = [0.0], [0.0]
    for knot in np.arange(_STEP, top, _STEP):
        at = float(np.interp(knot, rarity[: last + 1], edges[: last + 1]))
        if at > raw[-1]:
            raw.append(at)
            value.append(float(knot))
    for at, knot in ((float(edges[min(last, _BINS)]), top), (1.0, 1.0)):
        if at > raw[-1] and knot > value[-1]:
            raw.append(at)
            value.append(knot)
    if raw[-1] < 1:
        raw.append(1.0)
        value.append(1.0)
    value[-1] = max(value[-1], np.nextafter(value[-2], 2))
    return Scale(raw=raw, value=value, top=top)


def learn_slice_limit(slice_scores: Sequence[np.ndarray]) -> tuple[float, float]:
    """Return a limit of slice scores, and the share of slices that is promised to exceed it at most.

    Parameters
    ----------
    slice_scores
        Scores of the normal slices of each scan, (m,) each.

    Notes
    -----
    Conformal risk control (Angelopoulos et al. 2022) of the share of false slices in a scan, which is at most 1: the
    lowest limit at which (n · mean share + 1) / (n + 1) ≤ rate.
    """
    n = len(slice_scores)
    rate = max(SLICE_RATE, 1 / (n + 1))
    limits = np.unique(np.concatenate(slice_scores))
    above = np.mean([1 - np.searchsorted(np.sort(scores), limits, "right") / len(scores) for scores in slice_scores], 0)
    fine = np.flatnonzero((n * above + 1) / (n + 1) <= rate + 1e-12)
    return float(limits[fine[0]]), rate


def learn_region_limits(peaks: Sequence[np.ndarray], lower: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return pairs of a limit and the number of regions per normal scan that it lets through.

    Parameters
    ----------
    peaks
        Peaks of each scan's regions at `THRESHOLD`.
    lower
        Pairs of a value below `THRESHOLD`, descending, and the mean number of regions at it.

    Notes
    -----
    The k-th highest peak of n scans is exceeded k / n times in the next scan, if peaks come as independent events.
    """
    n = len(peaks)
    if not n:
        return []
    ranked = np.sort(np.concatenate(peaks))[::-1]
    pairs = [(float(peak), (k + 1) / n) for k, peak in enumerate(ranked)]
    for value, rate in [(THRESHOLD, len(ranked) / n), *lower]:
        if rate > (pairs[-1][1] if pairs else 0):
            pairs.append((value, rate))
    return pairs
