"""A detector on cases with truth: its figures beside those of the trivial baseline."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from medclipad.evaluation.metrics import CaseMetrics, baseline_map, evaluate_case
from medclipad.volume import Volume, require_mask

if TYPE_CHECKING:
    from medclipad.detection.detector import AnomalyDetector
    from medclipad.detection.result import AnomalyResult
    from medclipad.methods.base import Progress


@dataclass(frozen=True)
class CaseFigures:
    """Figures of one case; `baseline` is the raw intensity taken as an anomaly map."""

    name: str
    volume_score: float
    threshold: float
    metrics: CaseMetrics
    baseline: CaseMetrics
    seconds_per_slice: float  # wall time of detect, analysed slices only


def evaluate_cases(
    detector: AnomalyDetector, cases: Sequence[tuple[Volume, Volume]], progress: Progress
) -> list[CaseFigures]:
    """Detect on (volume, truth mask) pairs and measure; raises VolumeError if a truth is on another grid."""
    for volume, truth in cases:
        require_mask(volume, truth)
    figures = []
    for done, (volume, truth) in enumerate(cases):
        progress("evaluate", done, len(cases), {"volume": volume.name})
        start = time.perf_counter()
        result = detector.detect(volume)
        figures.append(measure(volume, truth, result, time.perf_counter() - start))
    progress("evaluate", len(cases), len(cases), {})
    return figures


def measure(volume: Volume, truth: Volume, result: AnomalyResult, seconds: float) -> CaseFigures:
    """Figures of a result that took `seconds`; slices and voxels outside the body count in neither map nor baseline."""
    lesion = truth.array > 0
    trivial = baseline_map(volume, result.foreground)
    trivial_scores = np.where(np.isnan(result.slice_scores), np.nan, result.slicing.slices(trivial).max(axis=(1, 2)))
    region, slicing = result.foreground, result.slicing
    analysed = max(1, int(np.isfinite(result.slice_scores).sum()))
    return CaseFigures(
        name=volume.name,
        volume_score=result.volume_score,
        threshold=result.threshold,
        metrics=evaluate_case(result.anomaly_map.array, lesion, region, slicing, result.slice_scores),
        baseline=evaluate_case(trivial, lesion, region, slicing, trivial_scores),
        seconds_per_slice=seconds / analysed,
    )
