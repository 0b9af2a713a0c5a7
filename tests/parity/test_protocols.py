"""The benchmark protocol on the reference's own pictures as files: its figures, scores, memory and training steps."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image

from medclipad.cli import benchmark as cli_benchmark
from medclipad.encoders import load_encoder
from medclipad.methods.common.benchmark_settings import Settings
from medclipad.methods.mvfa import bmad
from medclipad.methods.mvfa.benchmark import FewShot, ZeroShot
from medclipad.methods.mvfa.reference import MVFAReference

FILE = re.compile(r"mvfa_(?:test|train)_(few|zero)_(.+?)(?:_gelu)?$")


@pytest.fixture(scope="module")
def tree(parity, tmp_path_factory) -> Path:
    """Return a BMAD tree of the raw pictures, with copies for the other classes, and the seed files."""
    raw, folder = parity("mvfa_raw_inputs"), tmp_path_factory.mktemp("bmad")
    recorded = [name for name in bmad.CLASSES if f"{name}_test_good_img" in raw]
    for name in bmad.CLASSES:
        source = name if name in recorded else recorded[0]
        for key in raw:
            match = re.fullmatch(rf"{source}_(valid|test)_(good|Ungood)_(img|mask)", key)
            if match is None or (match[2], match[3]) == ("good", "mask"):
                continue
            part = folder / f"{name}_AD" / match[1] / match[2] / {"img": "img", "mask": "anomaly_mask"}[match[3]]
            part.mkdir(parents=True)
            for picture, file in zip(raw[key], raw[f"{key}_names"], strict=True):
                Image.fromarray(picture).save(part / str(file))
        names = {letter: raw[f"{source}_valid_{kind}_img_names"] for letter, kind in (("n", "good"), ("a", "Ungood"))}
        seeds = folder / "fewshot_seed" / name
        seeds.mkdir(parents=True)
        text = "\n".join(f"{letter}-0: {' '.join(of)}" for letter, of in names.items())
        (seeds / f"{len(names['n'])}-shot.txt").write_text(text)
    return folder


def protocol(parity, toy_clip, tree, shots: str, name: str, size: int) -> FewShot | ZeroShot:
    raw = parity("mvfa_raw_inputs")
    settings = Settings(
        class_name=name,
        shots=len(raw[f"{name}_valid_good_img"]) if shots == "few" else 0,
        encoder=toy_clip("gelu"),
        image_size=size,
        epochs=1,
        learning_rate=1e-3 if shots == "few" else 1e-4,
    )
    return FewShot(tree, tree / "fewshot_seed", settings) if shots == "few" else ZeroShot(tree, settings)


def load(model, z, prefix: str) -> None:
    parts: dict[str, dict[str, torch.Tensor]] = {"seg_adapters": {}, "det_adapters": {}}
    for key, value in z.items():
        if key.startswith(prefix):
            part, _, name = key.removeprefix(prefix).partition(".")
            parts[part][name] = torch.tensor(value)
    MVFAReference().load_state(model, parts)


@pytest.mark.parity_files("mvfa_test_*_gelu")
def test_figures(parity, same, toy_clip, tree, file):
    z = parity(file)
    ours = protocol(parity, toy_clip, tree, *FILE.match(file).groups(), z["test_image"].shape[-1])
    load(ours.model, z, "adapter.")
    scores = ours.test(keep=range(len(ours.tests)))
    name = f"{file} (protocol)"
    same(name, "image_label", ours.tests.labels, z["image_label"], 0)
    expected = z["image_score"] if "image_score" in z else z["image_score_normalised"]
    same(name, "image_score", scores.images, expected, 1e-5)
    same(name, "auc_image", scores.figures.image_auroc, z["auc_image"], 1e-9)
    assert (scores.figures.pixel_auroc is None) == ("auc_pixel" not in z)
    if "auc_pixel" in z:
        same(name, "gt_mask", ours.truth, z["gt_mask"], 0)
        same(name, "auc_pixel", scores.figures.pixel_auroc, z["auc_pixel"], 1e-5)
    maps = z.get("pixel_score", z.get("pixel_score_normalised") if "gt_mask" in z else None)
    if maps is not None:
        same(name, "pixel_score", np.stack([scores.maps[n] for n in range(len(maps))]), maps, 1e-5)
    banks = [key for key in z if key.startswith("mem_")]
    for key in banks:
        own = ours.model.memory[int(key[-1])]
        same(name, key, own, torch.nn.functional.normalize(torch.tensor(z[key]), dim=-1), 1e-5)
    assert bool(banks) == (ours.settings.shots > 0)


@pytest.mark.parity_files("mvfa_augment_*")
def test_order_of_the_samples(parity, same, toy_clip, tree, file):
    z, name = parity(file), f"{file} (protocol)"
    size = z["augmented_image"].shape[-1]
    ours = protocol(parity, toy_clip, tree, "few", file.removeprefix("mvfa_augment_"), size)
    same(name, "augmented_image", ours.data.images[:, 0], z["augmented_image"], 1e-5)
    same(name, "augmented_label", ours.data.labels, z["augmented_label"], 0)
    # Ours are thresholded already; values this near to the threshold may fall on either side.
    clear = np.abs(z["augmented_mask"] - 0.5) > 1e-4
    assert np.array_equal(ours.data.masks.numpy()[clear], (z["augmented_mask"] > 0.5)[clear])
    assert ours.steps == len(z["augmented_label"])


@pytest.mark.parity_files("mvfa_train_few_*")
def test_training_steps(parity, same, toy_clip, tree, file):
    z, name = parity(file), f"{file} (protocol)"
    ours = protocol(parity, toy_clip, tree, *FILE.match(file).groups(), z["train_image"].shape[-1])
    load(ours.model, z, "init.")
    grey = ours.data.images[:, 0]
    for step, image in enumerate(z["train_image"]):
        gap = (grey - torch.tensor(image)).abs().amax(dim=(1, 2))
        item = gap.argmin()
        assert gap[item] < 1e-5, "the reference's item is one of the samples"
        loss = ours.step(item[None])
        same(name, f"loss_total {step + 1}", loss, z["loss_total"][step], 1e-5)
        weights = ours.model.state_dict()
        for key in (key for key in z if key.startswith(f"step{step + 1}.")):
            same(name, key, weights[key.partition(".")[2]], z[key], 2e-5)


@pytest.mark.long
def test_published_weights_at_full_size(parity, same, vitl_clip, recipe, class_of, tmp_path):
    """The command with --checkpoint on ViT-L-14-336 at 240 px, as for the table of the reference's README."""
    z, file = parity("mvfa_vitl_geometry"), "mvfa_vitl_geometry (protocol)"
    data, names, text = tmp_path / "data", {}, str(z["recipe"])
    encoder = vitl_clip("ViT-L-14-336", int(re.search(r"seed=(\d+)", text)[1]))
    tower = load_encoder(encoder, z["test_good_img"].shape[-1])  # kept: the command takes the same
    class_name = class_of(tower, z["text_features"])
    root, seeds = data / f"{class_name}_AD", data / "fewshot_seed" / class_name
    for part in ("valid", "test"):
        for kind in ("good", "Ungood"):
            images = z[f"{part}_{kind}_img"]
            masks = np.unpackbits(z[f"{part}_{kind}_mask"])[: images.size].reshape(images.shape) * np.uint8(255)
            for folder, arrays in (("img", images), ("anomaly_mask", masks)):
                (root / part / kind / folder).mkdir(parents=True)
                for n, array in enumerate(arrays):
                    Image.fromarray(array).save(root / part / kind / folder / f"{n}.png")
            names[part, kind] = " ".join(f"{n}.png" for n in range(len(images)))
    shots = len(z["valid_good_img"])
    seeds.mkdir(parents=True)
    (seeds / f"{shots}-shot.txt").write_text(f"a-0: {names['valid', 'Ungood']}\nn-0: {names['valid', 'good']}")
    scale, seed = re.search(r"([\d.]+)\*in_features\*\*-0\.5, (\d+)", text).groups()
    checkpoint: dict[str, dict[str, torch.Tensor]] = {}
    for part in ("seg_adapters", "det_adapters"):
        checkpoint[part] = {}
        for level in range(4):
            for name, shape in (("fc1", (768, 1024)), ("fc2", (1024, 768))):
                key = f"{level}.{name}.0.weight"
                std = float(scale) * shape[1] ** -0.5
                checkpoint[part][key] = recipe(f"adapter.{part}.{key}", shape, std, int(seed)).float()
    torch.save(checkpoint, tmp_path / f"{class_name}.pth")

    app = typer.Typer()
    app.command()(cli_benchmark.benchmark)
    arguments = {"protocol": "mvfa", "data": data, "class": class_name, "shots": shots, "encoder": encoder,
                 "checkpoint": tmp_path / f"{class_name}.pth", "out": tmp_path / "out"}  # fmt: skip
    app([text for key, value in arguments.items() for text in (f"--{key}", str(value))], standalone_mode=False)
    record = json.loads((tmp_path / "out" / "results.json").read_text())
    figures = record["figures"]["checkpoint"]
    scores = [float(row["score"]) for row in csv.DictReader((tmp_path / "out" / "scores.csv").open())]
    same(file, "image_score", scores, z["image_score"], 1e-5)
    same(file, "auc_image", figures["image_auroc"], z["auc_image"], 1e-9)
    same(file, "auc_pixel", figures["pixel_auroc"], z["auc_pixel"], 1e-5)
    assert [line.split()[0] for line in record["deviations"]] == ["encoder"], "whose weights are not OpenAI's"
