"""Data rules and tables of the accuracy benchmark, on made images."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from benchmarks import accuracy
from benchmarks.accuracy_data import ImageSet, data_sets

N = 12


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    """Make twelve normal and twelve abnormal images of noise, one twice and one also slightly brighter."""
    root, rng = tmp_path_factory.mktemp("data"), np.random.default_rng(0)
    for folder in ("no", "yes"):
        (root / "brain_mri_253" / folder).mkdir(parents=True)
        for number in range(N):
            blocks = np.kron(rng.uniform(0, 200, (8, 8)), np.ones((8, 8)))
            Image.fromarray(blocks.astype(np.uint8)).save(root / "brain_mri_253" / folder / f"{number}.png")
    first = root / "brain_mri_253" / "no" / "0.png"
    (root / "brain_mri_253" / "yes" / "copy.png").write_bytes(first.read_bytes())
    Image.fromarray(np.asarray(Image.open(first)) + 9).save(root / "brain_mri_253" / "no" / "brighter.png")
    return root


def test_duplicates_are_dropped(brain):
    image_set = dict(data_sets(brain))["brain_mri_253"]
    assert image_set.describe() == "12 normal, 12 abnormal (1 exact and 1 near duplicates dropped)"
    assert image_set.images.shape == (2 * N, 224, 224) and 0 <= image_set.images.min() <= image_set.images.max() <= 1


def test_shots_are_not_tested_and_larger_draws_include_smaller_ones(brain):
    image_set: ImageSet = dict(data_sets(brain))["brain_mri_253"]
    small, large, other = image_set.draw(2, 0), image_set.draw(4, 0), image_set.draw(2, 1)
    assert len(small.images) == 2 * (N - 2) and small.abnormal.sum() == N - 2
    tested = {image.tobytes() for image in small.images}
    shots = [image.tobytes() for image in (*small.shots.normal, *small.shots.abnormal)]
    assert len(set(shots)) == 4 and not tested & set(shots)
    assert np.array_equal(large.shots.normal[:2], small.shots.normal)
    assert not np.array_equal(other.shots.normal, small.shots.normal)


def test_figures_and_tables():
    draw = accuracy.Draw(None, None, np.array([False, True]), np.array([np.zeros((2, 2)), np.eye(2)], bool))
    maps = torch.tensor([[[0.0, 0.1], [0.2, 0.3]], [[0.9, 0.2], [0.1, 0.8]]])
    assert accuracy.figures(draw, maps.amax(dim=(1, 2)), maps) == {"image_auroc": 1, "pixel_auroc": 1, "pixel_ap": 1}
    assert accuracy.figures(draw, -maps.amax(dim=(1, 2)), None) == {"image_auroc": 0}
    runs = [
        {"data": "d", "job": job, "method": method, "k": k, "image_auroc": value}
        for job, method, k, value in (
            ("memories", "m", 4, 0.5), ("memories", "m", 4, 0.7), ("memories", "m", 8, 0.9), ("brightness", "b", 8, 0.4)
        )
    ]  # fmt: skip
    table = accuracy.tables(runs)
    assert "| m | 0.600 ± 0.100 (2) | 0.900 (1) |" in table, "one draw has no spread"
    assert table.index("| b | – | 0.400 (1) |") < table.index("| m |"), "in the order of the jobs"


def test_an_interrupted_study_continues(brain, tmp_path):
    import typer

    app, file = typer.Typer(), tmp_path / "runs.json"
    app.command()(accuracy.main)
    page = tmp_path / "page.md"
    page.write_text("above\n{}\nold\n{}\nbelow\n".format(*accuracy.MARKS))
    arguments = [str(brain), "--json", str(file), "--page", str(page), "--job", "brightness", "--shots", "2", "--seeds"]
    for seeds, new in ((1, 1), (2, 1), (2, 0)):
        result = CliRunner().invoke(app, [*arguments, str(seeds)])
        assert result.exit_code == 0, result.output
        assert result.output.count('"image_auroc"') == new and "| brightness | " in result.output
    text = page.read_text()
    assert text.startswith("above\n") and text.endswith("\nbelow\n") and "old" not in text and "± 0" in text
    assert [run["seed"] for run in json.loads(file.read_text())["runs"]] == [0, 1]
    assert CliRunner().invoke(app, [*arguments, "1", "--job", "magic"]).exit_code == 2
