"""From scores to decisions: what the scores and maps of normal slices look like, learned at fit time."""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

FALSE_POSITIVE_RATE = 0.05


class Calibration(BaseModel):
    """Scores of normal slices, and the map value above which a voxel is called abnormal."""

    model_config = ConfigDict(extra="forbid")

    threshold: float = Field(ge=0, le=1, description="map value; 95 % of the normal slices stay below it everywhere")
    normal_scores: list[float] = Field(description="slice scores of normal slices, ascending")
    held_out: bool = Field(description="whether those slices were kept out of training")

    def p_value(self, score: float) -> float:
        """Share of normal slices with at least this score, (1 + r) / (1 + n): small means abnormal."""
        n = len(self.normal_scores)
        return (1 + n - int(np.searchsorted(self.normal_scores, score))) / (1 + n)


def calibrate(slice_scores: np.ndarray, map_maxima: np.ndarray, held_out: bool) -> Calibration:
    """Calibration from the scores (n,) and map maxima (n,) of n ≥ 1 normal slices."""
    return Calibration(
        threshold=float(np.quantile(map_maxima, 1 - FALSE_POSITIVE_RATE)),
        normal_scores=sorted(float(score) for score in slice_scores),
        held_out=held_out,
    )
