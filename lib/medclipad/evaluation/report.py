"""report.html, one file that needs nothing else and no network, and report.json, every figure in it."""

from __future__ import annotations

import base64
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from medclipad.errors import MedCLIPADError
from medclipad.evaluation.drawing import Picture, draw_scores, draw_slices, image_bytes, key_slices, save_png
from medclipad.evaluation.metrics import MeanMetrics, mean_metrics
from medclipad.files import write_text
from medclipad.volume import Volume

if TYPE_CHECKING:
    from medclipad.detection.result import AnomalyResult
    from medclipad.evaluation.cases import CaseEvaluation

__all__ = ["CaseReport", "save_png", "write_report"]

HEADINGS = {
    "slice_auroc": "Slice AUROC",
    "voxel_auroc": "Voxel AUROC",
    "average_precision": "Average precision",
    "best_dice": "Best Dice",
}
STYLE = """
body { margin: 0; background: #f6f6f4; color: #222; }
body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 32px 48px; }
h1 { font-size: 26px; margin: 8px 0 4px; }
h2 { font-size: 19px; margin: 0; }
p { margin: 6px 0; max-width: 100ch; }
section { background: #fff; border: 1px solid #e2e2de; border-radius: 8px; padding: 16px 20px; margin: 22px 0; }
img { display: block; width: 100%; height: auto; margin: 10px 0 4px; border-radius: 4px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 10px 0; }
th, td { padding: 5px 14px; text-align: right; border-bottom: 1px solid #e6e6e2; white-space: nowrap; }
th { font-size: 13px; font-weight: 600; color: #555; }
th:first-child, td:first-child { text-align: left; padding-left: 4px; }
.overview { background: #fff; border: 1px solid #e2e2de; width: 100%; }
.overview th:first-child, .overview td:first-child { padding-left: 14px; }
.mean td { font-weight: 600; border-bottom: 0; }
.baseline { color: #8d8d88; font-size: 13px; font-weight: 400; padding-left: 6px; }
.small, footer { color: #6a6a66; font-size: 13px; max-width: none; }
a { color: #8c2369; text-decoration: none; }
a:hover { text-decoration: underline; }
"""


@dataclass(frozen=True, eq=False)
class CaseReport:
    """One case of the report: what was looked at, what the detector says, the truth on the same grid, the figures.

    window: (low, high) of the grey values, see `drawing.Picture`.
    """

    volume: Volume
    result: AnomalyResult
    truth: Volume
    figures: CaseEvaluation
    description: str = ""
    window: tuple[float, float] | None = None


