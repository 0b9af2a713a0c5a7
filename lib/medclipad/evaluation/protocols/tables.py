"""The papers' figures, ours beside them, and both as files."""

from __future__ import annotations

import csv
import io
from importlib.metadata import version
from pathlib import Path

from medclipad.evaluation.protocols.bmad import CLASSES
from medclipad.evaluation.protocols.examples import save_examples
from medclipad.evaluation.protocols.protocol import Protocol
from medclipad.evaluation.protocols.run import Outcome, write_atomically
from medclipad.export.result_files import write_json, write_text

NOT_AT_HAND = "not at hand"
MVFA_SOURCE = "README of MediaBrain-SJTU/MVFA-AD at a30bf7b"
# (image AUROC, pixel AUROC) in %: of the paper, and of the published code and weights.
MVFA_FIGURES = {
    4: {
        "Brain": ((92.44, 97.30), (92.31, 97.30)),
        "Liver": ((81.18, 99.73), (81.18, 99.69)),
        "Retina_RESC": ((96.18, 98.97), (96.18, 98.97)),
        "Retina_OCT2017": ((99.38, None), (99.38, None)),
        "Chest": ((81.95, None), (81.95, None)),
        "Histopathology": ((82.71, None), (82.71, None)),
    },
    0: {
        "Brain": ((78.63, 90.27), (79.80, 89.68)),
        "Liver": ((76.24, 97.85), (81.18, 97.93)),
        "Retina_RESC": ((83.31, 92.05), (88.99, 90.44)),
        "Retina_OCT2017": ((95.40, None), (95.40, None)),
        "Chest": ((71.11, None), (71.11, None)),
        "Histopathology": ((77.90, None), (76.90, None)),
    },
}
"""By shots, 0 for zero-shot. Of MediCLIP no public table of figures is at hand."""
MEDICLIP_SETS = ("brainmri", "busi", "chexpert")

COLUMNS = ("class", "variant", "shots", "weights", "epoch", "image_auroc", "pixel_auroc", "paper_image_auroc",
           "paper_pixel_auroc", "reference_code_image_auroc", "reference_code_pixel_auroc")  # fmt: skip


def published(protocol: str, class_name: str, shots: int) -> dict:
    """The paper's and the reference code's AUROCs in 0..1, None where there are none, and where they stand."""
    known = MVFA_FIGURES.get(shots, {}).get(class_name) if protocol == "mvfa" else None
    pairs = known or ((None, None), (None, None))
    paper, code = (
        {key: None if value is None else value / 100 for key, value in zip(("image_auroc", "pixel_auroc"), pair,
                                                                           strict=True)}
        for pair in pairs
    )  # fmt: skip
    return {"source": MVFA_SOURCE if known else NOT_AT_HAND, "paper": paper, "reference_code": code}


def record(protocol: Protocol, outcome: Outcome) -> dict:
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
        "published": published(protocol.name, settings.class_name, settings.shots),
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
        "looks": outcome.history.looks,
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


def not_run(records: list[dict]) -> list[dict]:
    """Rows of the paper's table that none of the runs fills."""
    protocol, variant, shots = (records[0][key] for key in ("protocol", "variant", "shots"))
    done = {one["class"] for one in records}
    classes = CLASSES if protocol == "mvfa" else MEDICLIP_SETS
    blank = {"image_auroc": None, "pixel_auroc": None}
    missing = [
        {"class": name, "variant": variant, "shots": shots, "figures": {"not run": blank},
         "published": published(protocol, name, shots)}
        for name in classes
        if name not in done
    ]  # fmt: skip
    return rows(missing)


def write_run(folder: Path, protocol: Protocol, outcome: Outcome) -> dict:
    """Write scores.csv, examples.png and, in the reference's format, CLASS.pth; returns the run's record."""
    found = record(protocol, outcome)
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["file", "label", "score"])
    for picture, score in zip(protocol.tests.pictures, outcome.scores.images, strict=True):
        lines.writerow([picture.path.name, picture.label, repr(float(score))])
    write_text(folder / "scores.csv", text.getvalue())
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
    write_text(folder / "results.csv", text.getvalue())
    write_json(folder / "results.json", records[0] if len(records) == 1 else records)
