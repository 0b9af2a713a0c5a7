"""MadCLIP against the reference code: prompts, features, similarities, maps, scores, training steps, augmentation.

The arrays lie beside this file, which `record_madclip.py` wrote; the toy CLIP's weights come from a recipe.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from madclip_toy import ARCHITECTURE, CLASS_NAME, LEVELS, SIZE, STEPS, adapter_weight, context, pictures, toy_state

from medclipad.encoders import load_encoder
from medclipad.methods.madclip.network import MadCLIPNetwork
from medclipad.methods.madclip.options import MadCLIPOptions
from medclipad.methods.madclip.prompts import LABELS, PLACES
from medclipad.methods.madclip.training import ZOOMS, Trainer, augmented, jitter, zoom

FILE, TOLERANCE = "madclip", 1e-5
LAYERS = {"shared": "fc1", "det": "fc2", "seg": "fc3"}
"""Our name of an adapter's layer -> the reference's."""


@pytest.fixture(scope="module")
def z() -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / f"{FILE}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy_madclip")
    torch.save(toy_state(folder), folder / "toy.pt")
    return load_encoder(f"{ARCHITECTURE}/{folder / 'toy.pt'}", SIZE, precision="float32")


@pytest.fixture
def model(encoder) -> MadCLIPNetwork:
    """Return the model with the weights that the reference code had."""
    network = MadCLIPNetwork(encoder, MadCLIPOptions(class_name=CLASS_NAME))
    with torch.no_grad():
        for key, value in trained(network).items():
            value.copy_((context if "ctx" in key else adapter_weight)(key, tuple(value.shape)))
    network.freeze_text_features()
    return network


def trained(model: MadCLIPNetwork) -> dict[str, torch.nn.Parameter]:
    """Return the trained weights by their names in the reference's checkpoint."""
    found = {}
    for label, adapters in (("normal", model.normal_adapters), ("abnormal", model.abnormal_adapters)):
        for level, adapter in enumerate(adapters):
            for ours, theirs in LAYERS.items():
                found[f"{label}_det_adapters.{level}.{theirs}.0.weight"] = getattr(adapter, ours).weight
        for place in PLACES:
            name = f"prompt_maker_{label}.prompt_learner.ctx.{label}_{place}"
            found[name] = model.prompts.contexts[f"{label}_{place}"]
    return found


def flat(values: torch.Tensor, like: np.ndarray) -> torch.Tensor:
    """Return as many of the first values as are recorded."""
    return values.detach().flatten()[: like.size]


def test_prompts(model, z, same):
    with torch.no_grad():
        for label in LABELS:
            same(FILE, f"prompt_tokens_{label}", model.prompts.tokens(label), z[f"prompt_tokens_{label}"], 0)
            ours = torch.cat([model.prompts.embeddings(label, place) for place in PLACES])
            theirs = z[f"prompt_embeddings_{label}"]
            same(FILE, f"prompt_embeddings_{label}", ours[:, : theirs.shape[1]], theirs, 1e-6)
            same(FILE, f"per_prompt_{label}", model.prompts.per_prompt(label), z[f"per_prompt_{label}"], TOLERANCE)
        same(FILE, "text_features", model.prompts(), z["text_features"], TOLERANCE)
        ends = model.prompts.tokens("normal").argmax(dim=1)
        causal = model.encoder.text.encode(model.prompts.embeddings("normal", "end"), ends, causal=True)
    assert np.abs(causal.numpy() - z["per_prompt_normal"][: len(ends)]).max() > 0.05, "the mask's absence is tested"


def test_features_and_similarities(model, z, same):
    tokens = model.frozen(pictures()[0])
    with torch.no_grad():
        found = model.similarities(tokens)
        for level in range(LEVELS):
            same(FILE, f"tokens_{level}", tokens[level], z[f"tokens_{level}"], TOLERANCE)
            for label, adapters in (("normal", model.normal_adapters), ("abnormal", model.abnormal_adapters)):
                features = adapters[level](tokens[level][:1])
                for head, own in features.items():
                    same(FILE, f"{label}_{head}_{level}", own, z[f"{label}_{head}_{level}"], TOLERANCE)
            for head, pairs in found.items():
                name = f"{head}_similarity_{level}"
                same(FILE, name, pairs[level], z[name], TOLERANCE)


def test_maps_and_scores(model, z, same):
    images = pictures()[0]
    found = model.similarities(model.frozen(images))
    with torch.no_grad():
        maps = torch.stack(model.probabilities(found["seg"]))
        same(FILE, "probability_maps", maps, z["probability_maps"], TOLERANCE)
        same(FILE, "image_score", model.image_probability(found["det"]).sum(dim=0), z["image_score"], TOLERANCE)
    ours, scores = model.anomaly(images)
    same(FILE, "map", LEVELS * ours, z["map"], TOLERANCE)
    assert scores is None and torch.equal(model.scores_of(ours), ours.amax((1, 2))), "the map's maximum is the score"
    model.has_masks.fill_(False)
    same(FILE, "image_score", LEVELS * model.anomaly(images)[1], z["image_score"], TOLERANCE)
    model.has_masks.fill_(True)


def test_training_steps(model, z, same, same_weights: Callable[..., None]):
    images, labels, masks = pictures()
    trainer, tokens = Trainer(model, 1e-3), model.frozen(images)
    own = trained(model)
    gradients = {key.removeprefix("grad1."): value for key, value in z.items() if key.startswith("grad1.")}
    assert gradients.keys() == own.keys()
    for step in range(1, STEPS + 1):
        losses = trainer.step(tokens, labels, masks, torch.ones(len(images), dtype=torch.bool))
        for name, ours in zip(("detection", "focal", "dice"), losses, strict=True):
            same(FILE, f"loss_{name}_{step}", ours, z[f"loss_{name}_{step}"], TOLERANCE)
        if step == 1:
            for key, value in gradients.items():
                same(FILE, f"grad1.{key}", flat(own[key].grad, value), value, TOLERANCE)
        if step in (1, STEPS):
            theirs = {key: z[f"step{step}.{key}"] for key in own}
            ours = {key: flat(value, theirs[key]) for key, value in own.items()}
            same_weights(FILE, step, 1e-3, ours, theirs, gradients)


def test_augmentation(z, same):
    """The reference's order is: image, rotations, shifts, zooms, brightness and contrast, flips; its code shuffles."""
    image, mask = torch.from_numpy(z["augment_image"]), torch.from_numpy(z["augment_mask"])
    order = [*range(9), *range(11, 16), 9, 10]
    same(FILE, "augmented_mask", augmented(mask, None)[order], z["augmented_mask"], TOLERANCE)
    found = augmented(image, torch.Generator().manual_seed(0))
    drawn = 15
    for place, index in enumerate(order):
        if index != drawn:
            same(FILE, "augmented_image", found[index], z["augmented_image"][place], TOLERANCE)
    jittered = jitter(image, *z["augment_factors"])[0]
    same(FILE, "augmented_image (brightness and contrast)", jittered, z["augmented_image"][13], TOLERANCE)
    assert not torch.equal(found[drawn], image[0]) and len(found) == 16
    plain = F.interpolate(image[:, None, 1:24, 1:24], (25, 25), mode="bilinear")[0, 0]
    assert not torch.allclose(zoom(image, ZOOMS[0])[0], plain), "cut as the reference cuts"
