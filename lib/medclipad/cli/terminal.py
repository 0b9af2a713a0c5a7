"""What the command line shows: progress bars and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from pathlib import Path

    from medclipad.detection.storage import DetectorInfo
    from medclipad.evaluation import CaseEvaluation


@contextmanager
def progress_bar(title: str = "") -> Iterator:
    """A progress callback (phase, done, total, info) that draws one bar a phase on standard error.

    A phase counts as done when the next one begins, the last when the block ends without an exception.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def finish() -> None:
            for task in bars.tasks:  # the last report of a phase need not have come
                if not task.finished:
                    bars.update(task.id, total=task.total or 1, completed=task.total or 1)
                bars.stop_task(task.id)

        def progress(phase: str, done: int, total: int, info: dict) -> None:
            if phase not in tasks:
                finish()  # of the phases before
                tasks[phase] = bars.add_task(f"{title} {phase}".strip(), total=total, note="")
            note = f"loss {info['loss']:.3f}" if "loss" in info else info.get("volume", "")
            bars.update(tasks[phase], completed=done, total=total, note=note)

        yield progress
        finish()


def metrics_table(figures: Sequence[CaseEvaluation]) -> None:
    """Print the figures of each case beside the trivial baseline's, and their means."""
    from medclipad.evaluation import mean_metrics

    table = Table(caption="map / trivial baseline (raw intensity); voxels of the body only")
    for heading in (
        "case",
        "volume score",
        "slice AUROC",
        "voxel AUROC",
        "average precision",
        "best Dice",
        "s a slice",
    ):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    rows = [
        (one.name, f"{one.volume_score:.3f}", one.metrics, one.baseline, f"{one.seconds_per_slice:.3f}")
        for one in figures
    ]
    if len(figures) > 1:
        means = (mean_metrics([one.metrics for one in figures]), mean_metrics([one.baseline for one in figures]))
        rows.append(("mean", "", *means, ""))
    for name, score, own, trivial, seconds in rows:
        cells = [
            f"{_number(getattr(own, key))} / {_number(getattr(trivial, key))}"
            for key in ("slice_auroc", "voxel_auroc", "average_precision", "best_dice")
        ]
        table.add_row(name, score, *cells, seconds)
    Console().print(table)


def models_table(detectors: Sequence[tuple[Path, DetectorInfo]]) -> None:
    """Print a line for each detector of a folder."""
    table = Table()
    for heading in ("folder", "method", "encoder", "plane", "intensity", "shots", "created"):
        table.add_column(heading)
    for path, info in detectors:
        shots = f"{info.shots} + {info.abnormal_shots}"
        created = info.created.strftime("%Y-%m-%d %H:%M")
        table.add_row(str(path), info.method, info.encoder, info.plane, info.intensity, shots, created)
    Console().print(table)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def benchmark_table(records: Sequence[dict]) -> None:
    """Print the AUROCs of benchmark runs in %, beside those of the paper and of the reference code."""
    from medclipad.evaluation.protocols.tables import NOT_AT_HAND, not_run, rows

    def cell(row: dict, who: str, known: bool = True) -> str:
        pair = [row[f"{who}image_auroc"], row[f"{who}pixel_auroc"]]
        return " / ".join("–" if one is None else f"{100 * one:.2f}" for one in pair) if known else NOT_AT_HAND

    source = records[0]["published"]["source"]
    table = Table(caption=f"AUROC in %, image / pixel; the paper's figures: {source}")
    for heading in ("class", "shots", "weights", "epoch", "ours", "paper", "reference code"):
        table.add_column(heading, justify="left" if heading in ("class", "weights") else "right")
    for row in [*rows(records), *not_run(records)]:
        known = row["paper_image_auroc"] is not None
        theirs = (cell(row, "paper_", known), cell(row, "reference_code_", known))
        epoch = "–" if row["epoch"] is None else str(row["epoch"])
        shots = str(row["shots"] or "zero-shot")
        ours = "–" if row["image_auroc"] is None else cell(row, "")
        table.add_row(row["class"], shots, row["weights"], epoch, ours, *theirs)
    Console().print(table)
