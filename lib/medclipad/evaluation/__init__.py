"""Evaluate anomaly maps against ground truth, and report the metrics.

`report`, `drawing` and `froc_drawing` are not imported here, because they load matplotlib.
"""

from __future__ import annotations

from medclipad.evaluation.case_list import EvaluationCase, list_evaluation_cases
from medclipad.evaluation.cases import CaseEvaluation, evaluate_cases, score_case
from medclipad.evaluation.metrics import CaseMetrics, MeanMetrics, baseline_map, compute_metrics, mean_metrics
from medclipad.evaluation.summary import Summary, summarise, summarise_groups

__all__ = [
    "CaseEvaluation",
    "CaseMetrics",
    "EvaluationCase",
    "MeanMetrics",
    "Summary",
    "baseline_map",
    "compute_metrics",
    "evaluate_cases",
    "list_evaluation_cases",
    "mean_metrics",
    "score_case",
    "summarise",
    "summarise_groups",
]
