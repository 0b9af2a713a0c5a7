"""`medclipad benchmark --across`: trained on each class and tested on all, or each class left out in turn."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import typer
from PIL import Image

from medclipad.cli import benchmark as cli_benchmark
from medclipad.evaluation.protocols.run import STATE

FIGURES = ("image_auroc", "pixel_auroc")


@pytest.fixture(scope="module")
def benchmark():
    """Return `benchmark(*arguments)`, which runs the command in this process."""
    app = typer.Typer()
    app.command()(cli_benchmark.benchmark)
    return lambda *arguments: app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.fixture(scope="module")
def two_sets(mediclip_tree, tmp_path_factory) -> Path:
    """Return the data sets with other training pictures in one of them: they share theirs otherwise."""
    folder = Path(shutil.copytree(mediclip_tree, tmp_path_factory.mktemp("across") / "data"))
    for file in (folder / "brainmri" / "images" / "train" / "normal").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(file))[::-1]).save(file)
    return folder


def figures(cell: dict[str, str]) -> list[float | None]:
    return [float(cell[key]) if cell[key] else None for key in FIGURES]


def test_trained_on_one_and_tested_on_all(two_sets, tmp_path, tiny_clip, benchmark, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    names, out = ("brainmri", "busi"), tmp_path / "out"
    common = ("--protocol", "mediclip", "--data", two_sets, "--encoder", tiny_clip, "--image-size", 64, "--epochs", 2,
              "--shots", 4)  # fmt: skip
    classes = [argument for name in names for argument in ("--class", name)]
    benchmark(*common, *classes, "--across", "--out", out)
    lines = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    heading = next(index for index, line in enumerate(lines) if line[0] == "trained on")
    assert [line[0] for line in lines[heading : heading + 3]] == ["trained on", *names]

    cells = {
        (cell["trained_on"], cell["tested_on"]): figures(cell) for cell in csv.DictReader((out / "across.csv").open())
    }
    assert list(cells) == [(trained, tested) for trained in names for tested in names]
    runs = json.loads((out / "across.json").read_text())["runs"]
    for name, run in zip(names, runs, strict=True):
        assert cells[name, name] == [run["figures"]["best-test"][key] for key in FIGURES], (
            "the diagonal: its own test set"
        )
    assert all((pixel is None) == (tested == "brainmri") for (_, tested), (_, pixel) in cells.items()), "no masks there"
    assert cells["brainmri", "busi"] != cells["busi", "busi"]

    # The weights of one class tested on the other without training give the cell beside the diagonal.
    weights = out / "brainmri" / "brainmri.pth"
    benchmark(*common, "--class", "busi", "--checkpoint", weights, "--out", tmp_path / "again")
    again = json.loads((tmp_path / "again" / "results.json").read_text())["figures"]["checkpoint"]
    assert [again[key] for key in FIGURES] == pytest.approx(cells["brainmri", "busi"], abs=1e-9)

    # Run again, it only tests.
    times = [(out / name / STATE).stat().st_mtime_ns for name in names]
    before = (out / "across.csv").read_text()
    benchmark(*common, *classes, "--across", "--out", out)
    assert [(out / name / STATE).stat().st_mtime_ns for name in names] == times
    assert (out / "across.csv").read_text() == before


def test_each_class_left_out(bmad_tree, tmp_path, tiny_clip, benchmark, capsys):
    """Zero-shot, each class is tested on by a model that has seen the others alone: one row."""
    out, names = tmp_path / "out", ("Brain", "Chest")
    benchmark("--protocol", "mvfa", "--data", bmad_tree, "--class", "Brain", "--class", "Chest", "--zero-shot",
              "--encoder", tiny_clip, "--image-size", 64, "--epochs", 1, "--max-images", 1, "--across",
              "--out", out)  # fmt: skip
    content = json.loads((out / "across.json").read_text())
    assert [(cell["trained_on"], cell["tested_on"]) for cell in content["cells"]] == [
        ("the other classes", name) for name in names
    ]
    for cell, run in zip(content["cells"], content["runs"], strict=True):
        best = run["figures"]["best-test"]
        assert [cell[key] for key in FIGURES] == [best[key] for key in FIGURES] and run["zero_shot"]
    assert any(line.startswith("the other classes") for line in capsys.readouterr().out.splitlines())
