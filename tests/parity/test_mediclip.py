"""MediCLIP against the reference code: prompts, maps, scores, training steps, and the real ViT-L geometry."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from medclipad.encoders import load_encoder
from medclipad.methods.common.losses import dice_loss, focal_loss
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mediclip.prompts import ABNORMAL_WORDS, N_CONTEXT, NORMAL_WORDS
from medclipad.methods.mediclip.reference import MediCLIPReference
from medclipad.methods.mediclip.training import new_optimiser, step

CHECKPOINT, TRAIN, VITL = "mediclip_test_quickgelu", "mediclip_train", "mediclip_vitl_geometry"
PUBLISHED = MediCLIPOptions(schedule="published")
LABELS = ("normal", "abnormal")


def reference_keys(model: MediCLIPNetwork, adapter: str = "", prompt: str = "") -> dict[str, str]:
    """Return the name of each trained tensor in the reference's state dicts, with prefix, by our name."""
    keys = {f"prompts.{label}_context": f"{prompt}ctx.{label}_end" for label in LABELS}
    for level in range(len(model.adapters)):
        for part in ("weight", "bias"):
            keys[f"adapters.{level}.{part}"] = f"{adapter}{level}_adapter.0.{part}"
    return keys


def load(model: MediCLIPNetwork, arrays, adapter: str, prompt: str) -> None:
    """Load weights as a checkpoint of the reference code holds them; the arrays' names have prefixes."""
    prefixes = {"adapter_state_dict": adapter, "prompt_state_dict": prompt}
    MediCLIPReference().load_state(
        model,
        {
            part: {key: torch.from_numpy(arrays[prefixes[part] + key]) for key in own}
            for part, own in MediCLIPReference().state(model).items()
        },
    )


def unit(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).float() / 255


@pytest.fixture(scope="module")
def quickgelu(parity, toy_clip) -> MediCLIPNetwork:
    """Return a model for this file; each test loads the weights that it needs."""
    size = parity(CHECKPOINT)["test_images"].shape[-1]
    return MediCLIPNetwork(load_encoder(toy_clip("quickgelu"), size, "cpu"), PUBLISHED)


@pytest.fixture
def tested(quickgelu, parity) -> MediCLIPNetwork:
    """Return the model with the weights that the reference code tested."""
    load(quickgelu, parity(CHECKPOINT), "ckpt.", "ckpt.")
    return quickgelu


def test_words_and_tokens(tested, parity, same):
    z = parity(CHECKPOINT)
    for label, words in zip(LABELS, (NORMAL_WORDS, ABNORMAL_WORDS), strict=True):
        assert list(words) == z[f"class_words_{label}"].tolist()
        same(
            CHECKPOINT,
            f"prompt_tokens_{label}",
            tested.prompts.tokens(label),
            z[f"prompt_tokens_{label}"],
            0,
        )
        ends = tested.prompts.tokens(label).argmax(dim=1)
        same(
            CHECKPOINT, f"prompt_len_{label}", ends - (N_CONTEXT + 2), z[f"prompt_len_{label}"], 0
        )  # start and full stop


def test_prompt_embeddings(tested, parity, same):
    theirs = parity(CHECKPOINT)["prompt_embeddings_abnormal_first2"]
    ours = tested.prompts.embeddings("abnormal")[: len(theirs)]
    same(CHECKPOINT, "prompt_embeddings_abnormal_first2", ours, theirs, 1e-6)


def test_text_features_have_no_causal_mask(tested, parity, same):
    z = parity(CHECKPOINT)
    key = "text_features_if_causal_mask_NOT_official"
    means = []
    with torch.no_grad():
        for label in LABELS:
            end = tested.prompts.tokens(label).argmax(dim=1)
            means.append(tested.encoder.text.encode(tested.prompts.embeddings(label), end, causal=True).mean(dim=0))
        causal = F.normalize(torch.stack(means, dim=1), dim=0)
        same(CHECKPOINT, key, causal, z[key], 1e-5)
        assert (tested.prompts() - causal).abs().max() > 0.05, "the mask makes a difference, so its absence is tested"


