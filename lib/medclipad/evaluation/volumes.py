"""How well volume scores tell abnormal scans from normal ones, and the alarms at the detector's own p-values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medclipad.evaluation.bootstrap import Estimate, PatientBootstrap

TPR = 0.95
_NOT_ANALYSED = -1.0  # below all volume scores: of a scan that it does not analyse, the detector says nothing
RULES = {
    "volume AUROC": "normal against abnormal scans by their volume score; a scan that was not analysed counts lowest",
    "FPR at 95 % TPR": "share of the normal scans with at least the volume score that 95 % of the abnormal scans have",
    "alarm": "a p-value of at most alpha: 0.05, or the lowest that the detector's normal scans support",
}
"""What the figures rest on, in words."""


@dataclass(frozen=True)
class Alarms:
    """Alarms of the detector among scans of one kind.

    Attributes
    ----------
    scans
        Scans of the kind.
    judged
        Those that the detector gave a p-value.
    alarms
        Those whose p-value is at most alpha.
    share
        Alarms among the judged scans.
    """

    scans: int
    judged: int
    alarms: int
    share: Estimate


@dataclass(frozen=True)
class VolumeFigures:
    """How well volume scores tell abnormal scans from normal ones.

    Attributes
    ----------
    auroc
        Of the volume score; not defined without scans of both kinds.
    fpr_at_95_tpr
        Share of the normal scans with a score that 95 % of the abnormal ones reach.
    unit
        What the rates count: scans.
    alpha
        Highest p-value that is an alarm; None where no scan has one.
    normal, abnormal
        Alarms among the scans without lesion and those with one.
    """

    auroc: Estimate
    fpr_at_95_tpr: Estimate
    unit: str
    alpha: float | None
    normal: Alarms
    abnormal: Alarms


def volume_figures(
    scores: Sequence[float],
    abnormal: Sequence[bool],
    alarms: Sequence[bool | None],
    alphas: Sequence[float | None],
    bootstrap: PatientBootstrap,
) -> VolumeFigures:
    """Return how well volume scores tell abnormal scans from normal ones.

    Parameters
    ----------
    scores
        Volume score of each of n scans; nan where no slice was analysed.
    abnormal
        Whether each scan has a lesion.
    alarms
        Whether the detector's p-value is at most alpha; None where it gives none.
    alphas
        The alpha of each scan's detector; None where it gives no p-value.
    bootstrap
        Resamples of the scans by patient.
    """
    sick = np.asarray(abnormal, dtype=bool)
    known = [alpha for alpha in alphas if alpha is not None]
    auroc, fpr = _roc(np.asarray(scores, dtype=float), sick, bootstrap)
    return VolumeFigures(
        auroc=auroc,
        fpr_at_95_tpr=fpr,
        unit="scans",
        alpha=max(known, default=None),
        normal=_alarms(alarms, ~sick, bootstrap),
        abnormal=_alarms(alarms, sick, bootstrap),
    )


def _roc(scores: np.ndarray, sick: np.ndarray, bootstrap: PatientBootstrap) -> tuple[Estimate, Estimate]:
    """Return the AUROC and the false positive rate at a true positive rate of 95 %."""
    if sick.all() or not sick.any():
        return Estimate(None), Estimate(None)
    scores = np.where(np.isnan(scores), _NOT_ANALYSED, scores)
    areas, rates = weighted_roc(scores, sick, bootstrap.weights)
    rarer = min((sick, ~sick), key=bootstrap.patients)  # both kinds must suffice
    return bootstrap.estimate(areas, rarer), bootstrap.estimate(rates, rarer)


def weighted_roc(scores: np.ndarray, sick: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the AUROC and the false positive rate at a true positive rate of 95 %, (R,) each; nan without a class.

    Parameters
    ----------
    scores
        (n,), not nan.
    sick
        bool (n,), which scans are abnormal.
    weights
        (R, n), how often each scan counts.

    Notes
    -----
    They equal those of scikit-learn's roc_curve with `sample_weight`, which takes two seconds for a thousand resamples.
    """
    levels, level = np.unique(-scores, return_inverse=True)  # from the highest score down; ties are one level
    at = np.eye(len(levels))[level.ravel()]
    true, false = (np.cumsum(weights[:, kind] @ at[kind], axis=1) for kind in (sick, ~sick))
    with np.errstate(invalid="ignore"):
        tpr, fpr = (np.pad(part / part[:, -1:], ((0, 0), (1, 0))) for part in (true, false))
    areas = (np.diff(fpr, axis=1) * (tpr[:, 1:] + tpr[:, :-1]) / 2).sum(axis=1)
    rates = np.take_along_axis(fpr, (tpr >= TPR).argmax(axis=1)[:, None], axis=1)[:, 0]
    return areas, np.where(np.isnan(areas), np.nan, rates)


def _alarms(alarms: Sequence[bool | None], chosen: np.ndarray, bootstrap: PatientBootstrap) -> Alarms:
    """Return the alarms among the chosen scans."""
    judged = chosen & np.array([alarm is not None for alarm in alarms], dtype=bool)
    raised = judged & np.array([bool(alarm) for alarm in alarms], dtype=bool)
    share = bootstrap.ratio(raised, judged)
    return Alarms(int(chosen.sum()), int(judged.sum()), int(raised.sum()), bootstrap.estimate(share, judged))
