"""Compare the old and the new detector on slices that were held out of the new one's training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel
from sklearn.metrics import average_precision_score

from medclipad.detection.calibration import THRESHOLD
from medclipad.errors import TrainingError
from medclipad.evaluation.bootstrap import MIN_PATIENTS, RESAMPLES, PatientBootstrap
from medclipad.evaluation.held_out import HeldOut
from medclipad.methods.common.auroc import auroc
from medclipad.volume.progress import Progress, no_progress

if TYPE_CHECKING:
    from medclipad.detection.detector import AnomalyDetector

CONFIDENCE = 0.95  # share of resamples in which the new detector must be worse to count as worse
MARGIN = 0.05  # of AUROC or average precision: a smaller loss would not change what a reader sees
MIN_SICK = 3  # patients with an anomaly, to show that a detector is no worse: of two, one decides
MIN_ABNORMAL = 2  # patients: a single one would be in every resample, as if the next were sure to be like it


class HeldOutMetrics(BaseModel):
    """Metrics of a detector on held-out slices, each in [0, 1], higher is better; None where not defined.

    Attributes
    ----------
    slice_auroc
        AUROC over all slices together.
    voxel_auroc, average_precision
        Over the voxels of the body, in slices of cases with a mask.
    dice
        Dice of the map above the threshold of the outline, over the same voxels.
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
    volumes
        int (n,), the held-out volume of each slice.
    outlines
        float64 (m,), average precision of the map within each abnormal slice that has a mask.
    outline_volumes
        int (m,), the held-out volume of each of them.
    """

    metrics: HeldOutMetrics
    scores: np.ndarray
    truth: np.ndarray
    volumes: np.ndarray
    outlines: np.ndarray
    outline_volumes: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """Outcome of a comparison of two detectors.

    Attributes
    ----------
    worse
        Whether the new detector is measurably worse.
    not_worse
        Whether it is shown to be no worse, by more than MARGIN; None where too few patients, or too few with an
        anomaly, are held out to show it.
    unit
        What was resampled: patients (held-out volumes), or slices where too few volumes are held out.
    units
        How many of them were held out.
    """

    worse: bool
    not_worse: bool | None
    unit: Literal["patients", "slices"]
    units: int


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
    volumes, outline_volumes = [], []
    voxel_scores, voxel_truth = [], []
    for done, part in enumerate(held_out):
        progress("compare", done, len(held_out), {"detector": name})
        result = detector.detect(part.case.volume, plane=plane, slices=part.numbers)
        analysed = np.isfinite(result.slice_scores)
        scores.append(result.slice_scores[analysed])
        truth.append(part.case.known(result.slicing)[1][analysed])
        volumes += [done] * len(scores[-1])
        if part.case.mask is not None:
            body = result.slicing.slices(result.foreground)[analysed]
            maps = result.slicing.slices(result.anomaly_map.array)[analysed]
            lesions = result.slicing.slices(part.case.mask.array)[analysed] > 0
            voxel_scores.append(maps[body])
            voxel_truth.append(lesions[body])
            outlines += _outlines(maps, lesions, body)
            outline_volumes += [done] * (len(outlines) - len(outline_volumes))
    progress("compare", len(held_out), len(held_out), {"detector": name})
    if not scores:
        raise TrainingError("No slice was held out to evaluate a detector on.")
    slice_scores, slice_truth = np.concatenate(scores), np.concatenate(truth)
    metrics = HeldOutMetrics(slice_auroc=auroc(slice_scores, slice_truth))
    if voxel_scores:
        metrics = _with_voxel_metrics(metrics, np.concatenate(voxel_scores), np.concatenate(voxel_truth))
    return HeldOutEvaluation(
        metrics,
        slice_scores,
        slice_truth,
        np.array(volumes, dtype=int),
        np.array(outlines),
        np.array(outline_volumes, dtype=int),
    )


def compare(old: HeldOutEvaluation, new: HeldOutEvaluation, seed: int = 0) -> Comparison:
    """Return whether a new detector is measurably worse than the old one, or shown to be no worse.

    It is worse if, in 95 % of the resamples, it ranks the held-out slices worse or outlines the lesions in them worse.
    It is shown to be no worse if, in 95 % of the resamples of patients, neither falls by more than MARGIN. With little
    data neither holds.

    Parameters
    ----------
    old, new
        Evaluations of both detectors on the same slices.
    seed
        Seed of the resamples.

    Notes
    -----
    Paired bootstraps, of the slice AUROC and of the mean average precision within abnormal slices. Patients are drawn,
    each with all of its slices, where at least five volumes are held out and two of them are abnormal: slices of one
    patient resemble each other, so many slices of few patients say little about the next one. Otherwise slices are
    drawn, within each class, and the outcome is less certain than it looks.
    """
    patients, sick = set(new.volumes.tolist()), set(new.volumes[new.truth].tolist())
    if len(patients) >= MIN_PATIENTS and len(sick) >= MIN_ABNORMAL:
        numbers = range(max(patients) + 1)
        drawn = PatientBootstrap(numbers, [number in sick for number in numbers], seed).weights[1:]
        abnormal, normal = drawn[:, new.volumes[new.truth]], drawn[:, new.volumes[~new.truth]]
        outlined = drawn[:, new.outline_volumes]
        unit, units = "patients", len(patients)
    else:
        rng = np.random.default_rng(seed)
        sizes = (int(new.truth.sum()), int((~new.truth).sum()), len(new.outlines))
        abnormal, normal, outlined = (_draw(rng, n) for n in sizes)
        unit, units = "slices", len(new.scores)
    changes = [_rank_changes(old, new, abnormal, normal), _outline_changes(old, new, outlined)]
    worse = any(len(change) > 0 and (change < 0).mean() >= CONFIDENCE for change in changes)
    not_worse = None
    if unit == "patients" and len(sick) >= MIN_SICK:
        kept = [not len(change) or bool((change >= -MARGIN).mean() >= CONFIDENCE) for change in changes]
        not_worse = len(changes[0]) > 0 and all(kept)  # nothing is shown if they analyse different slices
    return Comparison(worse, not_worse, unit, units)


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


def _with_voxel_metrics(metrics: HeldOutMetrics, scores: np.ndarray, truth: np.ndarray) -> HeldOutMetrics:
    """Return the metrics completed with those of voxels: scores and truth (n,)."""
    update: dict[str, float | None] = {"voxel_auroc": auroc(scores, truth)}
    if truth.any():
        above = scores > THRESHOLD
        update["dice"] = float(2 * (above & truth).sum() / (above.sum() + truth.sum()))
        update["average_precision"] = float(average_precision_score(truth, scores))
    return metrics.model_copy(update=update)


def _draw(rng: np.random.Generator, n: int) -> np.ndarray:
    """Return how often each of n items is drawn in each resample, (resamples, n)."""
    return rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) if n else np.zeros((RESAMPLES, 0), dtype=int)


def _rank_changes(
    old: HeldOutEvaluation, new: HeldOutEvaluation, abnormal: np.ndarray, normal: np.ndarray
) -> np.ndarray:
    """Return the change of the slice AUROC in each resample that defines it; (resamples, slices of a class) each."""
    if new.metrics.slice_auroc is None or old.metrics.slice_auroc is None or len(old.scores) != len(new.scores):
        return np.zeros(0)
    gain = pairwise_wins(new.scores, new.truth) - pairwise_wins(old.scores, old.truth)
    pairs = abnormal.sum(axis=1) * normal.sum(axis=1)
    return (abnormal @ gain * normal).sum(axis=1)[pairs > 0] / pairs[pairs > 0]


def _outline_changes(old: HeldOutEvaluation, new: HeldOutEvaluation, outlined: np.ndarray) -> np.ndarray:
    """Return the change of the mean average precision in each resample that defines it; (resamples, slices)."""
    if len(old.outlines) != len(new.outlines) or len(new.outlines) < 2:
        return np.zeros(0)
    slices = outlined.sum(axis=1)
    return (outlined @ (new.outlines - old.outlines))[slices > 0] / slices[slices > 0]
