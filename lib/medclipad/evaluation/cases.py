"""Evaluate a detector on cases with ground truth, beside a trivial baseline."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from medclipad.detection.cases import AS_IS, Reading
from medclipad.detection.result import ALPHA
from medclipad.detection.slice_frames import smoothed_scores
from medclipad.evaluation.case_list import EvaluationCase
from medclipad.evaluation.froc import CaseRegions, match_regions
from medclipad.evaluation.metrics import CaseMetrics, baseline_map, compute_metrics
from medclipad.volume import Volume

if TYPE_CHECKING:
    from medclipad.detection.detector import AnomalyDetector
    from medclipad.detection.result import AnomalyResult
    from medclipad.detection.storage import DetectorInfo
    from medclipad.volume.progress import Progress

SCORE_SMOOTHING = 6.0  # mm, along the stack, of the baseline's slice scores: what detectors do by default


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
        Map value above which the detector outlines a voxel.
    metrics
        Metrics of the detector's map.
    baseline
        Metrics of the raw intensity, taken as an anomaly map.
    seconds_per_slice
        Wall time of the detection for each analysed slice.
    regions
        Lesions of the case, and the regions of the map that hit or miss them.
    p_value
        Of the volume score; None where the detector gives none.
    alpha
        p-value up to which the detector calls a volume unusual; None where it gives none.
    patient
        Patient whose scan it is; None if it is the only one.
    groups
        Subgroups that it belongs to, such as {"scanner": "A"}.
    """

    name: str
    volume_score: float
    threshold: float
    metrics: CaseMetrics
    baseline: CaseMetrics
    seconds_per_slice: float
    regions: CaseRegions
    p_value: float | None = None
    alpha: float | None = None
    patient: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)

    @property
    def abnormal(self) -> bool:
        """Whether the case has a lesion."""
        return bool(self.regions.lesion_ml)

    @property
    def alarm(self) -> bool | None:
        """Whether the detector calls the volume unusual; None where it gives no verdict."""
        return None if self.p_value is None or self.alpha is None else self.p_value <= self.alpha + 1e-9

    def as_dict(self) -> dict[str, Any]:
        """Return the figures of the case, for JSON."""
        top = self.regions.levels[0]
        return {
            "name": self.name,
            "patient": self.patient,
            "groups": dict(self.groups),
            "abnormal": self.abnormal,
            "volume_score": self.volume_score if np.isfinite(self.volume_score) else None,
            "p_value": self.p_value,
            "threshold": self.threshold,
            "seconds_per_slice": self.seconds_per_slice,
            "detector": self.metrics.model_dump(),
            "baseline": self.baseline.model_dump(),
            "lesions": [
                {"volume_ml": volume_ml, "diameter_mm": float(diameter), "peak": peak if np.isfinite(peak) else None}
                for volume_ml, diameter, peak in zip(
                    self.regions.lesion_ml, self.regions.diameters, top.found_peaks, strict=True
                )
            ],
            "false_regions": sorted(top.false_peaks, reverse=True),
        }


def evaluate_cases(
    detector: AnomalyDetector,
    cases: Sequence[EvaluationCase | tuple[Volume, Volume | None]],
    progress: Progress,
    reading: Reading = AS_IS,
    seen: Callable[[Volume], object] = lambda volume: None,
    force_modality: bool = False,
) -> list[CaseEvaluation]:
    """Run a detector on cases and evaluate its maps against the ground truth.

    All cases are read once before any detection, so that a mistake shows early, and again in their turn, so that one
    volume at a time is in memory.

    Parameters
    ----------
    detector
        Detector to evaluate.
    cases
        Cases, or pairs of a volume and its truth mask, non-zero where abnormal; None for a normal volume.
    progress
        Called with ("read" and "evaluate", cases done, number of cases, {"volume": name}).
    reading
        How files are read where they leave a choice.
    seen
        Called with each volume when it is first read.
    force_modality
        As in `AnomalyDetector.detect`.

    Raises
    ------
    VolumeError
        If a file cannot be read, or a truth mask is on another grid than its volume.
    """
    listed = [case if isinstance(case, EvaluationCase) else EvaluationCase(*case) for case in cases]
    for done, case in enumerate(listed):
        volume, _ = case.read(reading)
        progress("read", done + 1, len(listed), {"volume": volume.name})
        seen(volume)
    evaluations = []
    for done, case in enumerate(listed):
        volume, truth = case.read(reading)
        progress("evaluate", done, len(listed), {"volume": volume.name})
        start = time.perf_counter()
        result = detector.detect(volume, force_modality=force_modality)
        evaluation = score_case(volume, truth, result, time.perf_counter() - start)
        evaluations.append(replace(evaluation, patient=case.patient, groups=dict(case.groups)))
    progress("evaluate", len(listed), len(listed), {})
    return evaluations


def score_case(volume: Volume, truth: Volume | None, result: AnomalyResult, seconds: float) -> CaseEvaluation:
    """Evaluate a result against the ground truth.

    The map and the baseline are evaluated on the same slices and voxels: those that the detector analysed, and the
    voxels of the truth.

    Parameters
    ----------
    volume
        Volume that was analysed.
    truth
        Mask on the same grid, non-zero where abnormal; None if the volume is normal.
    result
        What the detector found.
    seconds
        Wall time of the detection.
    """
    lesion = np.zeros(volume.shape, dtype=bool) if truth is None else truth.array > 0
    trivial = baseline_map(volume, result.foreground)
    peaks = np.where(np.isnan(result.slice_scores), np.nan, result.slicing.slices(trivial).max(axis=(1, 2)))
    trivial_scores = smoothed_scores(peaks, volume.spacing[result.slicing.axis], SCORE_SMOOTHING)
    region, slicing, heat = result.foreground, result.slicing, result.anomaly_map.array
    analysed = max(1, int(np.isfinite(result.slice_scores).sum()))
    voxel_ml = abs(float(np.linalg.det(volume.affine[:3, :3]))) / 1000
    p_value, calibration = result.p_value, result.calibration
    return CaseEvaluation(
        name=volume.name,
        volume_score=result.volume_score,
        threshold=result.threshold,
        metrics=compute_metrics(heat, lesion, region, slicing, result.slice_scores),
        baseline=compute_metrics(trivial, lesion, region, slicing, trivial_scores),
        seconds_per_slice=seconds / analysed,
        regions=match_regions(heat, lesion, voxel_ml, calibration.rates().items()),
        p_value=p_value,
        alpha=None if p_value is None else max(ALPHA, calibration.lowest_p),
    )


def known_volumes(cases: Sequence[CaseEvaluation], info: DetectorInfo) -> list[str]:
    """Return the names of the cases that volumes have too which a detector learned from or was calibrated on."""
    names = {entry["volume"] for entry in info.training_slices} | {scan.name for scan in info.calibration.scans}
    return sorted({case.name for case in cases} & names)
