"""What the command line shows: progress and tables."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from pathlib import Path

    from medclipad.detection.storage import DetectorInfo
    from medclipad.evaluation import CaseEvaluation
    from medclipad.evaluation.metrics import MeanMetrics
    from medclipad.evaluation.protocols.comparison import Comparison
    from medclipad.methods.common.benchmark import BenchmarkSuite
    from medclipad.volume.progress import Progress as ProgressCallback

_GAP = 2  # spaces between two columns
_QUIET = 10.0  # seconds between two lines of progress that is not on a terminal


@contextmanager
def progress_bar(title: str = "") -> Iterator[ProgressCallback]:
    """Yield a progress callback that draws on standard error: bars on a terminal, else a line now and then.

    A phase counts as done when the next one begins, the last one when the block ends without an exception.
    """
    console = Console(stderr=True)
    with _bars(console, title) if console.is_terminal else _lines(title) as progress:
        yield progress


@contextmanager
def _bars(console: Console, title: str) -> Iterator[ProgressCallback]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console) as bars:
        tasks: dict[str, Any] = {}

        def finish() -> None:
            for task in bars.tasks:  # the last report of a phase need not have come
                if not task.finished:
                    bars.update(task.id, total=task.total or 1, completed=task.total or 1)
                bars.stop_task(task.id)

        def progress(phase: str, done: int, total: int, info: dict[str, Any]) -> None:
            if phase not in tasks:
                finish()  # of the phases before
                tasks[phase] = bars.add_task(f"{title} {phase}".strip(), total=total, note="")
            bars.update(tasks[phase], completed=done, total=total, note=_note(info))

        yield progress
        finish()


@contextmanager
def _lines(title: str) -> Iterator[ProgressCallback]:
    last = ["", -_QUIET]  # phase, and when its last line was printed

    def progress(phase: str, done: int, total: int, info: dict[str, Any]) -> None:
        now = time.monotonic()
        if phase == last[0] and done < total and now - last[1] < _QUIET:
            return
        last[:] = [phase, now]
        print(" ".join(filter(None, [title, phase, f"{done}/{total}", _note(info)])), file=sys.stderr, flush=True)

    yield progress


def _note(info: dict[str, Any]) -> str:
    return f"loss {info['loss']:.3f}" if "loss" in info else str(info.get("note") or info.get("volume", ""))


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> None:
    """Print a table whose values are never cut or broken over lines.

    Where the terminal is too narrow, each row becomes a block of lines "heading: value". Piped output has no width.
    """
    console = Console()
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    if sum(widths) + _GAP * (len(widths) - 1) <= console.width or not console.is_terminal:
        for row in (headings, *rows):
            print((" " * _GAP).join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    else:
        for row in rows:
            first = next((index for index, cell in enumerate(row) if cell), 0)
            print(row[first])
            for heading, cell in list(zip(headings, row, strict=True))[first + 1 :]:
                print(f"    {heading}: {cell or '–'}")
    if caption:
        print(caption)


def print_metrics(figures: Sequence[CaseEvaluation]) -> None:
    """Print the figures of each case beside the trivial baseline's, and their means."""
    from medclipad.evaluation import mean_metrics

    headings = ("case", "volume score", "slice AUROC", "voxel AUROC", "average precision", "best Dice", "s a slice")
    rows: list[tuple[str, str, MeanMetrics, MeanMetrics, str]] = [
        (case.name, f"{case.volume_score:.3f}", case.metrics, case.baseline, f"{case.seconds_per_slice:.3f}")
        for case in figures
    ]
    if len(figures) > 1:
        means = (mean_metrics([case.metrics for case in figures]), mean_metrics([case.baseline for case in figures]))
        rows.append(("mean", "", *means, ""))
    cells = [
        (
            name,
            score,
            *(
                f"{_number(getattr(own, key))} / {_number(getattr(baseline, key))}"
                for key in ("slice_auroc", "voxel_auroc", "average_precision", "best_dice")
            ),
            seconds,
        )
        for name, score, own, baseline, seconds in rows
    ]
    print_table(headings, cells, "map / trivial baseline (raw intensity); voxels of the body only")


def print_detectors(detectors: Sequence[tuple[Path, DetectorInfo]]) -> None:
    """Print a line for each detector of a folder."""
    headings = ("folder", "method", "encoder", "planes", "intensity", "slices", "normal scans", "created")
    rows = [
        (
            str(path),
            info.method,
            info.encoder,
            info.config.planes,
            info.intensity,
            f"{info.normal_slices} + {info.abnormal_slices}",
            str(info.calibration.n),
            info.created.strftime("%Y-%m-%d %H:%M"),
        )
        for path, info in detectors
    ]
    print_table(headings, rows)


def print_benchmark(suite: BenchmarkSuite, records: Sequence[dict[str, Any]]) -> None:
    """Print the AUROCs of benchmark runs in %, beside those of the paper and of the reference code."""
    from medclipad.evaluation.protocols.tables import not_run, rows
    from medclipad.methods.common.benchmark import NOT_AT_HAND

    def cell(row: dict[str, Any], who: str, known: bool = True) -> str:
        return _aurocs(row[f"{who}image_auroc"], row[f"{who}pixel_auroc"]) if known else NOT_AT_HAND

    cells = []
    for row in [*rows(list(records)), *not_run(suite, list(records))]:
        known = row["paper_image_auroc"] is not None
        epoch = "–" if row["epoch"] is None else str(row["epoch"])
        shots = str(row["shots"] or "zero-shot")
        ours = "–" if row["image_auroc"] is None else cell(row, "")
        theirs = (cell(row, "paper_", known), cell(row, "reference_code_", known))
        cells.append((row["class"], shots, row["weights"], epoch, ours, *theirs))
    print_table(
        ("class", "shots", "weights", "epoch", "ours", "paper", "reference code"),
        cells,
        f"AUROC in %, image / pixel; the paper's figures: {records[0]['published']['source']}",
    )


def print_comparison(comparison: Comparison) -> None:
    """Print the AUROCs of runs in %, a row for each arm or class trained on, a column for each class tested on."""
    cells = []
    for row in comparison.rows:
        figures = [comparison.cells.get((row, column)) for column in comparison.columns]
        cells.append((row, *("–" if known is None else _aurocs(*known) for known in figures)))
    weights = comparison.records[0]["selected"]
    print_table(
        (comparison.row, *comparison.columns),
        cells,
        f"AUROC in %, image / pixel, of the {weights} weights; columns: {comparison.column}",
    )


def _aurocs(*values: float | None) -> str:
    return " / ".join("–" if value is None else f"{100 * value:.2f}" for value in values)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"
