"""Area under the ROC curve, exact over any number of scores, in two sorts."""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Return the area under the ROC curve.

    Parameters
    ----------
    scores
        Scores of any shape; higher is more abnormal.
    truth
        bool, of the same shape; True is abnormal.

    Returns
    -------
    float or None
        In [0, 1]; None if the truth has one class only.

    Examples
    --------
    >>> auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True]))
    0.75
    """
    return auroc_of_sorted(np.sort(scores[truth]), np.sort(scores[~truth]))


def auroc_of_sorted(positive: np.ndarray, negative: np.ndarray) -> float | None:
    """Return the area under the ROC curve of the sorted scores of two classes.

    Parameters
    ----------
    positive, negative
        Scores (p,) of abnormal and (n,) of normal items, each in ascending order.

    Returns
    -------
    float or None
        In [0, 1]; None if one of the classes is empty.

    Notes
    -----
    This is the Mann-Whitney statistic: the share of pairs in which the abnormal item has the higher score. Ties count
    half.
    """
    if not positive.size or not negative.size:
        return None
    below = np.searchsorted(negative, positive, "left").sum(dtype=np.float64)
    not_above = np.searchsorted(negative, positive, "right").sum(dtype=np.float64)
    return float((below + not_above) / 2 / positive.size / negative.size)
