"""Write report.html, one self-contained file, and report.json with every number in it."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclipad.errors import MedCLIPADError
from medclipad.evaluation import html
from medclipad.evaluation.drawing import draw_scores, draw_slices, image_bytes
from medclipad.evaluation.drawn_case import DrawnCase, choose_key_slices
from medclipad.evaluation.froc_drawing import draw_froc
from medclipad.evaluation.metrics import MeanMetrics, mean_metrics
from medclipad.evaluation.summary import RULES, Summary, summarise
from medclipad.evaluation.summary_tables import counts, interval_note, summary_tables
from medclipad.files import write_text
from medclipad.volume import Volume

if TYPE_CHECKING:
    from medclipad.detection.result import AnomalyResult
    from medclipad.evaluation.cases import CaseEvaluation

HEADINGS = {
    "slice_auroc": "Slice AUROC",
    "voxel_auroc": "Voxel AUROC",
    "average_precision": "Average precision",
    "best_dice": "Best Dice",
}


@dataclass(frozen=True, eq=False)
class CaseReport:
    """One case of a report.

    Attributes
    ----------
    volume
        The image.
    result
        What the detector found in it.
    truth
        Mask on the same grid, non-zero where abnormal.
    evaluation
        Metrics of the result.
    description
        Sentence about the case.
    window
        (low, high) of the grey values, see `medclipad.evaluation.drawn_case.DrawnCase`.
    """

    volume: Volume
    result: AnomalyResult
    truth: Volume
    evaluation: CaseEvaluation
    description: str = ""
    window: tuple[float, float] | None = None

    @property
    def drawn(self) -> DrawnCase:
        """The case to draw."""
        return DrawnCase(self.volume, self.result, self.truth, self.window)


def write_report(
    folder: str | Path, cases: Sequence[CaseReport], title: str, notes: str = "", machine: str | None = None
) -> Path:
    """Write report.html and report.json into a folder.

    Parameters
    ----------
    folder
        Folder to write to; it is made if it does not exist.
    cases
        At least one case.
    title
        Heading of the page.
    notes
        Plain text below the heading; an empty line starts a new paragraph.
    machine
        Machine on which the times were measured; by default this one.

    Returns
    -------
    pathlib.Path
        Path of report.html.

    Raises
    ------
    MedCLIPADError
        If there is no case.
    """
    if not cases:
        raise MedCLIPADError("A report needs at least one case.")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    machine = this_machine() if machine is None else machine
    summary = summarise([case.evaluation for case in cases])
    numbers = {**_as_json(cases, title, notes, machine), "summary": asdict(summary), "rules": RULES}
    write_text(folder / "report.json", json.dumps(numbers, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(paragraph)}</p>" for paragraph in notes.split("\n\n") if paragraph.strip()),
        _overview(cases),
        *(_section(number, case) for number, case in enumerate(cases)),
        _findings(summary),
        f"<footer>Times were measured on {escape(machine)}.</footer>",
    ]
    write_text(folder / "report.html", html.page(title, parts))
    return folder / "report.html"


def this_machine() -> str:
    """Return the processor type, cores, system and Python version of this machine."""
    cores = f"{os.cpu_count()} cores" if os.cpu_count() != 1 else "1 core"
    return f"{platform.machine()}, {cores}, {platform.system()}, Python {platform.python_version()}"


def _as_json(cases: Sequence[CaseReport], title: str, notes: str, machine: str) -> dict[str, Any]:
    """Return the content of report.json."""
    evaluations = [case.evaluation for case in cases]
    return {
        "title": title,
        "notes": notes,
        "machine": machine,
        "mean": {
            "detector": mean_metrics([evaluation.metrics for evaluation in evaluations]).model_dump(),
            "baseline": mean_metrics([evaluation.baseline for evaluation in evaluations]).model_dump(),
            "seconds_per_slice": float(np.mean([evaluation.seconds_per_slice for evaluation in evaluations])),
        },
        "cases": [_case_as_json(case) for case in cases],
    }


def _case_as_json(case: CaseReport) -> dict[str, Any]:
    """Return what report.json says about one case."""
    evaluation = case.evaluation
    return {
        "name": evaluation.name,
        "description": case.description,
        "shape": list(case.volume.shape),
        "spacing_mm": [round(s, 6) for s in case.volume.spacing],
        "plane": case.result.slicing.plane,
        "threshold": float(case.result.threshold),
        "volume_score": _finite(evaluation.volume_score),
        "seconds_per_slice": float(evaluation.seconds_per_slice),
        "detector": evaluation.metrics.model_dump(),
        "baseline": evaluation.baseline.model_dump(),
        "slice_scores": [_finite(score) for score in case.result.slice_scores],
        "lesion_slices": np.flatnonzero(case.drawn.lesion_area).tolist(),
    }


def _overview(cases: Sequence[CaseReport]) -> str:
    """Return the table of all cases and their means."""
    rows = []
    evaluations = [case.evaluation for case in cases]
    for number, evaluation in enumerate(evaluations):
        cells = [f'<a href="#case-{number}">{escape(evaluation.name)}</a>', html.number(evaluation.volume_score)]
        pairs = _pairs(evaluation.metrics, evaluation.baseline)
        rows.append(html.row([*cells, *pairs, html.number(evaluation.seconds_per_slice)]))
    means = _pairs(
        mean_metrics([evaluation.metrics for evaluation in evaluations]),
        mean_metrics([evaluation.baseline for evaluation in evaluations]),
    )
    seconds = float(np.mean([evaluation.seconds_per_slice for evaluation in evaluations]))
    rows.append(html.row(["Mean", "", *means, html.number(seconds)], "mean"))
    return (
        html.table(["Case", "Volume score", *HEADINGS.values(), "Seconds per slice"], rows, "overview")
        + '<p class="small">The grey number beside each metric is the trivial baseline: the raw intensity of the '
        "foreground, taken as the anomaly map. Best Dice is the maximum over all thresholds, chosen with the ground "
        "truth known.</p>"
    )


def _findings(summary: Summary) -> str:
    """Return the section on lesions found and false regions over all cases."""
    figure = html.image(image_bytes(draw_froc(summary), "svg"), "image/svg+xml", "Lesions found against false regions")
    parts = []
    for table in summary_tables(summary, {}):
        rows = [html.row([escape(cell) for cell in row]) for row in table.rows]
        parts.append(html.table([escape(heading) for heading in table.headings], rows))
        parts += [f'<p class="small">{escape(note)}.</p>' for note in table.notes]
    return (
        f'<section id="findings">\n<h2>Lesions found and false regions</h2>\n<p>{escape(counts(summary))}.</p>\n'
        f'<div class="curve">{figure}</div>\n{"".join(parts)}\n<p class="small">{escape(interval_note(summary))}</p>\n'
        "</section>"
    )


def _section(number: int, case: CaseReport) -> str:
    """Return the section of one case: its slices, its curve and its table."""
    drawn, name = case.drawn, case.evaluation.name
    slices = choose_key_slices(drawn)
    montage = html.image(image_bytes(draw_slices(drawn, slices), "png"), "image/png", f"{name}: slices and anomaly map")
    curve = html.image(image_bytes(draw_scores(drawn, slices), "svg"), "image/svg+xml", f"{name}: score against slice")
    size, spacing = " × ".join(map(str, case.volume.shape)), " × ".join(f"{s:.3g}" for s in case.volume.spacing)
    description = f"{case.description.rstrip('.')}." if case.description else ""
    return f"""<section id="case-{number}">