def test_preprocessing(tested, parity, same, monkeypatch):
    z, seen = parity(CHECKPOINT), []
    stem = tested.encoder.stem
    monkeypatch.setattr(tested.encoder, "stem", lambda images: (seen.append(images), stem(images))[1])
    tested.patch_tokens(unit(z["test_images"][:1]))
    same(CHECKPOINT, "preprocessed_first", seen[0][0], z["preprocessed_first"], 1e-6)


def test_upsampling_comes_before_the_softmax(tested, parity):
    """The recorded cosines are too similar to show the order, so the texts are the tokens of two unlike patches."""
    tokens = tested.patch_tokens(unit(parity(CHECKPOINT)["test_images"]))
    with torch.no_grad():
        first = tested.adapt(tokens)[0].flatten(0, 1)
        text = torch.stack([first[0], first[(first @ first[0]).argmin()]], dim=1)
        cosines = torch.stack(tested.similarity(tested.adapt(tokens), text)).mean(dim=0)
        maps = tested.probabilities(tokens, text)[:, 1]
    assert (cosines[:, 1] - cosines[:, 0]).abs().max() > 0.2
    size = (maps.shape[-1],) * 2
    stretched = F.interpolate(cosines, size, mode="bilinear", align_corners=True)
    torch.testing.assert_close(torch.logit(maps), stretched[:, 1] - stretched[:, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("activation", ["quickgelu", "gelu"])
def test_validation(quickgelu, parity, same, toy_clip, activation):
    """The reference's validate(): from images to maps, scores and AUROCs. The two files share weights and images."""
    inputs, name = parity(CHECKPOINT), f"mediclip_test_{activation}"
    z, images = parity(name), unit(inputs["test_images"])
    model = quickgelu
    if activation != "quickgelu":
        model = MediCLIPNetwork(load_encoder(toy_clip(activation), images.shape[-1], "cpu"), PUBLISHED)
    load(model, inputs, "ckpt.", "ckpt.")
    with torch.no_grad():
        for label in LABELS:
            same(name, f"per_prompt_{label}", model.prompts.per_prompt(label), z[f"per_prompt_{label}"], 1e-5)
        text = model.prompts()
        tokens = model.patch_tokens(images)
        adapted = model.adapt(tokens)
        levels = torch.stack(model.similarity(adapted, text), dim=1)
    maps, scores = model.anomaly(images)
    assert scores is None, "the score of a slice is the maximum of its map"
    same(name, "text_features", text, z["text_features"], 1e-5)
    if "tokens_layer12_18_24" in z:
        taps = [model.encoder.patch_maps(x, level) for level, x in enumerate(tokens, start=1)]
        same(name, "tokens_layer12_18_24", torch.stack(taps, dim=1), z["tokens_layer12_18_24"], 1e-5)
        theirs = z["adapted_layer12_18_24"]
        same(name, "adapted_layer12_18_24", torch.stack(adapted, dim=1).reshape(theirs.shape), theirs, 1e-5)
    same(name, "level_similarity", levels, z["level_similarity"], 1e-5)
    same(name, "mean_similarity", levels.mean(dim=1), z["mean_similarity"], 1e-5)
    same(name, "anomaly_map", maps, z["anomaly_map"], 1e-5)
    scores = maps.amax(dim=(1, 2))
    same(name, "image_score", scores, z["image_score"], 1e-5)
    same(name, "auc_image", roc_auc_score(z["image_label"], scores), z["auc_image"], 1e-9)
    truth = inputs["test_masks"].ravel() > 0
    same(name, "auc_pixel", roc_auc_score(truth, maps.ravel()), z["auc_pixel"], 1e-5)


def test_first_gradients(quickgelu, parity, same):
    z, keys = parity(TRAIN), reference_keys(quickgelu, "grad1.adapter.", "grad1.prompt.")
    load(quickgelu, z, "init.adapter.", "init.prompt.")
    images, masks = unit(z["train_images"][0]), torch.from_numpy(z["train_masks"][0])
    probabilities = quickgelu.probabilities(quickgelu.patch_tokens(images))
    recorded = z["prob_step1"]
    same(TRAIN, "prob_step1", probabilities[: len(recorded), 1], recorded, 1e-5)
    quickgelu.zero_grad()
    (focal_loss(probabilities, masks) + dice_loss(probabilities[:, 1], masks)).backward()
    parameters = dict(quickgelu.named_parameters())
    assert all(parameter.grad is None for parameter in quickgelu.encoder.parameters()), "the encoder is frozen"
    for ours, key in keys.items():
        same(TRAIN, key, parameters[ours].grad.reshape(z[key].shape), z[key], 1e-4 * np.abs(z[key]).max())


def test_training_steps(quickgelu, parity, same, same_weights):
    z = parity(TRAIN)
    load(quickgelu, z, "init.adapter.", "init.prompt.")
    optimiser = new_optimiser(quickgelu)
    assert optimiser.defaults["betas"] == (0.5, 0.999), "so few steps hardly depend on the second"
    rate, keys = optimiser.defaults["lr"], reference_keys(quickgelu, "adapter.", "prompt.")
    gradients = {key: z[f"grad1.{key}"] for key in keys.values()}
    for n, (images, masks) in enumerate(zip(z["train_images"], z["train_masks"], strict=True), start=1):
        focal, dice = step(quickgelu, optimiser, torch.from_numpy(images), torch.from_numpy(masks))
        same(TRAIN, f"loss_focal[{n}]", focal, z["loss_focal"][n - 1], 1e-5)
        same(TRAIN, f"loss_dice[{n}]", dice, z["loss_dice"][n - 1], 1e-5)
        state = quickgelu.head_state()
        theirs = {key: z[f"step{n}.{key}"] for key in keys.values()}
        same_weights(TRAIN, n, rate, {key: state[ours] for ours, key in keys.items()}, theirs, gradients)


@pytest.mark.long
def test_vitl_geometry(parity, same, vitl_clip, recipe):
    z = parity(VITL)
    text = str(z["recipe"])
    seed = int(re.search(r"seed=(\d+)", text)[1])
    drawn = {
        "adapter": re.search(r"adapter\.'\+name, shape, ([\d.]+)\*\d+\*\*-0\.5, (\d+)", text).groups(),
        "prompt": re.search(r"prompt\.'\+name, shape, ([\d.]+), (\d+)", text).groups(),
    }
    encoder = load_encoder(vitl_clip("ViT-L-14-quickgelu", seed), z["test_images"].shape[-1], "cpu")
    model = MediCLIPNetwork(encoder, PUBLISHED)
    arrays = {}
    for part, own in MediCLIPReference().state(model).items():
        group = part.removesuffix("_state_dict")
        scale, head_seed = drawn[group]
        std = float(scale) * (encoder.widths[0] ** -0.5 if group == "adapter" else 1)
        for name, value in own.items():
            key = f"mediclip.{group}.{name}"
            arrays[key] = recipe(key, tuple(value.shape), std, int(head_seed)).float().numpy()
    load(model, arrays, "mediclip.adapter.", "mediclip.prompt.")

    levels, maps = [], []
    with torch.inference_mode():
        features = model.prompts()
        for images in unit(z["test_images"]).split(4):
            tokens = model.patch_tokens(images)
            levels.append(torch.stack(model.similarity(model.adapt(tokens), features), dim=1))
            maps.append(model.probabilities(tokens)[:, 1])
    levels, maps = torch.cat(levels), torch.cat(maps)
    same(VITL, "text_features", features, z["text_features"], 1e-5)
    same(VITL, "level_similarity", levels[: len(z["level_similarity"])], z["level_similarity"], 1e-5)
    same(VITL, "mean_similarity", levels.mean(dim=1), z["mean_similarity"], 1e-5)
    same(VITL, "anomaly_map_0_1", maps[: len(z["anomaly_map_0_1"])], z["anomaly_map_0_1"], 1e-5)
    scores = maps.amax(dim=(1, 2))
    same(VITL, "image_score", scores, z["image_score"], 1e-5)
    same(VITL, "auc_image", roc_auc_score(z["image_label"], scores), z["auc_image"], 1e-9)
    truth = np.unpackbits(z["test_masks"])[: maps.numel()] > 0
    same(VITL, "auc_pixel", roc_auc_score(truth, maps.ravel()), z["auc_pixel"], 1e-5)
