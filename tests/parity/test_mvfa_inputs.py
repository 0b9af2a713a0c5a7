"""MVFA's inputs: images, augmentation, prompts and text features."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from medclipad.encoders import load_encoder
from medclipad.methods.common.augment import augment, square
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.prompts import CLASS_NAMES, encode_prompts, prompts

NAME = re.compile(r"mvfa_test_(few|zero)_(.+)_(gelu|quickgelu)$")


@pytest.mark.parity_files("mvfa_augment_*")
def test_augmentation(parity, same, file):
    raw, z = parity("mvfa_raw_inputs"), parity(file)
    name, size = file.removeprefix("mvfa_augment_"), z["augmented_image"].shape[-1]
    images, masks, labels = [], [], []
    for kind, label in (("Ungood", 1.0), ("good", 0.0)):
        shots = torch.stack([square(image, size) for image in raw[f"{name}_valid_{kind}_img"]])
        images.append(augment(shots)[:, 0])
        masks.append(augment(torch.stack([square(mask, size, True) for mask in raw[f"{name}_valid_{kind}_mask"]])))
        labels += [label] * len(images[-1])
    same(file, "augmented_image", torch.cat(images), z["augmented_image"], 1e-5)
    same(file, "augmented_mask", torch.cat(masks), z["augmented_mask"], 1e-5)
    same(file, "augmented_label", labels, z["augmented_label"], 0)


@pytest.mark.parity_files("mvfa_test_*_gelu")
def test_test_images(parity, same, file):
    raw, z = parity("mvfa_raw_inputs"), parity(file)
    name, size = NAME.match(file)[2], z["test_image"].shape[-1]
    kinds = ("good", "Ungood")
    images = torch.stack([square(image, size)[0] for kind in kinds for image in raw[f"{name}_test_{kind}_img"]])
    labels = [label for label, kind in enumerate(kinds) for _ in raw[f"{name}_test_{kind}_img"]]
    same(file, "test_image", images, z["test_image"], 1e-6)
    same(file, "image_label", labels, z["image_label"], 0)
    if "gt_mask" in z:
        masks = [square(mask, size, True) > 0.5 for kind in kinds for mask in raw[f"{name}_test_{kind}_mask"]]
        same(file, "gt_mask", torch.stack(masks), z["gt_mask"], 0)


def test_prompts(parity, same, toy_clip):
    z = parity("mvfa_text")
    first = str(z["prompts_normal"][0])
    normal, abnormal = prompts(first.removeprefix("a bad photo of a ").removesuffix("."))
    text = load_encoder(toy_clip("gelu")).text
    for kind, texts in (("normal", normal), ("abnormal", abnormal)):
        assert texts == z[f"prompts_{kind}"].tolist()
        same("mvfa_text", f"tokens_{kind}", text.tokenize(texts), z[f"tokens_{kind}"], 0)
        same("mvfa_text", f"per_prompt_{kind}", encode_prompts(text, texts), z[f"per_prompt_{kind}"], 1e-5)


def test_text_features(parity, same, toy_clip):
    z = parity("mvfa_text")
    keys = [key for key in z if key.startswith("text_features_")]
    assert keys
    for key in keys:
        activation, name = key.removeprefix("text_features_").split("_", 1)
        model = MVFANetwork(load_encoder(toy_clip(activation)), MVFAOptions())
        model.use_class(CLASS_NAMES.get(name, name))
        same("mvfa_text", key, model.text("seg"), z[key], 1e-6)


@pytest.mark.parity_files("mvfa_augment_*")
def test_positional_embedding(parity, same, toy_clip, file):
    size, z = parity(file)["augmented_image"].shape[-1], parity("mvfa_text")
    encoder = load_encoder(toy_clip("gelu"), size)
    key = "visual_positional_embedding_resized"
    same("mvfa_text", key, encoder.state_dict()["_tower.visual.positional_embedding"], z[key], 1e-6)


def test_raw_inputs_are_all_read(parity):
    """Every picture has a name, and test pictures are sorted by it."""
    raw = parity("mvfa_raw_inputs")
    for key in raw:
        if key.endswith("_names"):
            assert len(raw[key]) == len(raw[key.removesuffix("_names")])
            if "_test_" in key:
                assert np.array_equal(raw[key], sorted(raw[key]))
