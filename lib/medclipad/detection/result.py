"""The result of a detection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from medclipad.volume import Slicing, Volume

VOLUME_SCORE_SHARE = 0.05


@dataclass(frozen=True)
class AnomalyResult:
    """Anomaly map of a volume, on exactly its grid, and scores.

    Attributes
    ----------
    anomaly_map
        float32 in [0, 1], with the size, spacing, origin and direction of the input; 0 outside the body and in skipped
        slices.
    slice_scores
        float64 (n_slices,), anomaly score in [0, 1] of each slice; nan where skipped.
    foreground
        bool (I, J, K), the body. Slices with less than 1 % of it are skipped.
    threshold
        Map value that 95 % of normal slices do not reach anywhere.
    slicing
        The plane and the order of the slices.
    detector
        Name of the detector.
    window
        (low, high), the values of the volume that the detector saw as black and white, if known.
    """

    anomaly_map: Volume
    slice_scores: np.ndarray
    foreground: np.ndarray
    threshold: float
    slicing: Slicing
    detector: str
    window: tuple[float, float] | None = None

    @property
    def plane(self) -> str:
        """The plane that was analysed: axial, coronal or sagittal."""
        return self.slicing.plane

    @property
    def volume_score(self) -> float:
        """Mean score of the most anomalous 5 % of the analysed slices (at least one); nan if none was analysed."""
        scores = np.sort(self.slice_scores[np.isfinite(self.slice_scores)])
        if not len(scores):
            return float("nan")
        return float(scores[-max(1, round(VOLUME_SCORE_SHARE * len(scores))) :].mean())

    def segmentation(self, threshold: float | None = None) -> Volume:
        """Return a mask uint8 on the same grid, 1 where the map exceeds a threshold, by default the calibrated one."""
        limit = self.threshold if threshold is None else threshold
        return self.anomaly_map.with_array((self.anomaly_map.array > limit).astype(np.uint8))

    def summary(self) -> dict[str, Any]:
        """Return scores, threshold and plane in JSON's types; the scores of skipped slices are None."""
        scores = [None if np.isnan(score) else float(score) for score in self.slice_scores]
        volume_score = self.volume_score
        return {
            "detector": self.detector,
            "plane": self.plane,
            "threshold": self.threshold,
            "volume_score": None if np.isnan(volume_score) else volume_score,
            "slice_scores": scores,
        }
