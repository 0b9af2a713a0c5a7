"""Evaluate a detector on cases with ground truth, beside a trivial baseline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medclipad.evaluation.metrics import CaseMetrics, baseline_map, compute_metrics
from medclipad.volume import Volume, require_mask

if TYPE_CHECKING:
    from medclipad.detection.detector import AnomalyDetector
    from medclipad.detection.result import AnomalyResult
    from medclipad.volume.progress import Progress


@dataclass(frozen=True)
class CaseEvaluation:
    """Evaluation of one case.

    Attributes
    ----------
    name
        Name of the volume.
    volume_score
        Anomaly score of the whole volume, in [0, 1]; nan if no slice was analysed.
    threshold
        Map value above which the detector calls a voxel abnormal.
    metrics
        Metrics of the detector's map.
    baseline
        Metrics of the raw intensity, taken as an anomaly map.
    seconds_per_slice
        Wall time of the detection for each analysed slice.
    """

    name: str
    volume_score: float
    threshold: float
    metrics: CaseMetrics
    baseline: CaseMetrics
    seconds_per_slice: float


def evaluate_cases(
    detector: AnomalyDetector, cases: Sequence[tuple[Volume, Volume]], progress: Progress
) -> list[CaseEvaluation]:
    """Run a detector on cases and evaluate its maps against the ground truth.

    Parameters
    ----------
    detector
        Detector to evaluate.
    cases
        Pairs of a volume and its truth mask, non-zero where abnormal.
    progress
        Called with ("evaluate", cases done, number of cases, {"volume": name}).

    Raises
    ------
    VolumeError
        If a truth mask is on another grid than its volume. This is checked before any detection.
    """
    for volume, truth in cases:
        require_mask(volume, truth)
    evaluations = []
    for done, (volume, truth) in enumerate(cases):
        progress("evaluate", done, len(cases), {"volume": volume.name})
        start = time.perf_counter()
        result = detector.detect(volume)
        evaluations.append(score_case(volume, truth, result, time.perf_counter() - start))
    progress("evaluate", len(cases), len(cases), {})
    return evaluations


def score_case(volume: Volume, truth: Volume, result: AnomalyResult, seconds: float) -> CaseEvaluation:
    """Evaluate a result against the ground truth.

    The map and the baseline are evaluated on the same slices and voxels: those that the detector analysed, and the
    voxels of the truth.

    Parameters
    ----------
    volume
        Volume that was analysed.
    truth
        Mask on the same grid, non-zero where abnormal.
    result
        What the detector found.
    seconds
        Wall time of the detection.
    """
    lesion = truth.array > 0
    trivial = baseline_map(volume, result.foreground)
    trivial_scores = np.where(np.isnan(result.slice_scores), np.nan, result.slicing.slices(trivial).max(axis=(1, 2)))
    region, slicing = result.foreground, result.slicing
    analysed = max(1, int(np.isfinite(result.slice_scores).sum()))
    return CaseEvaluation(
        name=volume.name,
        volume_score=result.volume_score,
        threshold=result.threshold,
        metrics=compute_metrics(result.anomaly_map.array, lesion, region, slicing, result.slice_scores),
        baseline=compute_metrics(trivial, lesion, region, slicing, trivial_scores),
        seconds_per_slice=seconds / analysed,
    )
