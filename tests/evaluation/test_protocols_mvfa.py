"""MVFA's benchmark on a miniature BMAD: orders, losses and figures against an independent computation."""

from __future__ import annotations

import csv
import json
import re

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from protocol_trees import CLASSES, MASKED, SHOTS, TESTS
from sklearn.metrics import roc_auc_score

from medclipad.cli import benchmark as cli_benchmark
from medclipad.encoders import load_encoder
from medclipad.evaluation.protocols.run import train_and_test
from medclipad.methods.base import Shots
from medclipad.methods.common.benchmark_settings import Settings
from medclipad.methods.mvfa import benchmark as mvfa
from medclipad.methods.mvfa.method import MVFA
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.prompts import CLASS_NAMES, text_features
from medclipad.methods.mvfa.training import Trainer, initialise

SIZE, SEED = 64, 3
PER_EPOCH = 2 * 11 * SHOTS


def settings(class_name: str, encoder: str = "embedded", **changed) -> Settings:
    given = {"shots": SHOTS, "image_size": SIZE, "epochs": 2, "learning_rate": 1e-3, "seed": SEED, **changed}
    return Settings(class_name=class_name, encoder=encoder, **given)


def few_shot(tree, *arguments, **changed) -> mvfa.FewShot:
    return mvfa.FewShot(tree, tree / "fewshot_seed", settings(*arguments, **changed))


def pictures(tree, class_name: str, part: str, kind: str, content: str = "img", names=None) -> np.ndarray:
    """Read without the package: RGB (n, 3, S, S) in [0, 1], or masks (n, S, S), sorted by name or in given order."""
    folder = tree / f"{class_name}_AD" / part / kind / content
    files = [folder / name for name in names] if names else sorted(folder.iterdir())
    if content == "anomaly_mask":
        return np.stack([np.asarray(Image.open(file).resize((SIZE, SIZE), Image.NEAREST)) for file in files]) > 127
    images = [Image.open(file).convert("RGB").resize((SIZE, SIZE), Image.BICUBIC) for file in files]
    return np.stack([np.asarray(image, np.float32).transpose(2, 0, 1) / 255 for image in images])


def seed_names(tree, class_name: str, letter: str) -> list[str]:
    lines = (tree / "fewshot_seed" / class_name / f"{SHOTS}-shot.txt").read_text().splitlines()
    return next(line.split()[1:] for line in lines if line.startswith(f"{letter}-0:"))


