"""Summarise the evaluation of cases: FROC, sensitivity by size, volume-level figures and means, with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from medclipad.errors import MedCLIPADError
from medclipad.evaluation import bootstrap, froc, volumes
from medclipad.evaluation.bootstrap import Estimate, PatientBootstrap
from medclipad.evaluation.froc import RATES, SIZES, Froc, size_name
from medclipad.evaluation.metrics import MeanMetrics, mean_metrics
from medclipad.evaluation.volumes import VolumeFigures, volume_figures

if TYPE_CHECKING:
    from medclipad.evaluation.cases import CaseEvaluation

RULES = {
    **froc.RULES,
    **volumes.RULES,
    "intervals": bootstrap.RULE,
    "baseline": "the raw intensity of the foreground, taken as an anomaly map",
}
"""What all figures rest on, in words."""
SIZE_RATES = (1.0, 2.0)
"""False regions per scan at which the sensitivity is given by size."""
CURVE_RATES = tuple(float(rate) for rate in np.geomspace(RATES[0], RATES[-1], 49))
"""False regions per scan at which the curve is drawn: eight to each doubling."""
GIVEN_IN_NO_CASE = "not given"
_CHUNK = 100  # resamples at a time: bounds the memory where there are thousands of lesions


@dataclass(frozen=True)
class FrocPoint:
    """Sensitivity at a rate of false regions per scan.

    Attributes
    ----------
    false_per_scan
        False regions per scan that are allowed.
    limit
        What the peak of a region reaches there; None where no limit finds a lesion.
    sensitivity
        Share of the lesions that are found.
    """

    false_per_scan: float
    limit: float | None
    sensitivity: Estimate


@dataclass(frozen=True)
class FrocCurve:
    """The curve to draw: sensitivities with their intervals at `false_per_scan`; None where not defined."""

    false_per_scan: list[float]
    sensitivity: list[float | None]
    low: list[float | None]
    high: list[float | None]


@dataclass(frozen=True)
class PromisedPoint:
    """What the detector's own limit gives, which it learned from normal scans.

    Attributes
    ----------
    promised
        False regions per normal scan that the limit stands for.
    false_per_scan
        False regions per scan that it gave in these cases.
    sensitivity
        Share of the lesions that are found.
    """

    promised: float
    false_per_scan: Estimate
    sensitivity: Estimate


@dataclass(frozen=True)
class SizeFigures:
    """Sensitivity for the lesions of a size.

    Attributes
    ----------
    size
        Name of the class, a diameter in mm.
    lesions
        Number of lesions of the class.
    sensitivity
        By the false regions per scan that are allowed, as text.
    """

    size: str
    lesions: int
    sensitivity: dict[str, Estimate]


@dataclass(frozen=True)
class ComparedMean:
    """Mean of a metric over the cases that define it: the detector's, the baseline's, and their difference."""

    detector: Estimate
    baseline: Estimate
    difference: Estimate


@dataclass(frozen=True)
class Summary:
    """Figures of an evaluation over all cases, each with a 95 % interval over patients.

    Attributes
    ----------
    scans, abnormal_scans, patients, abnormal_patients, lesions
        What the figures rest on.
    froc
        Sensitivity at each of `medclipad.evaluation.froc.RATES`.
    froc_mean
        Mean of these sensitivities.
    froc_curve
        Sensitivities to draw.
    promised
        False regions and sensitivity at the detector's own limits; empty if it was not calibrated.
    sizes
        Sensitivity by the size of the lesion.
    volumes
        Volume-level figures.
    means
        Means of the metrics of the cases, by their names.
    """

    scans: int
    abnormal_scans: int
    patients: int
    abnormal_patients: int
    lesions: int
    froc: list[FrocPoint]
    froc_mean: Estimate
    froc_curve: FrocCurve
    promised: list[PromisedPoint]
    sizes: list[SizeFigures]
    volumes: VolumeFigures
    means: dict[str, ComparedMean]


def summarise(cases: Sequence[CaseEvaluation], seed: int = 0) -> Summary:
    """Return the figures of an evaluation over all cases, with intervals over patients.

    Parameters
    ----------
    cases
        At least one case. Cases of the same `patient` are drawn together.
    seed
        Of the resamples.

    Raises
    ------
    MedCLIPADError
        If there is no case.
    """
    if not cases:
        raise MedCLIPADError("There is no case to evaluate: give at least one.")
    abnormal = np.array([case.abnormal for case in cases])
    patients = [
        ("case", number) if case.patient is None else ("patient", case.patient) for number, case in enumerate(cases)
    ]
    draws = PatientBootstrap(patients, abnormal.tolist(), seed)
    curve = Froc([case.regions for case in cases])
    rates = (*RATES, *CURVE_RATES)
    found = np.concatenate(
        [
            curve.sensitivity(part, curve.best(part, rates))
            for part in np.array_split(draws.weights, 1 + len(draws.weights) // _CHUNK)
        ]
    )
    limits = curve.best(draws.weights[:1], RATES)[0]
    at = [draws.estimate(found[:, column, -1], abnormal) for column in range(len(rates))]
    drawn = at[len(RATES) :]
    return Summary(
        scans=len(cases),
        abnormal_scans=int(abnormal.sum()),
        patients=draws.patients(),
        abnormal_patients=draws.patients(abnormal),
        lesions=int(curve.lesions.sum()),
        froc=[
            FrocPoint(rate, None if index < 0 else float(curve.limits[index]), estimate)
            for rate, index, estimate in zip(RATES, limits, at, strict=False)
        ],
        froc_mean=draws.estimate(found[:, : len(RATES), -1].mean(axis=1), abnormal),
        froc_curve=FrocCurve(
            list(CURVE_RATES), [e.value for e in drawn], [e.low for e in drawn], [e.high for e in drawn]
        ),
        promised=_promised(cases, abnormal, draws),
        sizes=_sizes(curve, found, draws),
        volumes=volume_figures(
            [case.volume_score for case in cases],
            abnormal.tolist(),
            [case.alarm for case in cases],
            [case.alpha for case in cases],
            draws,
        ),
        means=_means(cases, draws),
    )


def summarise_groups(cases: Sequence[CaseEvaluation], seed: int = 0) -> dict[str, dict[str, Summary]]:
    """Return the figures of each subgroup, by the column that tells it and the value in it.

    A column that has the same value in all cases is left out.

    Parameters
    ----------
    cases
        Cases with their `groups`.
    seed
        Of the resamples.
    """
    groups: dict[str, dict[str, Summary]] = {}
    for column in dict.fromkeys(column for case in cases for column in case.groups):
        values = [case.groups.get(column) or GIVEN_IN_NO_CASE for case in cases]
        names = sorted(set(values), key=lambda name: (name == GIVEN_IN_NO_CASE, name))
        if len(names) > 1:
            groups[column] = {
                name: summarise([case for case, value in zip(cases, values, strict=True) if value == name], seed)
                for name in names
            }
    return groups


def as_dict(
    cases: Sequence[CaseEvaluation], summary: Summary, groups: Mapping[str, Mapping[str, Summary]]
) -> dict[str, Any]:
    """Return all figures of an evaluation, for JSON.

    Parameters
    ----------
    cases
        At least one case.
    summary, groups
        Their figures, see `summarise` and `summarise_groups`.

    Returns
    -------
    dict
        "cases", a dict for each; "mean" over the cases of the detector's and of the baseline's metrics; "summary" and
        "groups"; "rules", what the figures rest on.
    """
    return {
        "cases": [case.as_dict() for case in cases],
        "mean": {
            "detector": mean_metrics([case.metrics for case in cases]).model_dump(),
            "baseline": mean_metrics([case.baseline for case in cases]).model_dump(),
        },
        "summary": asdict(summary),
        "groups": {
            column: {value: asdict(part) for value, part in values.items()} for column, values in groups.items()
        },
        "rules": RULES,
    }


def _promised(cases: Sequence[CaseEvaluation], abnormal: np.ndarray, draws: PatientBootstrap) -> list[PromisedPoint]:
    """Return what the detector's own limits give, for the rates that it has in all cases."""
    by_rate = [{point.promised: point for point in case.regions.promised} for case in cases]
    ones, lesions = np.ones(len(cases)), np.array([len(case.regions.lesion_ml) for case in cases])
    points = []
    for rate in sorted(set.intersection(*map(set, by_rate))):
        false = np.array([case[rate].false for case in by_rate])
        found = np.array([sum(case[rate].found) for case in by_rate])
        points.append(
            PromisedPoint(
                promised=rate,
                false_per_scan=draws.estimate(draws.ratio(false, ones), ends=(0, None)),
                sensitivity=draws.estimate(draws.ratio(found, lesions), abnormal),
            )
        )
    return points


