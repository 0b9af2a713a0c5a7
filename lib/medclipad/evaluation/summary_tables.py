"""The figures of a summary as tables of text, for the command line and for reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

from medclipad.evaluation.bootstrap import FEW_PATIENTS, MIN_PATIENTS, Estimate
from medclipad.evaluation.summary import RULES, Summary
from medclipad.evaluation.volumes import Alarms

METRICS = {
    "slice_auroc": "slice AUROC",
    "voxel_auroc": "voxel AUROC",
    "average_precision": "average precision",
    "best_dice": "best Dice",
}


@dataclass(frozen=True)
class TextTable:
    """A table of text.

    Attributes
    ----------
    headings
        Of the columns.
    rows
        Cells of each row.
    notes
        What the figures rest on, in lines below the table.
    """

    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()


def summary_tables(summary: Summary, groups: Mapping[str, Mapping[str, Summary]]) -> list[TextTable]:
    """Return tables of the figures over all cases, then of each subgroup; those without a figure are left out.

    Parameters
    ----------
    summary
        Figures over all cases.
    groups
        Figures of each subgroup, see `summarise_groups`.
    """
    tables = [_means(summary), _froc(summary), _sizes(summary), _volumes(summary)]
    tables += [_group(column, parts) for column, parts in groups.items()]
    return [table for table in tables if table.rows]


def counts(summary: Summary) -> str:
    """Return what the figures rest on, such as "9 scans of 8 patients: 5 abnormal with 7 lesions, 4 normal"."""
    normal = summary.scans - summary.abnormal_scans
    lesions = "1 lesion" if summary.lesions == 1 else f"{summary.lesions} lesions"
    scans = "1 scan" if summary.scans == 1 else f"{summary.scans} scans"
    patients = "1 patient" if summary.patients == 1 else f"{summary.patients} patients"
    return f"{scans} of {patients}: {summary.abnormal_scans} abnormal with {lesions}, {normal} normal"


def interval_note(summary: Summary) -> str:
    """Return how the intervals are made, and a warning where they rest on few patients."""
    note = f"{RULES['intervals']}."
    few = summary.abnormal_patients or summary.patients
    kind = "patients with a lesion" if summary.abnormal_patients else "patients"
    if few < MIN_PATIENTS:
        return f"{note} Fewer than {MIN_PATIENTS} {kind}: these figures say little about the next one."
    if few < FEW_PATIENTS:
        return f"{note} Fewer than {FEW_PATIENTS} {kind}: the intervals are narrower than they should be."
    return note


def figure_text(estimate: Estimate, signed: bool = False) -> str:
    """Return a figure and its interval; a dash where it is not defined.

    Examples
    --------
    >>> figure_text(Estimate(0.8123, 0.7, 0.9)), figure_text(Estimate(-0.02), signed=True), figure_text(Estimate(None))
    ('0.812 [0.700, 0.900]', '-0.020', '–')
    """
    if estimate.value is None:
        return "–"
    sign = "+" if signed else ""
    text = f"{estimate.value:{sign}.3f}"
    return text if estimate.low is None else f"{text} [{estimate.low:{sign}.3f}, {estimate.high:{sign}.3f}]"


def _means(summary: Summary) -> TextTable:
    rows = [
        (METRICS[name], figure_text(mean.detector), figure_text(mean.baseline), figure_text(mean.difference, True))
        for name, mean in summary.means.items()
        if mean.detector.value is not None
    ]
    return TextTable(("mean over cases", "detector", "raw intensity", "difference"), rows)


def _froc(summary: Summary) -> TextTable:
    own = {point.promised: point for point in summary.promised}
    headings = ["FROC: false regions per scan", "sensitivity", "from a peak of"]
    if own:
        headings += ["at the detector's own limit: false regions per scan", "sensitivity"]
    rows = []
    for point in summary.froc:
        limit = "–" if point.limit is None else f"{point.limit:.2f}"
        row = [str(Fraction(point.false_per_scan)), figure_text(point.sensitivity), limit]
        if promised := own.get(point.false_per_scan):
            row += [figure_text(promised.false_per_scan), figure_text(promised.sensitivity)]
        rows.append(row + ["–"] * (len(headings) - len(row)))
    rows.append(["mean", figure_text(summary.froc_mean), *[""] * (len(headings) - 2)])
    return TextTable(headings, rows, [f"{name}: {RULES[name]}" for name in ("region", "hit", "sensitivity")])


def _sizes(summary: Summary) -> TextTable:
    if not summary.lesions:
        return TextTable((), ())
    rates = list(summary.sizes[0].sensitivity)
    rows = [
        (part.size, str(part.lesions), *(figure_text(part.sensitivity[rate]) for rate in rates))
        for part in summary.sizes
    ]
    headings = [f"sensitivity at {rate} false region{'s' if rate != '1' else ''} per scan" for rate in rates]
    return TextTable(("diameter of the lesion", "lesions", *headings), rows)


def _volumes(summary: Summary) -> TextTable:
    volumes = summary.volumes
    rows = []
    if volumes.auroc.value is not None:
        rows = [
            ("AUROC of the volume score", figure_text(volumes.auroc)),
            (f"FPR at 95 % TPR (share of normal {volumes.unit})", figure_text(volumes.fpr_at_95_tpr)),
        ]
    if volumes.alpha is not None:
        rows += [
            (f"{kind} scans with p ≤ {volumes.alpha:.3g}", _alarms(alarms))
            for kind, alarms in (("normal", volumes.normal), ("abnormal", volumes.abnormal))
            if alarms.scans
        ]
    return TextTable(("volume level", ""), rows)


def _group(column: str, parts: Mapping[str, Summary]) -> TextTable:
    headings = ("scans (abnormal)", "patients", "lesions", "FROC mean", "sensitivity at 1", "at 2", "volume AUROC",
                "FPR at 95 % TPR", "average precision")  # fmt: skip
    rows = [
        (
            value,
            f"{part.scans} ({part.abnormal_scans})",
            str(part.patients),
            str(part.lesions),
            figure_text(part.froc_mean),
            *(figure_text(point.sensitivity) for point in part.froc if point.false_per_scan in (1, 2)),
            figure_text(part.volumes.auroc),
            figure_text(part.volumes.fpr_at_95_tpr),
            figure_text(part.means["average_precision"].detector),
        )
        for value, part in parts.items()
    ]
    return TextTable((column, *headings), rows)


def _alarms(alarms: Alarms) -> str:
    text = f"{alarms.alarms} of {alarms.judged}"
    if alarms.judged < alarms.scans:
        text += f" judged ({alarms.scans - alarms.judged} without verdict)"
    return f"{text}: {figure_text(alarms.share)}" if alarms.judged else text
