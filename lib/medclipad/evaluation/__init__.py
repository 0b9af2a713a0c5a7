"""Evaluate anomaly maps against ground truth, and report the metrics.

`report` and `drawing` are not imported here, because they load matplotlib.
"""

from __future__ import annotations

from medclipad.evaluation.cases import CaseEvaluation, evaluate_cases, score_case
from medclipad.evaluation.metrics import CaseMetrics, MeanMetrics, baseline_map, compute_metrics, mean_metrics

__all__ = [
    "CaseEvaluation",
    "CaseMetrics",
    "MeanMetrics",
    "baseline_map",
    "compute_metrics",
    "evaluate_cases",
    "mean_metrics",
    "score_case",
]
