"""The page of a cohort: ranked worklist, scores against normal scans, top findings, failures. Nothing from outside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from medclipad.cohort.listing import Scan
from medclipad.cohort.outputs import map_path
from medclipad.cohort.table import TABLE, Row, ranked
from medclipad.cohort.worker import WorkerSettings
from medclipad.detection.result import DISCLAIMER, AnomalyResult
from medclipad.detection.storage import DetectorInfo
from medclipad.errors import MedCLIPADError
from medclipad.evaluation import html
from medclipad.evaluation.drawing import CURVE_COLOUR, draw_slices, image_bytes
from medclipad.evaluation.drawn_case import DrawnCase
from medclipad.export.result_files import write_text
from medclipad.volume import Slicing, read_volume

PAGE = "cohort.html"
LISTED = 500  # scans of the worklist on the page: a browser takes them at once; the table holds all
SHOWN = 12  # top findings on the contact sheet
_BINS = 25
STYLE = """<style>
.sheet { display: grid; grid-template-columns: repeat(auto-fill, minmax(250px, 1fr)); gap: 12px; }
.sheet figure { margin: 0; } .sheet figcaption { font-size: 13px; overflow-wrap: anywhere; }
td.text { text-align: left; white-space: normal; }
</style>"""


def write_page(
    scans: Sequence[Scan], rows: Sequence[Row], settings: WorkerSettings, detectors: Sequence[DetectorInfo], note: str
) -> Path:
    """Write the page of a cohort beside its table.

    Parameters
    ----------
    scans, rows
        The scans, and a row for each, in any order.
    settings
        How they were analysed.
    detectors
        What is known of the detectors.
    note
        What the ranking rests on, in a sentence.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    MedCLIPADError
        If it cannot be written.
    """
    found, failed = [row for row in ranked(rows) if row.status == "done"], [r for r in rows if r.status == "failed"]
    title = f"Cohort of {len(rows)} scans"
    facts = f"{len(found)} analysed, {len(failed)} failed. {note} {DISCLAIMER}"
    parts = [STYLE, f"<h1>{title}</h1>", f"<p>{escape(facts)}</p>"]
    if found:
        parts += [_histogram(found, detectors), _sheet(scans, found, settings), _worklist(found)]
    if failed:
        lines = [html.row([escape(row.name), escape(row.error)]) for row in sorted(failed, key=lambda row: row.name)]
        parts.append(_section("Failures", html.table(["Scan", "Why"], lines)))
    path = settings.out / PAGE
    write_text(path, html.page(title, parts))
    return path


def _histogram(rows: Sequence[Row], detectors: Sequence[DetectorInfo]) -> str:
    """Return the histogram of the volume scores, by group, beside those of the normal scans."""
    normal = [score for info in detectors for score in info.calibration.scores]
    figure = Figure(figsize=(9.6, 2.8), layout="constrained")
    axes = figure.add_subplot()
    groups = Counter(row.group for row in rows)
    scores = [[row.volume_score for row in rows if row.group == g and row.volume_score is not None] for g in groups]
    low, high = _span([*normal, *(score for part in scores for score in part)])
    edges = np.linspace(low, high, _BINS + 1).tolist()
    colours = [CURVE_COLOUR, "#35b6d0", "#d08c35", "#5a8f3d", "#7a6bb0"]
    axes.hist(
        scores,
        edges,
        stacked=True,
        color=[colours[i % len(colours)] for i in range(len(groups))],
        label=[f"{group or 'cohort'} ({count})" for group, count in groups.items()],
    )
    if normal:
        kind = f"normal scans of the detector ({len(normal)})"
        axes.hist(normal, edges, histtype="step", color="#222222", linewidth=1.4, label=kind)
    axes.set_xlabel("volume score")
    axes.set_ylabel("scans")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    picture = html.image(image_bytes(figure, "svg"), "image/svg+xml", "Histogram of volume scores")
    return _section("Scores against normal scans", picture)


def _span(values: Sequence[float]) -> tuple[float, float]:
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    return (low, high) if high > low else (low, low + 1e-3)


def _worklist(rows: Sequence[Row]) -> str:
    """Return the scans from the most anomalous down."""
    headings = ["Rank", "Scan", "Group", "Volume score", "p", "Regions", "Largest (ml)", "Finding"]
    lines = []
    for rank, row in enumerate(rows[:LISTED], start=1):
        largest = f"{row.regions[0]['volume_ml']:.1f}" if row.regions else "–"
        finding = row.verdict.removesuffix(DISCLAIMER).strip()
        who, numbers = [escape(row.name), escape(row.group)], [html.number(row.volume_score), html.number(row.p_value)]
        lines.append(html.row([str(rank), *who, *numbers, str(len(row.regions)), largest, escape(finding)]))
    rest = f"The other {len(rows) - LISTED} are in {TABLE}. " if len(rows) > LISTED else ""
    note = f'<p class="small">{rest}The limits of regions and p-values are those of the detector.</p>'
    return _section("Worklist", html.table(headings, lines) + note)


def _sheet(scans: Sequence[Scan], rows: Sequence[Row], settings: WorkerSettings) -> str:
    """Return the most anomalous slice of the scans with the highest scores."""
    by_name = {scan.name: scan for scan in scans}
    tiles = []
    for rank, row in enumerate([row for row in rows if row.volume_score is not None][:SHOWN], start=1):
        try:
            picture = _tile(by_name[row.name], row, settings)
        except MedCLIPADError as error:  # the source or the map is gone
            picture = f"<p>{escape(str(error))}</p>"
        caption = f"{rank}. {escape(row.name)} · {html.number(row.volume_score)}"
        tiles.append(f"<figure>{picture}<figcaption>{caption}</figcaption></figure>")
    note = '<p class="small">Each scan’s slice with the highest score, alone and with the map over it.</p>'
    return _section("Top findings", f'<div class="sheet">{"".join(tiles)}</div>{note}')


def _tile(scan: Scan, row: Row, settings: WorkerSettings) -> str:
    volume = scan.read(settings.reading)
    heat = read_volume(settings.out / map_path(settings.layout, scan))
    summary: dict[str, Any] = {**row.model_dump(), "complete": True}
    result = AnomalyResult.from_summary(heat, Slicing(volume, row.plane), summary)
    window = (row.window[0], row.window[1]) if row.window else None
    top = int(np.nanargmax(result.slice_scores))
    picture = draw_slices(DrawnCase(volume, result, window=window), [top])
    return html.image(image_bytes(picture, "png"), "image/png", f"{row.name}: slice {top} and its anomaly map")


def _section(heading: str, content: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n{content}\n</section>"
