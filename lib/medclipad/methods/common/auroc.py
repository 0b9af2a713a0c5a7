"""Area under the ROC curve, exact over any number of scores, in two sorts."""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """AUROC of scores against the truth, bool of the same shape; None if it has one class only."""
    return auroc_of_sorted(np.sort(scores[truth]), np.sort(scores[~truth]))


def auroc_of_sorted(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """Mann-Whitney: the share of pairs in which the abnormal one scores higher, ties half. Both sorted."""
    if not positive.size or not negative.size:
        return None
    below = np.searchsorted(negative, positive, "left").sum(dtype=np.float64)
    not_above = np.searchsorted(negative, positive, "right").sum(dtype=np.float64)
    return float((below + not_above) / 2 / positive.size / negative.size)
