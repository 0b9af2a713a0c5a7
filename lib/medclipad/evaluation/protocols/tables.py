"""Benchmark figures and the papers' figures, as rows and as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from medclipad.errors import TrainingError
from medclipad.evaluation.protocols.examples import save_examples
from medclipad.evaluation.protocols.run import Outcome, write_atomically
from medclipad.files import write_text
from medclipad.methods.common.benchmark import UNKNOWN_FIGURES, BenchmarkProtocol, BenchmarkSuite, PublishedFigures

COLUMNS: tuple[str, ...] = (
    "class",
    "variant",
    "shots",
    "weights",
    "epoch",
    *(f"{who}{key}" for who in ("", "paper_", "reference_code_") for key in ("image_auroc", "pixel_auroc")),
)
"""Columns of results.csv."""


def published(known: PublishedFigures) -> dict[str, Any]:
    """Return published AUROCs, in [0, 1], in JSON's types.

    Returns
    -------
    dict
        `source`, and for `paper` and `reference_code` the figures `image_auroc` and `pixel_auroc`.
    """
    keys = ("image_auroc", "pixel_auroc")
    return {
        "source": known.source,
        "paper": dict(zip(keys, known.paper, strict=True)),
        "reference_code": dict(zip(keys, known.reference_code, strict=True)),
    }


def record(suite: BenchmarkSuite, protocol: BenchmarkProtocol, outcome: Outcome) -> dict[str, Any]:
    """Return everything that is known about a run, in JSON's types: what results.json holds.

    Parameters
    ----------
    suite
        The benchmark.
    protocol
        The experiment.
    outcome
        Its result.
    """
    settings, encoder = protocol.settings, protocol.model.encoder
    whole = not settings.ablated  # published figures are those of the whole method
    return {
        "protocol": protocol.name,
        "class": settings.class_name,
        "variant": settings.variant,
        "ablated": settings.ablated,
        "shots": settings.shots,
        "zero_shot": settings.shots == 0,
        "figures": outcome.figures,
        "selected": outcome.chosen,
        "leakage": [protocol.selection_leakage] * (outcome.chosen == "best-test")
        + [protocol.scaling_leakage] * (protocol.scaling_leakage is not None)
        + protocol.duplicates,
        "deviations": protocol.deviations(trained=outcome.chosen != "checkpoint"),
        "published": published(suite.published(settings.class_name, settings.shots) if whole else UNKNOWN_FIGURES),
        "encoder": settings.encoder_label,
        "encoder_sha256": encoder.sha256,
        "image_size": encoder.image_size,
        "epochs": settings.epochs,
        "steps_per_epoch": protocol.steps,
        "batch": protocol.batch,
        "learning_rate": settings.learning_rate,
        "seed": settings.seed,
        "test_pictures": len(protocol.tests),
        "losses": outcome.history.losses,
        "evaluations": outcome.history.evaluations,
        "examples": [protocol.tests.pictures[index].path.name for index in outcome.examples],
        "versions": {name: version(name) for name in ("medclipad", "torch", "numpy", "pillow")},
    }


def rows(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return table rows with the fields of `COLUMNS`: for each run, one row for each way of choosing the weights.

    Parameters
    ----------
    records
        What `record` returned for each run.
    """
    table = []
    for run in records:
        published_figures = {
            f"{who}_{key}": value for who in ("paper", "reference_code") for key, value in run["published"][who].items()
        }
        settings = {key: run[key] for key in ("class", "variant", "shots")}
        for weights, figures in run["figures"].items():
            own_figures = {key: figures.get(key) for key in ("epoch", "image_auroc", "pixel_auroc")}
            table.append({**settings, "weights": weights, **own_figures, **published_figures})
    return table


def not_run(suite: BenchmarkSuite, records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows of the paper's table for classes that none of the runs covers.

    Parameters
    ----------
    suite
        The benchmark.
    records
        What `record` returned for each run, at least one.
    """
    variant, shots = (records[0][key] for key in ("variant", "shots"))
    done = {run["class"] for run in records}
    no_figures = {"not run": {"image_auroc": None, "pixel_auroc": None}}
    missing = [
        {"class": name, "variant": variant, "shots": shots, "figures": no_figures,
         "published": published(suite.published(name, shots))}
        for name in suite.classes
        if name not in done
    ]  # fmt: skip
    return rows(missing)


def write_run(folder: Path, suite: BenchmarkSuite, protocol: BenchmarkProtocol, outcome: Outcome) -> dict[str, Any]:
    """Write the files of a run: scores.csv, examples.png and, in the reference's format, CLASS.pth.

    Parameters
    ----------
    folder
        Folder to write to.
    suite
        The benchmark.
    protocol
        The experiment.
    outcome
        Its result.

    Returns
    -------
    dict
        What `record` returns for the run.

    Raises
    ------
    TrainingError
        If a file cannot be written.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["file", "label", "score"])
    for picture, score in zip(protocol.tests.pictures, outcome.scores.images, strict=True):
        lines.writerow([picture.path.name, picture.label, repr(float(score))])
    _write(folder / "scores.csv", text.getvalue())
    save_examples(folder / "examples.png", protocol, outcome)
    state = protocol.checkpoint() if outcome.chosen != "checkpoint" else None
    if state is not None:
        write_atomically(state, folder / f"{protocol.settings.class_name}.pth")
    return record(suite, protocol, outcome)


def write_results(folder: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """Write results.csv, with the `rows`, and results.json, with the record or, of several classes, their list.

    Parameters
    ----------
    folder
        Folder to write to.
    records
        What `record` returned for each run.

    Raises
    ------
    TrainingError
        If a file cannot be written.
    """
    write_table(folder / "results", COLUMNS, rows(records), records[0] if len(records) == 1 else list(records))


def write_table(file: Path, columns: Sequence[str], lines: Sequence[Mapping[str, Any]], content: object) -> None:
    """Write a table as FILE.csv, and what it comes from as FILE.json.

    Parameters
    ----------
    file
        Path of the files, without suffix.
    columns
        Columns of the table.
    lines
        Its lines, by column.
    content
        Content of the JSON file.

    Raises
    ------
    TrainingError
        If a file cannot be written.
    """
    text = io.StringIO()
    table = csv.DictWriter(text, columns, lineterminator="\n")
    table.writeheader()
    table.writerows(lines)
    _write(file.with_suffix(".csv"), text.getvalue())
    _write(file.with_suffix(".json"), to_json(content, indent=1, inf_nan_mode="null").decode() + "\n")


def _write(path: Path, text: str) -> None:
    """Write a text file atomically; raise TrainingError if that fails."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written ({error.strerror}): free space, or give another --out."
        ) from error
