"""Compare the old and the new detector on slices that were held out of the new one's training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel
from sklearn.metrics import average_precision_score

from medclipad.errors import TrainingError
from medclipad.evaluation.held_out import HeldOut
from medclipad.methods.common.auroc import auroc
from medclipad.volume.progress import Progress, no_progress

if TYPE_CHECKING:
    from medclipad.detection.detector import AnomalyDetector

RESAMPLES = 1000
CONFIDENCE = 0.95  # share of resamples in which the new detector must be worse to count as worse


class HeldOutMetrics(BaseModel):
    """Metrics of a detector on held-out slices, each in [0, 1], higher is better; None where not defined.

    Attributes
    ----------
    slice_auroc
        AUROC over all slices together.
    voxel_auroc, average_precision
        Over the voxels of the body, in slices of cases with a mask.
    dice
        Dice of the map above the detector's own threshold, over the same voxels.
    """

    slice_auroc: float | None = None
    voxel_auroc: float | None = None
    average_precision: float | None = None
    dice: float | None = None


@dataclass(frozen=True)
class HeldOutEvaluation:
    """Metrics of a detector on held-out slices, and the values that a comparison resamples.

    Attributes
    ----------
    metrics
        Metrics over all held-out slices.
    scores
        float64 (n,), anomaly scores of the analysed slices.
    truth
        bool (n,), whether each of them is abnormal.
    outlines
        float64 (m,), average precision of the map within each abnormal slice that has a mask.
    """

    metrics: HeldOutMetrics
    scores: np.ndarray
    truth: np.ndarray
    outlines: np.ndarray


def evaluate_held_out(
    detector: AnomalyDetector,
    held_out: Sequence[HeldOut],
    plane: str,
    name: str = "",
    progress: Progress = no_progress,
) -> HeldOutEvaluation:
    """Evaluate a detector on held-out slices.

    Parameters
    ----------
    detector
        Detector to evaluate.
    held_out
        Slices that it did not learn from.
    plane
        Plane to analyse.
    name
        Name of the detector, for the progress callback.
    progress
        Called with ("compare", volumes done, number of volumes, {"detector": name}).

    Raises
    ------
    TrainingError
        If no slice was held out.
    """
    scores, truth, outlines = [], [], []
    voxel_scores, voxel_truth = [], []
    for done, part in enumerate(held_out):
        progress("compare", done, len(held_out), {"detector": name})
        result = detector.detect(part.case.volume, plane=plane, slices=part.numbers)
        analysed = np.isfinite(result.slice_scores)
        scores.append(result.slice_scores[analysed])
        truth.append(part.case.known(result.slicing)[1][analysed])
        if part.case.mask is not None:
            body = result.slicing.slices(result.foreground)[analysed]
            maps = result.slicing.slices(result.anomaly_map.array)[analysed]
            lesions = result.slicing.slices(part.case.mask.array)[analysed] > 0
            voxel_scores.append(maps[body])
            voxel_truth.append(lesions[body])
            outlines += _outlines(maps, lesions, body)
    progress("compare", len(held_out), len(held_out), {"detector": name})
    if not scores:
        raise TrainingError("No slice was held out to evaluate a detector on.")
    slice_scores, slice_truth = np.concatenate(scores), np.concatenate(truth)
    metrics = HeldOutMetrics(slice_auroc=auroc(slice_scores, slice_truth))
    if voxel_scores:
        threshold = detector.info.calibration.threshold
        metrics = _with_voxel_metrics(metrics, np.concatenate(voxel_scores), np.concatenate(voxel_truth), threshold)
    return HeldOutEvaluation(metrics, slice_scores, slice_truth, np.array(outlines))


def measurably_worse(old: HeldOutEvaluation, new: HeldOutEvaluation, seed: int = 0) -> bool:
    """Return whether a new detector is measurably worse than the old one.

    It is if, in 95 % of the resamples of the held-out slices, it ranks the slices worse or outlines the lesions in them
    worse.

    Parameters
    ----------
    old, new
        Evaluations of both detectors on the same slices.
    seed
        Seed of the resamples.

    Notes
    -----
    Paired bootstraps: of the slice AUROC, resampled within each class, and of the mean average precision within
    abnormal slices.
    """
    rng = np.random.default_rng(seed)
    return _ranks_worse(old, new, rng) or _outlines_worse(old, new, rng)


def pairwise_wins(scores: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return for each pair of an abnormal and a normal slice whether the abnormal one scores higher.

    Parameters
    ----------
    scores
        Real (n,).
    truth
        bool (n,), True where abnormal.

    Returns
    -------
    numpy.ndarray
        float64 (abnormal, normal): 1 if it scores higher, 0.5 at a tie, else 0. The mean is the AUROC.

    Examples
    --------
    >>> pairwise_wins(np.array([0.9, 0.2, 0.2]), np.array([True, True, False]))
    array([[1. ],
           [0.5]])
    """
    return (1 + np.sign(scores[truth][:, None] - scores[~truth])) / 2


def _outlines(maps: np.ndarray, lesions: np.ndarray, body: np.ndarray) -> list[float]:
    """Return the average precision of the map within each slice that shows a lesion."""
    return [
        float(average_precision_score(lesion[inside], slice_map[inside]))
        for slice_map, lesion, inside in zip(maps, lesions, body, strict=True)
        if lesion[inside].any()
    ]


def _with_voxel_metrics(
    metrics: HeldOutMetrics, scores: np.ndarray, truth: np.ndarray, threshold: float
) -> HeldOutMetrics:
    """Return the metrics completed with those of voxels: scores and truth (n,)."""
    update: dict[str, float | None] = {"voxel_auroc": auroc(scores, truth)}
    if truth.any():
        above = scores > threshold
        update["dice"] = float(2 * (above & truth).sum() / (above.sum() + truth.sum()))
        update["average_precision"] = float(average_precision_score(truth, scores))
    return metrics.model_copy(update=update)


def _ranks_worse(old: HeldOutEvaluation, new: HeldOutEvaluation, rng: np.random.Generator) -> bool:
    """Return whether the slice AUROC falls in most resamples; drawn in pairs, within each class."""
    if new.metrics.slice_auroc is None or old.metrics.slice_auroc is None or len(old.scores) != len(new.scores):
        return False
    gain = pairwise_wins(new.scores, new.truth) - pairwise_wins(old.scores, old.truth)
    # How often each slice is drawn, in each resample.
    abnormal, normal = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in gain.shape)
    changes = (abnormal @ gain * normal).sum(axis=1)
    return bool((changes < 0).mean() >= CONFIDENCE)


def _outlines_worse(old: HeldOutEvaluation, new: HeldOutEvaluation, rng: np.random.Generator) -> bool:
    """Return whether the mean average precision within abnormal slices falls in most resamples, drawn in pairs."""
    if len(old.outlines) != len(new.outlines) or len(new.outlines) < 2:
        return False
    gain = new.outlines - old.outlines
    means = rng.choice(gain, (RESAMPLES, len(gain))).mean(axis=1)
    return bool((means < 0).mean() >= CONFIDENCE)
