"""MVFA's training steps, few- and zero-shot (train_few.py and train_zero.py of the reference)."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medclipad.encoders import load_encoder
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.prompts import CLASS_NAMES, text_features
from medclipad.methods.mvfa.reference import MVFAReference
from medclipad.methods.mvfa.training import Trainer

FEW_RATE, ZERO_RATE = 1e-3, 1e-4  # learning rates of train_few.py and train_zero.py


def start(parity, toy_clip, file: str) -> MVFANetwork:
    """Return the model with the file's initial adapters."""
    z = parity(file)
    model = MVFANetwork(load_encoder(toy_clip("gelu"), z["train_image"].shape[-1]), MVFAOptions())
    parts = {part: {} for part in MVFAReference().state(model)}
    for key, value in z.items():
        if key.startswith("init."):
            _, part, name = key.split(".", 2)
            parts[part][name] = torch.tensor(value)
    MVFAReference().load_state(model, parts)
    name = re.fullmatch(r"mvfa_train_(few|zero)_(.+)", file)[2]
    model.use_class(CLASS_NAMES.get(name, name))
    return model


def recorded(z: dict, prefix: str) -> dict:
    """Return the arrays whose name has this prefix, named without it."""
    return {key.removeprefix(prefix): value for key, value in z.items() if key.startswith(prefix)}


@pytest.mark.parity_files("mvfa_train_few_*")
def test_few_shot_steps(parity, same, same_weights, toy_clip, file):
    z, model = parity(file), start(parity, toy_clip, file)
    same(file, "text_features", model.text("det"), z["text_features"], 1e-6)
    trainer, gradients = Trainer(model, FEW_RATE), recorded(z, "grad1.")
    for optimiser in trainer.optimisers.values():
        assert optimiser.defaults["betas"] == (0.5, 0.999), "so few steps hardly depend on the second"
    masked = "train_mask" in z
    images, labels = torch.tensor(z["train_image"]), torch.tensor(z["train_label"])
    masks = torch.tensor(z["train_mask"]).float() if masked else torch.zeros_like(images)
    assert f"step{len(images)}.det_adapters.0.fc1.0.weight" in z, "the weights of the last step are recorded"
    for step in range(len(images)):
        now = slice(step, step + 1)
        with torch.no_grad():
            features = model(images[now])
            bce_input = model.image_probability(model.logits(features.det, model.text("det")))[:, 0]
            if masked and step == 0:
                maps = torch.cat(model.probabilities(model.logits(features.seg, model.text("seg"))))
                same(file, "prob_level_step1", maps, z["prob_level_step1"], 1e-5)
        same(file, "seg_tokens", torch.cat(features.seg), z["seg_tokens"][step], 1e-5)
        same(file, "det_tokens", torch.cat(features.det), z["det_tokens"][step], 1e-5)
        same(file, "bce_input", bce_input, z["bce_input"][step], 1e-5)

        losses = trainer.step(model.frozen(images[now]), labels[now], masks[now], torch.tensor([masked]))
        same(file, "loss_bce", losses.bce, z["loss_bce"][step], 1e-5)
        same(file, "loss_total", losses.total, z["loss_total"][step], 1e-5)
        if masked:
            same(file, "loss_focal", losses.focal, z["loss_focal"][step], 1e-5)
            same(file, "loss_dice", losses.dice, z["loss_dice"][step], 1e-5)
        if step == 0:
            parameters = dict(model.named_parameters())
            assert gradients.keys() >= {f"det_adapters.{level}.fc1.0.weight" for level in range(4)}
            for key, value in gradients.items():
                gradient = parameters[key].grad
                gradient = torch.zeros(value.shape) if gradient is None else gradient
                same(file, f"grad1.{key}", gradient, value, 1e-5 * max(1, np.abs(value).max()))
            assert model.det_adapters[-1].fc2[0].weight.grad is None, "nothing follows the last level's residual"
        same_weights(file, step + 1, FEW_RATE, model.state_dict(), recorded(z, f"step{step + 1}."), gradients)


@pytest.mark.parity_files("mvfa_train_zero_*")
def test_zero_shot_steps(parity, same, same_weights, toy_clip, file):
    z, model = parity(file), start(parity, toy_clip, file)
    trainer = Trainer(model, ZERO_RATE)
    texts = [text_features(model.encoder.text, name) for name in z["text_features_order"].tolist()]
    same(file, "text_features_list", torch.stack(texts), z["text_features_list"], 1e-6)
    images, masks, labels = (torch.tensor(z[key]) for key in ("train_image", "train_mask", "label"))
    test = parity(f"{file.replace('train', 'test')}_gelu")
    masked, aucs = 0, []
    assert f"step{len(images)}.det_adapters.0.fc1.0.weight" in z, "the weights of the last step are recorded"
    for step, index in enumerate(z["seg_idx"].tolist()):
        # The reference evaluates on its test set before each step (and keeps the best weights; ours does not).
        evidence = model.evidence(test["test_image"])
        aucs.append(roc_auc_score(test["image_label"], evidence.zero_score))
        if "gt_mask" in test:
            aucs.append(roc_auc_score(test["gt_mask"].ravel(), evidence.zero_map.ravel()))

        now, has_mask = slice(step, step + 1), index > 0  # classes with masks have positive numbers
        text = texts[index - 1 if has_mask else index]
        frozen = model.frozen(images[now])
        losses = trainer.step(frozen, labels[now], masks[now], torch.tensor([has_mask]), text)
        same(file, "bce", losses.bce, z["bce"][step], 1e-5)
        if has_mask:
            same(file, "focal", losses.focal, z["focal"][masked], 1e-5)
            same(file, "dice", losses.dice, z["dice"][masked], 1e-5)
            masked += 1
        same_weights(file, step + 1, ZERO_RATE, model.state_dict(), recorded(z, f"step{step + 1}."), {})
    assert masked == len(z["focal"])
    same(file, "auc_during_training", aucs, z["auc_during_training"], 1e-5)
