"""How well anomaly maps find what a reader outlined, and the report that shows it.

`report` and `drawing` load matplotlib and are imported where they are used.
"""

from __future__ import annotations

from medclipad.evaluation.cases import CaseFigures, evaluate_cases, measure
from medclipad.evaluation.metrics import CaseMetrics, MeanMetrics, baseline_map, evaluate_case, mean_metrics

__all__ = [
    "CaseFigures",
    "CaseMetrics",
    "MeanMetrics",
    "baseline_map",
    "evaluate_case",
    "evaluate_cases",
    "mean_metrics",
    "measure",
]