<h2>{escape(name)}</h2>
<p>{escape(description)} <span class="small">{size} voxels of {spacing} mm, {drawn.slicing.plane} slices.</span></p>
<p class="verdict">{escape(case.result.verdict())}</p>
{montage}
<p class="small">Top: the images, with slice numbers and scores. Bottom: the anomaly map where it exceeds
{case.result.threshold:.3g}, with the ground truth outlined in cyan. 0.6: reached by 1 in 1,000 voxels of normal scans,
0.8: by 1 in 10,000.</p>
{curve}
{_case_table(case)}
</section>"""


def _case_table(case: CaseReport) -> str:
    """Return the table of one case, and a sentence on what its metrics rest on."""
    evaluation, m = case.evaluation, case.evaluation.metrics
    rows = [
        html.row([name, *(html.number(getattr(metrics, key)) for key in HEADINGS), html.number(metrics.best_threshold)])
        for name, metrics in (("Detector", m), ("Trivial baseline", evaluation.baseline))
    ]
    facts = (
        f"Volume score {html.number(evaluation.volume_score)}; {evaluation.seconds_per_slice:.3f} s per slice; "
        f"{m.n_abnormal_slices} of {m.n_slices} scored slices show a lesion; {m.n_skipped} slices were skipped, "
        f"{m.n_skipped_abnormal} of them with a lesion; {m.n_abnormal_voxels:,} of {m.n_voxels:,} voxels are in the "
        "lesion."
    )
    return html.table(["", *HEADINGS.values(), "at threshold"], rows) + f'<p class="small">{facts}</p>'


def _pairs(detector: MeanMetrics, baseline: MeanMetrics) -> list[str]:
    """Return a cell for each metric: the detector's, and beside it the baseline's."""
    return [
        f'{html.number(getattr(detector, key))} <span class="baseline">{html.number(getattr(baseline, key))}</span>'
        for key in HEADINGS
    ]


def _finite(value: float) -> float | None:
    """Return a number that JSON can hold, or None."""
    return float(value) if np.isfinite(value) else None
