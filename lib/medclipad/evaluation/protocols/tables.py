"""Benchmark figures beside the papers', as rows and as files."""

from __future__ import annotations

import csv
import io
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic_core import to_json

from medclipad.errors import TrainingError
from medclipad.evaluation.protocols.examples import save_examples
from medclipad.evaluation.protocols.run import Outcome, write_atomically
from medclipad.files import write_text
from medclipad.methods.common.benchmark import BenchmarkProtocol, BenchmarkSuite

COLUMNS = ("class", "variant", "shots", "weights", "epoch", "image_auroc", "pixel_auroc", "paper_image_auroc",
           "paper_pixel_auroc", "reference_code_image_auroc", "reference_code_pixel_auroc")  # fmt: skip


def published(suite: BenchmarkSuite, class_name: str, shots: int) -> dict[str, Any]:
    """Return the paper's and the reference code's AUROCs in 0..1, and where they stand, in JSON's types."""
    known = suite.published(class_name, shots)
    keys = ("image_auroc", "pixel_auroc")
    return {
        "source": known.source,
        "paper": dict(zip(keys, known.paper, strict=True)),
        "reference_code": dict(zip(keys, known.reference_code, strict=True)),
    }


def record(suite: BenchmarkSuite, protocol: BenchmarkProtocol, outcome: Outcome) -> dict:
    """All that is known of a run, in JSON's types."""
    settings, encoder = protocol.settings, protocol.model.encoder
    return {
        "protocol": protocol.name,
        "class": settings.class_name,
        "variant": settings.variant,
        "shots": settings.shots,
        "zero_shot": settings.shots == 0,
        "figures": outcome.figures,
        "selected": outcome.chosen,
        "leakage": [protocol.choice] * (outcome.chosen == "best-test")
        + [protocol.scale] * (protocol.scale is not None)
        + protocol.repeats,
        "deviations": protocol.deviations(trained=outcome.chosen != "checkpoint"),
        "published": published(suite, settings.class_name, settings.shots),
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


def rows(records: list[dict]) -> list[dict]:
    """A row of COLUMNS for each way of choosing the weights of each run."""
    found = []
    for one in records:
        theirs = {
            f"{who}_{key}": value for who in ("paper", "reference_code") for key, value in one["published"][who].items()
        }
        for weights, figures in one["figures"].items():
            own = {key: figures.get(key) for key in ("epoch", "image_auroc", "pixel_auroc")}
            run = {key: one[key] for key in ("class", "variant", "shots")}
            found.append({**run, "weights": weights, **own, **theirs})
    return found


def not_run(suite: BenchmarkSuite, records: list[dict]) -> list[dict]:
    """Rows of the paper's table that none of the runs fills."""
    variant, shots = (records[0][key] for key in ("variant", "shots"))
    done = {one["class"] for one in records}
    blank = {"image_auroc": None, "pixel_auroc": None}
    missing = [
        {"class": name, "variant": variant, "shots": shots, "figures": {"not run": blank},
         "published": published(suite, name, shots)}
        for name in suite.classes
        if name not in done
    ]  # fmt: skip
    return rows(missing)


def write_run(folder: Path, suite: BenchmarkSuite, protocol: BenchmarkProtocol, outcome: Outcome) -> dict:
    """Write scores.csv, examples.png and, in the reference's format, CLASS.pth; returns the run's record."""
    found = record(suite, protocol, outcome)
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
    return found


def write_results(folder: Path, records: list[dict]) -> None:
    """Write results.csv, a row for each figure, and results.json, the record or, of several classes, their list."""
    text = io.StringIO()
    table = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    table.writeheader()
    table.writerows(rows(records))
    _write(folder / "results.csv", text.getvalue())
    content = to_json(records[0] if len(records) == 1 else records, indent=1, inf_nan_mode="null")
    _write(folder / "results.json", content.decode() + "\n")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise TrainingError(f"{path} cannot be written ({error.strerror}): free space, or give another --out.") from error