def scaled(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / (values.max() - values.min())


@pytest.fixture(scope="module")
def benchmark():
    """Return `benchmark(*arguments)`, which runs the command in this process."""
    app = typer.Typer()
    app.command()(cli_benchmark.benchmark)
    return lambda *arguments: app([str(argument) for argument in arguments], standalone_mode=False)


@pytest.mark.parametrize("class_name", ["Brain", "Chest"])
@pytest.mark.parametrize("fixture", ["embedded", "clip"])
def test_few_shot_is_the_methods_own_training(bmad_tree, tmp_path, tiny_clip, class_name, fixture):
    encoder = "embedded" if fixture == "embedded" else tiny_clip
    protocol = few_shot(bmad_tree, class_name, encoder, select="last", epochs=1)
    outcome = train_and_test(protocol, tmp_path)
    assert protocol.steps == PER_EPOCH

    names = [seed_names(bmad_tree, class_name, letter) for letter in "na"]
    normal, abnormal = (
        pictures(bmad_tree, class_name, "valid", folder, names=of)
        for folder, of in zip(("good", "Ungood"), names, strict=True)
    )
    masks = (None,) * SHOTS
    if class_name in MASKED:
        masks = tuple(pictures(bmad_tree, class_name, "valid", "Ungood", "anomaly_mask", names[1]))
    options = MVFAOptions(class_name=CLASS_NAMES[class_name], epochs=1, batch=1, max_samples=0, memory_tokens="all")
    model, losses = MVFANetwork(load_encoder(encoder, SIZE), options), []
    MVFA.fit(
        model, Shots(normal, abnormal, masks), SEED, lambda phase, done, total, info: losses.append(info.get("loss"))
    )
    losses = [loss for loss in losses if loss is not None]
    np.testing.assert_allclose(outcome.history.losses, [np.mean(losses)], rtol=1e-6)
    for ours, theirs in zip(protocol.model.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)

    # The test, computed from the method's evidence without the protocol.
    tests = np.concatenate([pictures(bmad_tree, class_name, "test", folder) for folder in ("good", "Ungood")])
    labels = [0] * TESTS + [1] * TESTS
    evidence = model.evidence(torch.from_numpy(tests))
    if class_name in MASKED:
        maps = (scaled(evidence.zero_map.numpy()) + scaled(evidence.few_map.numpy())) / 2
        truth = np.zeros(maps.shape, bool)
        truth[TESTS:] = pictures(bmad_tree, class_name, "test", "Ungood", "anomaly_mask")
        scores, pixel = maps.max(axis=(1, 2)), roc_auc_score(truth.ravel(), maps.ravel())
        assert outcome.figures["last"]["pixel_auroc"] == pytest.approx(pixel, abs=1e-9)
        for index in outcome.examples:
            np.testing.assert_allclose(outcome.scores.maps[index], maps[index], atol=1e-6)
    else:
        scores = (scaled(evidence.zero_score.numpy()) + scaled(evidence.few_score.numpy())) / 2
        assert outcome.figures["last"]["pixel_auroc"] is None
    np.testing.assert_allclose(outcome.scores.images, scores, atol=1e-6)
    assert outcome.figures["last"]["image_auroc"] == pytest.approx(roc_auc_score(labels, scores), abs=1e-9)
    assert protocol.model.memory.sizes == [11 * SHOTS * (grid**2 + (fixture == "clip")) for grid in model.encoder.grids]


def test_zero_shot_leaves_the_class_out(bmad_tree, tmp_path, tiny_clip):
    protocol = mvfa.ZeroShot(bmad_tree, settings("Brain", tiny_clip, shots=0, learning_rate=1e-4))
    assert protocol.steps == 5 * 2 * TESTS and protocol.evaluations() == {0, 8, 16, 24, 32}
    assert "Brain" not in {name for _, name in protocol.training}
    assert not any("Brain_AD" in str(picture.path) for picture, _ in protocol.training)
    order = [batch.item() for batch in protocol.batches()]
    assert sorted(order) == list(range(protocol.steps)) != order
    again = mvfa.ZeroShot(bmad_tree, settings("Brain", tiny_clip, shots=0, learning_rate=1e-4, epochs=1))
    outcome = train_and_test(again, tmp_path)

    model = MVFANetwork(load_encoder(tiny_clip, SIZE), MVFAOptions())
    initialise(model, SEED)
    model.use_class("Brain")
    trainer, losses, evaluations = Trainer(model, 1e-4), [], []
    tests = np.concatenate([pictures(bmad_tree, "Brain", "test", kind) for kind in ("good", "Ungood")])
    truth = np.zeros((2 * TESTS, SIZE, SIZE), bool)
    truth[TESTS:] = pictures(bmad_tree, "Brain", "test", "Ungood", "anomaly_mask")
    labels = [0] * TESTS + [1] * TESTS

    def evaluate() -> tuple[float, float]:
        evidence = model.evidence(torch.from_numpy(tests))
        pixel = roc_auc_score(truth.ravel(), scaled(evidence.zero_map.numpy()).ravel())
        return roc_auc_score(labels, evidence.zero_score.numpy()), pixel

    others = {name: text_features(model.encoder.text, CLASS_NAMES[name]) for name in CLASSES if name != "Brain"}
    data = [
        (name, label, image, mask)
        for name in others
        for label, kind in enumerate(("good", "Ungood"))
        for image, mask in zip(
            pictures(bmad_tree, name, "test", kind),
            pictures(bmad_tree, name, "test", kind, "anomaly_mask")
            if label and name in MASKED
            else np.zeros((TESTS, SIZE, SIZE), bool),
            strict=True,
        )
    ]
    for position, index in enumerate(order):
        if position % (len(order) // 5) == 0:
            evaluations.append(evaluate())
        name, label, image, mask = data[index]
        known = torch.tensor([name in MASKED])
        frozen, truth_ = model.frozen(torch.from_numpy(image[None])), torch.from_numpy(mask[None]).float()
        losses.append(trainer.step(frozen, torch.tensor([float(label)]), truth_, known, others[name]).total.item())
    found = [(test["image_auroc"], test["pixel_auroc"]) for test in outcome.history.evaluations]
    np.testing.assert_allclose(found, evaluations, rtol=0, atol=1e-9)
    np.testing.assert_allclose(outcome.history.losses, [np.mean(losses)], rtol=1e-6)
    last = outcome.figures["last"]
    np.testing.assert_allclose([last["image_auroc"], last["pixel_auroc"]], evaluate(), rtol=0, atol=1e-9)
    best = max(
        range(len(evaluations)), key=lambda n: (sum(evaluations[n]), n)
    )  # of equal ones the latest, as in the reference
    assert outcome.figures["best-test"] == outcome.history.evaluations[best]
    assert outcome.scores.figures == pytest.approx(evaluations[best], abs=1e-9), "the chosen weights were put back"


def test_command(bmad_tree, tmp_path, tiny_clip, benchmark, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    common = ("--protocol", "mvfa", "--data", bmad_tree, "--shots", SHOTS, "--image-size", SIZE, "--encoder", tiny_clip)
    both = ("--class", "Brain", "--class", "Chest")
    benchmark(*common, *both, "--epochs", 2, "--out", tmp_path / "out")
    output = capsys.readouterr().out
    assert "Leakage: " in output and "chosen by its AUROC on the test set" in output
    assert "epochs 2 instead of 50" in output and "image size 64 instead of 240" in output
    records = json.loads((tmp_path / "out" / "results.json").read_text())
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open()))
    assert [(row["class"], row["weights"]) for row in rows] == [
        (name, weights) for name in ("Brain", "Chest") for weights in ("best-test", "last")
    ]
    for record in records:
        folder = tmp_path / "out" / record["class"]
        lines = list(csv.DictReader((folder / "scores.csv").open()))
        auroc = roc_auc_score([int(line["label"]) for line in lines], [float(line["score"]) for line in lines])
        best, last = (record["figures"][key] for key in ("best-test", "last"))
        assert best["image_auroc"] == pytest.approx(auroc, abs=1e-9)
        merits = [test["image_auroc"] + (test["pixel_auroc"] or 0) for test in record["evaluations"]]
        assert [test["epoch"] for test in record["evaluations"]] == [1, 2] and last == record["evaluations"][-1]
        assert best == record["evaluations"][int(np.argmax(merits))]
        assert len(record["leakage"]) == 2 and len(record["losses"]) == 2 and record["steps_per_epoch"] == PER_EPOCH
        picture = Image.open(folder / "examples.png")
        assert picture.width > 800 and len(record["examples"]) == 3 + TESTS
        assert np.asarray(picture.convert("L")).std() > 20, "pictures, not an empty canvas"
    assert "not at hand" in output, "the paper has no figures for two shots"

    # The weights it saved, in the reference's format, give the figures again without training.
    weights = tmp_path / "out" / "Brain" / "Brain.pth"
    benchmark(*common, "--class", "Brain", "--checkpoint", weights, "--out", tmp_path / "again")
    again = json.loads((tmp_path / "again" / "results.json").read_text())
    for key in ("image_auroc", "pixel_auroc"):
        assert again["figures"]["checkpoint"][key] == pytest.approx(records[0]["figures"]["best-test"][key], abs=1e-9)
    assert len(again["leakage"]) == 1 and "min-max normalised" in again["leakage"][0], "that of the scores remains"
    assert again["losses"] == []


def test_papers_table(bmad_tree, tmp_path, benchmark, capsys, monkeypatch):
    """The figures of the reference code's README stand beside ours; its averages show that none is mistyped."""
    means = {4: ((88.97, 98.67), (88.95, 98.65)), 0: ((80.43, 93.39), (82.23, 92.68))}
    for shots, expected in means.items():
        published = [mvfa.MVFABenchmark().published(name, shots) for name in CLASSES]
        for who, (image_mean, pixel_mean) in zip(("paper", "reference_code"), expected, strict=True):
            image, pixel = zip(*(getattr(figures, who) for figures in published), strict=True)
            assert 100 * np.mean(image) == pytest.approx(image_mean, abs=0.006)
            assert 100 * np.mean([value for value in pixel if value]) == pytest.approx(pixel_mean, abs=0.006)
    monkeypatch.setenv("COLUMNS", "160")
    names = {letter: seed_names(bmad_tree, "Brain", letter) for letter in "na"}
    seeds = tmp_path / "seeds" / "Brain"
    seeds.mkdir(parents=True)
    (seeds / "4-shot.txt").write_text("".join(f"{letter}-0: {' '.join(of * 2)}\n" for letter, of in names.items()))
    benchmark("--protocol", "mvfa", "--data", bmad_tree, "--class", "Brain", "--encoder", "embedded", "--epochs", 1,
              "--image-size", SIZE, "--fewshot-seed", seeds.parent, "--select", "last", "--max-images", 2,
              "--out", tmp_path / "out")  # fmt: skip
    output = capsys.readouterr().out
    assert "92.44 / 97.30" in output and "92.31 / 97.30" in output and "chosen by its AUROC" not in output
    assert [re.split(r"\s{2,}", line.strip())[2] for line in output.splitlines() if "81.95 / –" in line] == ["not run"]
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    assert record["steps_per_epoch"] == 88 and record["test_pictures"] == 4 and list(record["figures"]) == ["last"]
    assert record["evaluations"] == [], "the test set is evaluated once"
    assert not (tmp_path / "out" / "Brain.pth").exists(), "the reference's format has no place for learned vectors"
