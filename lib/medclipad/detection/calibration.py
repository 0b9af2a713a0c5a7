"""From scores to decisions: the threshold and the p-values, learned from normal slices at fit time."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

FALSE_POSITIVE_RATE = 0.05


class Calibration(BaseModel):
    """Scores of normal slices, and the map value above which a voxel is called abnormal.

    Attributes
    ----------
    threshold
        Map value in [0, 1] that 95 % of the normal slices do not reach anywhere.
    normal_scores
        Scores of normal slices, ascending.
    held_out
        Whether those slices were kept out of training.
    """

    model_config = ConfigDict(extra="forbid")

    threshold: float = Field(ge=0, le=1, description="map value; 95 % of the normal slices stay below it everywhere")
    normal_scores: list[float] = Field(description="slice scores of normal slices, ascending")
    held_out: bool = Field(description="whether those slices were kept out of training")

    def p_value(self, score: float) -> float:
        """Return the share of normal slices with at least this score, (1 + r) / (1 + n): small means abnormal."""
        n = len(self.normal_scores)
        return (1 + n - int(np.searchsorted(self.normal_scores, score))) / (1 + n)


def calibrate(slice_scores: np.ndarray, map_maxima: np.ndarray, held_out: bool) -> Calibration:
    """Return the calibration for normal slices.

    Parameters
    ----------
    slice_scores, map_maxima
        Score and largest map value of each normal slice, (n,), n ≥ 1.
    held_out
        Whether those slices were kept out of training.
    """
    return Calibration(
        threshold=float(np.quantile(map_maxima, 1 - FALSE_POSITIVE_RATE)),
        normal_scores=sorted(float(score) for score in slice_scores),
        held_out=held_out,
    )