def write_report(
    folder: str | Path, cases: Sequence[CaseReport], title: str, notes: str = "", machine: str | None = None
) -> Path:
    """Write report.html and report.json into `folder` (made if missing); returns the path of report.html.

    notes: plain text under the title; an empty line starts a new paragraph.  machine: on what the times were measured,
    by default this machine. Raises MedCLIPADError without a case.
    """
    if not cases:
        raise MedCLIPADError("a report needs at least one case: none was given")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    machine = this_machine() if machine is None else machine
    figures = _as_json(cases, title, notes, machine)
    write_text(folder / "report.json", json.dumps(figures, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    parts = [
        f"<h1>{escape(title)}</h1>",
        *(f"<p>{escape(paragraph)}</p>" for paragraph in notes.split("\n\n") if paragraph.strip()),
        _overview(cases),
        *(_section(number, case) for number, case in enumerate(cases)),
        f"<footer>Times measured on: {escape(machine)}</footer>",
    ]
    head = f'<meta charset="utf-8"><title>{escape(title)}</title>\n<style>{STYLE}</style>'
    body = "\n".join(parts)
    page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'
    write_text(folder / "report.html", page)
    return folder / "report.html"


def this_machine() -> str:
    """Processor kind, cores, system and Python of this machine, for the foot of a report."""
    cores = f"{os.cpu_count()} cores" if os.cpu_count() != 1 else "1 core"
    return f"{platform.machine()}, {cores}, {platform.system()}, Python {platform.python_version()}"


def _as_json(cases: Sequence[CaseReport], title: str, notes: str, machine: str) -> dict[str, Any]:
    figures = [case.figures for case in cases]
    return {
        "title": title,
        "notes": notes,
        "machine": machine,
        "mean": {
            "detector": mean_metrics([one.metrics for one in figures]).model_dump(),
            "baseline": mean_metrics([one.baseline for one in figures]).model_dump(),
            "seconds_per_slice": float(np.mean([one.seconds_per_slice for one in figures])),
        },
        "cases": [_case_as_json(case) for case in cases],
    }


def _case_as_json(case: CaseReport) -> dict[str, Any]:
    return {
        "name": case.figures.name,
        "description": case.description,
        "shape": list(case.volume.shape),
        "spacing_mm": [round(s, 6) for s in case.volume.spacing],
        "plane": case.result.slicing.plane,
        "threshold": float(case.result.threshold),
        "volume_score": _finite(case.figures.volume_score),
        "seconds_per_slice": float(case.figures.seconds_per_slice),
        "detector": case.figures.metrics.model_dump(),
        "baseline": case.figures.baseline.model_dump(),
        "slice_scores": [_finite(score) for score in case.result.slice_scores],
        "lesion_slices": np.flatnonzero(Picture(case.volume, case.result, case.truth).lesion_area).tolist(),
    }


def _overview(cases: Sequence[CaseReport]) -> str:
    rows = []
    for number, case in enumerate(cases):
        one = case.figures
        cells = [f'<a href="#case-{number}">{escape(one.name)}</a>', _number(one.volume_score)]
        rows.append(_row([*cells, *_pairs(one.metrics, one.baseline), _number(one.seconds_per_slice)]))
    figures = [case.figures for case in cases]
    means = [mean_metrics([one.metrics for one in figures]), mean_metrics([one.baseline for one in figures])]
    seconds = float(np.mean([one.seconds_per_slice for one in figures]))
    rows.append(_row(["mean", "", *_pairs(*means), _number(seconds)], "mean"))
    return (
        _table(["Case", "Volume score", *HEADINGS.values(), "s a slice"], rows, "overview")
        + '<p class="small">In grey beside each figure: the trivial baseline, raw foreground intensity taken as the '
        "anomaly. Best Dice is over all thresholds, chosen knowing the truth.</p>"
    )


def _section(number: int, case: CaseReport) -> str:
    picture = Picture(case.volume, case.result, case.truth, case.window)
    slices = key_slices(picture)
    name = case.figures.name
    montage = _image(image_bytes(draw_slices(picture, slices), "png"), "image/png", f"{name}: slices and map")
    curve = _image(image_bytes(draw_scores(picture, slices), "svg"), "image/svg+xml", f"{name}: score against slice")
    size, spacing = " × ".join(map(str, case.volume.shape)), " × ".join(f"{s:.3g}" for s in case.volume.spacing)
    about = f"{case.description.rstrip('.')}." if case.description else ""
    return f"""<section id="case-{number}">
<h2>{escape(name)}</h2>
<p>{escape(about)} <span class="small">{size} voxels of {spacing} mm, {picture.slicing.plane} slices.</span></p>
{montage}
<p class="small">Above: the images, each with its slice number and score. Below: the anomaly map where it exceeds
{case.result.threshold:.3g}, the truth outlined in cyan.</p>
{curve}
{_case_table(case)}
</section>"""


def _case_table(case: CaseReport) -> str:
    one, m = case.figures, case.figures.metrics
    rows = [
        _row([name, *(_number(getattr(metrics, key)) for key in HEADINGS), _number(metrics.best_threshold)])
        for name, metrics in (("Detector", one.metrics), ("Trivial baseline", one.baseline))
    ]
    facts = (
        f"volume score {_number(one.volume_score)}; {one.seconds_per_slice:.3f} s a slice; "
        f"{m.n_abnormal_slices} of {m.n_slices} scored slices with lesion; {m.n_skipped} slices skipped, "
        f"{m.n_skipped_abnormal} of them with lesion; {m.n_abnormal_voxels:,} of {m.n_voxels:,} voxels in the lesion."
    )
    return _table(["", *HEADINGS.values(), "at threshold"], rows) + f'<p class="small">{facts}</p>'


def _table(headings: Sequence[str], rows: Sequence[str], style: str = "") -> str:
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    return f'<table class="{style}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def _row(cells: Sequence[str], style: str = "") -> str:
    return f'<tr class="{style}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _pairs(own: MeanMetrics, trivial: MeanMetrics) -> list[str]:
    return [
        f'{_number(getattr(own, key))} <span class="baseline">{_number(getattr(trivial, key))}</span>'
        for key in HEADINGS
    ]


def _image(data: bytes, kind: str, text: str) -> str:
    return f'<img alt="{escape(text)}" src="data:{kind};base64,{base64.b64encode(data).decode()}">'


def _number(value: float | None) -> str:
    return "–" if value is None or np.isnan(value) else f"{value:.3f}"


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