def _sizes(curve: Froc, found: np.ndarray, draws: PatientBootstrap) -> list[SizeFigures]:
    """Return the sensitivity by size; `found` (R, rates, sizes + 1) begins with `RATES`."""
    return [
        SizeFigures(
            size=size_name(size),
            lesions=int(curve.lesions[:, size].sum()),
            sensitivity={
                f"{rate:g}": draws.estimate(found[:, RATES.index(rate), size], curve.lesions[:, size] > 0)
                for rate in SIZE_RATES
            },
        )
        for size in range(len(SIZES))
    ]


def _means(cases: Sequence[CaseEvaluation], draws: PatientBootstrap) -> dict[str, ComparedMean]:
    """Return the mean of each metric over the cases that define it."""
    means = {}
    for name in MeanMetrics.model_fields:
        own, trivial = (
            np.array([np.nan if (value := getattr(part, name)) is None else value for part in parts])
            for parts in ([case.metrics for case in cases], [case.baseline for case in cases])
        )
        means[name] = ComparedMean(
            detector=_mean(own, draws),
            baseline=_mean(trivial, draws),
            difference=_mean(own - trivial, draws, ends=(None, None)),
        )
    return means


def _mean(values: np.ndarray, draws: PatientBootstrap, ends: tuple[float | None, float | None] = (0, 1)) -> Estimate:
    defined = np.isfinite(values)
    return draws.estimate(draws.ratio(np.where(defined, values, 0), defined), defined, ends)
