"""MediCLIP's benchmark on miniature data sets: pictures, training and figures against an independent computation."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from protocol_trees import TESTS
from sklearn.metrics import roc_auc_score

from medclipad.cli import benchmark as cli_benchmark
from medclipad.evaluation.protocols.run import train_and_test
from medclipad.methods.common.benchmark_settings import Settings
from medclipad.methods.mediclip import benchmark as mediclip
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mediclip.synthesis import AnomalySynthesis
from medclipad.methods.mediclip.training import new_optimiser, step

SIZE, SEED = 64, 5


def protocol(tree, class_name: str, encoder: str, **changed) -> mediclip.MediCLIPProtocol:
    given = {"shots": 4, "image_size": SIZE, "epochs": 2, "learning_rate": 1e-3, "seed": SEED, **changed}
    return mediclip.MediCLIPProtocol(tree, Settings(class_name=class_name, encoder=encoder, **given))


@pytest.mark.parametrize("fixture", ["embedded", "clip"])
@pytest.mark.parametrize("class_name", ["brainmri", "busi"])
def test_figures(mediclip_tree, tmp_path, tiny_clip, class_name, fixture):
    encoder = "embedded" if fixture == "embedded" else tiny_clip
    ours = protocol(mediclip_tree, class_name, encoder)
    assert len(ours.normal) == 4 and ours.steps == 1 and (ours.truth is not None) == (class_name == "busi")
    outcome = train_and_test(ours, tmp_path)

    # The same computed with the method's own parts; only the drawn shots come from the protocol.
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        model = MediCLIPNetwork(ours.model.encoder, MediCLIPOptions(schedule="published", memory_share=0))
    rng, synthesis, optimiser = np.random.default_rng(SEED), AnomalySynthesis(ours.normal), new_optimiser(model)
    root = mediclip_tree / class_name
    lines = [json.loads(line) for line in (root / "samples" / "test.json").read_text().splitlines()]
    images = [
        Image.open(root / "images" / line["filename"]).convert("RGB").resize((SIZE, SIZE), Image.BILINEAR)
        for line in lines
    ]
    tests = torch.from_numpy(np.stack([np.asarray(image, np.float32).transpose(2, 0, 1) / 255 for image in images]))
    labels, losses, expected = [line["label"] for line in lines], [], []
    for _ in range(2):
        pairs = [synthesis(ours.normal[index], rng) for index in rng.permutation(4)]
        batch = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        losses.append(sum(step(model, optimiser, *batch)))
        model.freeze_text_features()
        maps = model.anomaly(tests)[0].numpy()
        scores = maps.max(axis=(1, 2))
        pixel = None
        if class_name == "busi":
            masks = [
                np.asarray(Image.open(root / "images" / line["mask"]).resize((SIZE, SIZE), Image.NEAREST)) > 0
                if "mask" in line
                else np.zeros((SIZE, SIZE), bool)
                for line in lines
            ]
            pixel = pytest.approx(roc_auc_score(np.ravel(masks), maps.ravel()), abs=1e-9)
        expected.append((pytest.approx(roc_auc_score(labels, scores), abs=1e-9), pixel))
    np.testing.assert_allclose(outcome.history.losses, losses, rtol=1e-6)
    assert [(test["image_auroc"], test["pixel_auroc"]) for test in outcome.history.evaluations] == expected
    assert outcome.figures["last"] == outcome.history.evaluations[-1]
    merits = [test["image_auroc"] + (test["pixel_auroc"] or 0) for test in outcome.history.evaluations]
    assert outcome.figures["best-test"] == outcome.history.evaluations[int(np.argmax(merits))]
    if np.argmax(merits) == 1:
        np.testing.assert_allclose(outcome.scores.images, scores, atol=1e-6)


def test_pictures_are_prepared_as_in_the_reference(tmp_path):
    """Training pictures are resized, then made grey; test pictures are made RGB, then resized."""
    colours = Image.fromarray(np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8))
    grey = mediclip.training_square(colours, 48)
    expected = np.asarray(colours.resize((48, 48), Image.Resampling.BILINEAR).convert("L"))
    assert grey.dtype == np.uint8 and np.array_equal(grey, expected)
    assert not np.array_equal(grey, np.asarray(colours.convert("L").resize((48, 48), Image.Resampling.BILINEAR)))
    rgb = mediclip.test_square(colours, 48)
    expected = np.asarray(colours.resize((48, 48), Image.Resampling.BILINEAR), np.float32).transpose(2, 0, 1) / 255
    assert rgb.shape == (3, 48, 48) and np.array_equal(rgb.numpy(), expected)


def test_batches(mediclip_tree):
    """Eight pictures a step and a shorter last one, each picture once an epoch, in a new order each time."""
    ours = protocol(mediclip_tree, "brainmri", "embedded", shots=6)
    ours.normal, ours.steps = np.repeat(ours.normal, 3, axis=0), 3
    first, second = (ours.batches() for _ in range(2))
    assert [len(batch) for batch in first] == [8, 8, 2]
    assert sorted(np.concatenate(first)) == list(range(18)) == sorted(np.concatenate(second))
    assert np.concatenate(first).tolist() != np.concatenate(second).tolist()


def test_command(mediclip_tree, tmp_path, tiny_clip, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    app = typer.Typer()
    app.command()(cli_benchmark.benchmark)
    common = ["--protocol", "mediclip", "--data", str(mediclip_tree / "busi"), "--class", "busi", "--shots", "4",
              "--encoder", tiny_clip, "--image-size", str(SIZE)]  # fmt: skip
    app([*common, "--epochs", "3", "--out", str(tmp_path / "out")], standalone_mode=False)
    output = capsys.readouterr().out
    assert "Leakage: " in output and "not at hand" in output and "epochs 3 instead of 200" in output
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    lines = list(csv.DictReader((tmp_path / "out" / "scores.csv").open()))
    assert len(lines) == record["test_pictures"] == 2 * TESTS
    auroc = roc_auc_score([int(line["label"]) for line in lines], [float(line["score"]) for line in lines])
    assert record["figures"]["best-test"]["image_auroc"] == pytest.approx(auroc, abs=1e-9)
    assert record["published"]["source"] == "not at hand" and record["batch"] == 8
    assert Image.open(tmp_path / "out" / "examples.png").width > 800

    weights = str(tmp_path / "out" / "busi.pth")
    app([*common, "--checkpoint", weights, "--out", str(tmp_path / "again")], standalone_mode=False)
    again = json.loads((tmp_path / "again" / "results.json").read_text())["figures"]["checkpoint"]
    for key in ("image_auroc", "pixel_auroc"):
        assert again[key] == pytest.approx(record["figures"]["best-test"][key], abs=1e-9)
