"""The result of a detection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medclipad.detection.calibration import THRESHOLD, Calibration
from medclipad.detection.regions import Region, find_regions, region_labels
from medclipad.volume import Slicing, Volume

VOLUME_SCORE_SHARE = 0.05
ALPHA = 0.05  # false alarm rate of the verdict, where there are enough normal scans
DISCLAIMER = "Research software: not for diagnosis."


@dataclass(frozen=True)
class AnomalyResult:
    """Anomaly map of a volume, on exactly its grid, and what normal scans say about it.

    Attributes
    ----------
    anomaly_map
        float32 in [0, 1], with the size, spacing, origin and direction of the input; 0 outside the body and in skipped
        slices. A value says how rare it is in normal scans: 0.2 is reached by 1 in 10 of their voxels, 0.4 by 1 in 100,
        0.6 by 1 in 1,000, 0.8 by 1 in 10,000; see `Calibration`.
    slice_scores
        float64 (n_slices,), anomaly score in [0, 1] of each slice, on the scale of the map; nan where skipped.
    foreground
        bool (I, J, K), the body. Slices with less than 1 % of it are skipped.
    slicing
        The plane and the order of the slices.
    detector
        Name of the detector.
    threshold
        Map value that is outlined, .5: 1 in 316 voxels of normal scans reach it.
    calibration
        What the detector said of normal scans.
    complete
        Whether the whole volume was seen in the planes that the detector learned, so that it can be judged.
    warnings
        Why the volume is unlike those that were learned from, in sentences.
    window
        (low, high), the values of the volume that the detector saw as black and white, if known.
    """

    anomaly_map: Volume
    slice_scores: np.ndarray
    foreground: np.ndarray
    slicing: Slicing
    detector: str
    threshold: float = THRESHOLD
    calibration: Calibration = field(default_factory=Calibration)
    complete: bool = True
    warnings: tuple[str, ...] = ()
    window: tuple[float, float] | None = None
    _found: dict[float, list[Region]] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def plane(self) -> str:
        """The plane whose slices are scored: axial, coronal or sagittal."""
        return self.slicing.plane

    @property
    def slice_limit(self) -> float:
        """Slice score that at most 5 % of a normal scan's slices exceed, or what the normal scans support."""
        return self.calibration.slice_limit

    @property
    def raw_map(self) -> Volume:
        """The method's own map values, float32 in [0, 1], before they were compared with normal scans."""
        return self.anomaly_map.with_array(self.calibration.scale.inverse(self.anomaly_map.array))

    @property
    def volume_score(self) -> float:
        """Mean score of the most anomalous 5 % of the analysed slices (at least one); nan if none was analysed."""
        return volume_score(self.slice_scores)

    @property
    def p_value(self) -> float | None:
        """Conformal p-value of the volume score: small means unlike normal scans.

        None where it cannot be given: too few slices were seen, the acquisition is unusual, or the detector was not
        calibrated on whole normal scans.
        """
        judged = self.complete and not self.warnings
        return self.calibration.p_value(self.volume_score) if judged else None

    def regions(self, false_per_scan: float | None = None) -> list[Region]:
        """Return the regions of the map, the largest first.

        A region is a connected part above `threshold` whose peak exceeds a limit.

        Parameters
        ----------
        false_per_scan
            Number of regions that normal scans have above the limit, on average. By default at most 1, or the lowest
            that the detector's normal scans support, and none whose peak is below the outline; to see more, ask for
            more: the limit, and the outline with it, then falls below `threshold`.

        Raises
        ------
        DetectorError
            If there are too few normal scans for so few false regions.
        """
        limit = self.region_limit(false_per_scan)
        if limit not in self._found:  # a summary asks for them three times
            self._found[limit] = find_regions(self.anomaly_map, self.foreground, self.slicing, self.threshold, limit)
        return list(self._found[limit])

    def region_limit(self, false_per_scan: float | None = None) -> float:
        """Return the map value that the peak of a region must exceed; see `regions`."""
        if false_per_scan is not None:
            return self.calibration.region_limit(false_per_scan)
        rate = self.calibration.default_rate()
        return self.threshold if rate is None else max(self.threshold, self.calibration.region_limit(rate))

    def segmentation(self, threshold: float | None = None, false_per_scan: float | None = None) -> Volume:
        """Return a mask uint8 on the same grid, 1 in the regions.

        Parameters
        ----------
        threshold
            Map value: the mask is what exceeds it, whatever its peak.
        false_per_scan
            Without a threshold: as in `regions`.
        """
        array = self.anomaly_map.array
        if threshold is not None:
            return self.anomaly_map.with_array((array > threshold).astype(np.uint8))
        labels, _ = region_labels(array, self.threshold, self.region_limit(false_per_scan))
        return self.anomaly_map.with_array((labels > 0).astype(np.uint8))

    def verdict(self, false_per_scan: float | None = None) -> str:
        """Return what a reader should know first, in sentences; `false_per_scan` is as in `regions`."""
        return " ".join([*self._finding(false_per_scan), DISCLAIMER])

    def chosen(self, false_per_scan: float | None) -> dict[str, Any]:
        """Return the part of `summary` that follows from the rate of false regions."""
        return {
            "verdict": self.verdict(false_per_scan),
            "false_regions_per_scan": self.calibration.default_rate() if false_per_scan is None else false_per_scan,
            "region_limit": self.region_limit(false_per_scan),
            "regions": [region.to_dict() for region in self.regions(false_per_scan)],
        }

    def summary(self) -> dict[str, Any]:
        """Return scores, limits, regions and the verdict in JSON's types; the scores of skipped slices are None."""
        scores = [None if np.isnan(score) else float(score) for score in self.slice_scores]
        calibration = self.calibration
        return {
            "detector": self.detector,
            "plane": self.plane,
            "threshold": self.threshold,
            "volume_score": None if np.isnan(self.volume_score) else self.volume_score,
            "p_value": self.p_value,
            "normal_scans": calibration.n,
            "warnings": list(self.warnings),
            "promise": calibration.promise(),
            "slice_limit": self.slice_limit,
            "region_limits": {f"{named:g}": limit for named, limit in calibration.rates().items()},
            **self.chosen(None),
            "scale_top": calibration.scale.top,
            "complete": self.complete,
            "slice_scores": scores,
        }

    @classmethod
    def from_summary(
        cls,
        anomaly_map: Volume,
        slicing: Slicing,
        summary: Mapping[str, Any],
        calibration: Calibration | None = None,
    ) -> AnomalyResult:
        """Return a result that was stored as its map and its `summary`.

        Without the detector's calibration it has no p-value, and its regions are all that exceed the threshold.
        """
        return cls(
            anomaly_map=anomaly_map,
            slice_scores=np.array([np.nan if score is None else score for score in summary["slice_scores"]]),
            foreground=anomaly_map.array > 0,
            slicing=slicing,
            detector=summary["detector"],
            calibration=calibration or Calibration(),
            complete=summary["complete"],
            warnings=tuple(summary["warnings"]),
        )

    def _finding(self, false_per_scan: float | None) -> list[str]:
        if np.isnan(self.volume_score):
            return ["No slice shows enough of the body to be judged."]
        if self.warnings:
            return list(self.warnings)
        if not self.complete:
            return ["Only a part of the volume was seen, or another plane than was learned: no verdict is given."]
        p_value, calibration = self.p_value, self.calibration
        if p_value is None:
            return [calibration.promise()]
        alpha = max(ALPHA, calibration.lowest_p)
        below = sum(score < self.volume_score for score in calibration.scores)
        scans = f"higher than {below} of {calibration.n} normal scans (p = {_short(p_value)})"
        sentences = [f"Unusual: {scans}." if p_value <= alpha + 1e-9 else f"Not unusual: {scans}."]
        if calibration.lowest_p > ALPHA + 1e-9:
            sentences.append(calibration.promise())
        return [*sentences, self._largest(false_per_scan)]

    def _largest(self, false_per_scan: float | None) -> str:
        rate = self.calibration.default_rate() if false_per_scan is None else false_per_scan
        regions = self.regions(false_per_scan)
        limit = "above the threshold" if rate is None else f"above the limit of {rate_words(rate)} per scan"
        if not regions:
            return f"No region {limit}."
        largest = regions[0]
        count = "1 region" if len(regions) == 1 else f"{len(regions)} regions"
        slices = f"slice {largest.first}" if largest.first == largest.last else f"slices {largest.first}–{largest.last}"
        return f"{count} {limit}; the largest {largest.volume_ml:.1f} ml, {largest.side}, {slices}."


def volume_score(slice_scores: np.ndarray) -> float:
    """Return the mean of the highest 5 % of the scores (at least one), nan if all are."""
    scores = np.sort(slice_scores[np.isfinite(slice_scores)])
    if not len(scores):
        return float("nan")
    return float(scores[-max(1, round(VOLUME_SCORE_SHARE * len(scores))) :].mean())


def rate_words(rate: float) -> str:
    """Return a rate of false alarms in words.

    Examples
    --------
    >>> rate_words(1), rate_words(0.5)
    ('1 false alarm', '1/2 false alarm')
    """
    words = {0.125: "1/8", 0.25: "1/4", 0.5: "1/2"}.get(rate, f"{rate:g}")
    return f"{words} false alarm{'s' if rate > 1 else ''}"


def _short(p_value: float) -> str:
    return f"{p_value:.2f}".removeprefix("0") if p_value >= 0.01 else f"{p_value:.3f}".removeprefix("0")
