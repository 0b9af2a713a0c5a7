"""Is a new version at least as good as the one in use? Measured on patients that it did not learn from, or not at all.

A version is put to use by itself only if the measurement has the power to say so: on at least MIN_PATIENTS patients, of
which MIN_SICK show an anomaly, it must be shown to be no worse than the old one, by more than MARGIN. Otherwise the old
one stays in use, and the reader decides.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from medclipad.evaluation.bootstrap import MIN_PATIENTS

if TYPE_CHECKING:
    from medclipad.detection.cases import Case
    from medclipad.detection.detector import AnomalyDetector
    from medclipad.evaluation.comparison import Comparison, HeldOutEvaluation
    from medclipad.evaluation.held_out import HeldOut
    from medclipad.volume.progress import Progress

MAX_SHARE = 0.5  # of the labelled volumes: as TrainParams allows


def choose_held_out(
    cases: Sequence[Case], others: Sequence[Case], share: float, plane: str, learned: Collection[str]
) -> tuple[list[Case], list[HeldOut]]:
    """Choose what to learn from and what to measure on.

    Parameters
    ----------
    cases
        Labelled cases that the request names.
    others
        Labelled cases that it does not name: they are not learned from, and so all of them can be measured on.
    share
        Share of `cases` to hold out; 0 measures nothing. It is raised, up to one half, if that makes enough patients.
    plane
        Plane along which the slices are labelled.
    learned
        Names of the volumes that the old version learned from; they are held out last.

    Returns
    -------
    list of Case, list of HeldOut
        Cases to learn from, and slices to measure on.
    """
    from medclipad.evaluation.held_out import HeldOut, hold_out, thinned
    from medclipad.volume import Slicing

    if not share:
        return list(cases), []
    measured = []
    for case in sorted(others, key=lambda case: case.volume.name in learned):
        normal, abnormal = case.known(Slicing(case.volume, plane))
        measured.append(HeldOut(case, np.flatnonzero(normal | abnormal).tolist()))
    sick = [bool(part.truth(plane).any()) for part in measured]
    kinds = [bool(case.known(Slicing(case.volume, plane))[1].any()) for case in cases]
    share = _enough(share, sum(kinds), len(kinds) - sum(kinds), sum(sick), len(sick))
    kept, held_out = hold_out(cases, share, plane, learned)
    if measured and any(case.held_out for case in kept):  # a few slices of patients that are learned from prove little
        kept, held_out = list(cases), []
    return kept, thinned([*held_out, *(part for part in measured if part.numbers)])


def _enough(share: float, abnormal: int, normal: int, sick: int, measured: int) -> float:
    """Return the least share, of at most one half, that holds out enough patients; the given one if none does."""
    from medclipad.evaluation.comparison import MIN_SICK

    for raised in np.linspace(share, MAX_SHARE, 26):
        held_sick = round(raised * abnormal)
        patients = held_sick + round(raised * normal) + measured
        if held_sick + sick >= MIN_SICK and patients >= MIN_PATIENTS:
            return float(raised)
    return share


def outcome(
    new: AnomalyDetector,
    old: AnomalyDetector | None,
    held: list[HeldOut],
    job: dict[str, Any],
    select: str,
    learned: Collection[str],
    progress: Progress,
) -> dict[str, Any]:
    """Return the figures of both versions, whether the new one is to be used, and the reason in words.

    Parameters
    ----------
    new, old
        Both versions; None for an old one that does not exist or cannot be loaded.
    held
        Slices that the new version did not learn from.
    job
        The training's job, with "name" and "previous", the names of both.
    select
        "better", "always" or "never", see `TrainParams`.
    learned
        Names of the volumes that the old version learned from.
    progress
        Receives the progress.
    """
    from medclipad.evaluation.comparison import compare, evaluate_held_out

    measured = evaluate_held_out(new, held, new.info.plane, job["name"], progress) if held else None
    before = evaluate_held_out(old, held, new.info.plane, job["previous"], progress) if held and old else None
    comparison = compare(before, measured) if before is not None and measured is not None else None
    proven = comparison is not None and comparison.not_worse is True
    selected = select == "always" or (select == "better" and (proven or job["previous"] is None))
    names = [part.case.volume.name for part in held]
    patients = len(set(measured.volumes.tolist())) if measured else 0
    sick = len(set(measured.volumes[measured.truth].tolist())) if measured else 0
    return {
        "version": job["name"],
        "previous": job["previous"],
        "selected": selected,
        "compared": comparison is not None and comparison.not_worse is not None,
        "held_out": {
            "slices": len(measured.scores) if measured else 0,
            "abnormal": int(measured.truth.sum()) if measured else 0,
            "patients": patients,
            "abnormal_patients": sick,
            "images": names,
            "unit": comparison.unit if comparison else None,
            "units": comparison.units if comparison else 0,
        },
        "old": before.metrics.model_dump() if before else None,
        "new": measured.metrics.model_dump() if measured else None,
        "verdict": _verdict(job, measured, before, comparison, selected, bool({*learned} & {*names})),
    }


def _verdict(
    job: dict[str, Any],
    new: HeldOutEvaluation | None,
    old: HeldOutEvaluation | None,
    comparison: Comparison | None,
    selected: bool,
    seen: bool,
) -> str:
    """Return the outcome in words; `seen` says whether the old version learned from images that were measured on."""
    from medclipad.evaluation.comparison import MIN_SICK

    in_use = f"{job['name']} is now in use"
    if not selected:
        in_use = f"{job['previous']} stays in use" if job["previous"] else "no version is in use"
    if new is None or new.metrics.slice_auroc is None:
        found = "Not compared: no normal and abnormal slices are labelled that the new version did not learn from"
        return f"{found}; {in_use}." if job["previous"] else f"{found.replace('compared', 'measured')}; {in_use}."
    patients, sick = len(set(new.volumes.tolist())), len(set(new.volumes[new.truth].tolist()))
    result = (
        f"On {len(new.scores)} held-out slices of {_count(patients, 'patient')}, {sick} with an anomaly, "
        f"the new version has {_in_words(new)}"
    )
    if old is None or comparison is None or old.metrics.slice_auroc is None:
        return f"{result}; {in_use}."
    unfair = " (which learned from some of these images)" if seen else ""
    relation = "which is measurably worse than" if comparison.worse else "compared with"
    result = f"{result}, {relation} {_in_words(old)} of {job['previous']}{unfair}"
    if comparison.not_worse is None:
        needed = f"a comparison needs {MIN_PATIENTS} patients, {MIN_SICK} of them with an anomaly"
        return f"Not compared: {needed}. {result}; {in_use}."
    doubt = ", since this does not show that the new version is no worse" if not comparison.not_worse else ""
    return f"{result}; {in_use}{doubt if not selected and not comparison.worse else ''}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _in_words(measured: HeldOutEvaluation) -> str:
    metrics = measured.metrics
    slices = f"slice AUROC {metrics.slice_auroc:.2f}"
    if metrics.average_precision is None:
        return slices
    return f"{slices} and voxel average precision {metrics.average_precision:.2f}"
