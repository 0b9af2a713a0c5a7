"""MVFA few-shot at the real geometry: ViT-L-14-336 at 240 px, weights from the parity README's recipe."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medclipad.encoders import load_encoder
from medclipad.methods.common.augment import augment, square
from medclipad.methods.mvfa.evidence import Evidence, combine
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.prompts import CLASS_NAMES

FILE = "mvfa_vitl_geometry"


def bits(z: dict[str, np.ndarray], key: str) -> np.ndarray:
    shape = z[key.replace("mask", "img")].shape
    return np.unpackbits(z[key])[: np.prod(shape)].reshape(shape)


@pytest.mark.long
def test_vitl_geometry(parity, same, vitl_clip, recipe, class_of):
    z = parity(FILE)
    text = str(z["recipe"])
    seed = int(re.search(r"seed=(\d+)", text)[1])
    scale, adapter_seed = re.search(r"([\d.]+)\*in_features\*\*-0\.5, (\d+)", text).groups()
    size = z["test_good_img"].shape[-1]
    model = MVFANetwork(load_encoder(vitl_clip("ViT-L-14-336", seed), size, "cpu"), MVFAOptions(memory_tokens="all"))
    for key, weight in model.named_parameters():
        if "_adapters." in key:
            std = float(scale) * weight.shape[1] ** -0.5
            weight.data = recipe(f"adapter.{key}", tuple(weight.shape), std, int(adapter_seed)).float()
    model.use_class(CLASS_NAMES[class_of(model.encoder, z["text_features"])])
    same(FILE, "text_features", model.text("seg"), z["text_features"], 1e-5)
    model.remember(augment(torch.stack([square(image, size) for image in z["valid_good_img"]])))

    images = torch.stack([square(image, size) for kind in ("good", "Ungood") for image in z[f"test_{kind}_img"]])
    parts, tokens, logits, distances, pooled = [], [], [], [], []
    with torch.inference_mode():
        for image in images.split(1):
            levels = list(model.levels(model.frozen(image)))
            seg = [level.seg for level in levels]
            tokens.append((torch.stack(seg, dim=1), torch.stack([level.det for level in levels], dim=1)))
            logits.append(torch.stack(model.logits(seg, model.text("seg")), dim=1))
            distances.append(torch.cat(model.distances(seg), dim=1))
            pooled.append(model.encoder.project(levels[-1].after[:, 0]))
            parts.append(model.evidence(image))
    seg, det = (torch.cat(part) for part in zip(*tokens, strict=True))
    n = z["seg_tokens_img0_tok0_3"].shape[1]
    same(FILE, "seg_tokens_img0_tok0_3", seg[0, :, :n], z["seg_tokens_img0_tok0_3"], 1e-5)
    same(FILE, "det_tokens_img0_tok0_3", det[0, :, :n], z["det_tokens_img0_tok0_3"], 1e-5)
    same(FILE, "seg_token_norms", seg.norm(dim=-1), z["seg_token_norms"], 2e-5)
    same(FILE, "pooled", torch.cat(pooled), z["pooled"], 2e-5)
    same(FILE, "zero_level_logits_grid", torch.cat(logits), z["zero_level_logits_grid"], 1e-4)
    same(FILE, "few_level_map_grid", torch.cat(distances), z["few_level_map_grid"], 1e-5)

    evidence = Evidence(*map(torch.cat, zip(*parts, strict=True)))
    maps = combine(evidence.zero_map, evidence.few_map)
    scores = maps.amax(dim=(1, 2))
    truth = np.concatenate([bits(z, "test_good_mask"), bits(z, "test_Ungood_mask")])
    same(FILE, "pixel_score_first_and_last", maps[[0, -1]], z["pixel_score_first_and_last"], 1e-5)
    same(FILE, "image_score", scores, z["image_score"], 1e-5)
    same(FILE, "auc_image", roc_auc_score(z["image_label"], scores), z["auc_image"], 1e-9)
    same(FILE, "auc_pixel", roc_auc_score(truth.ravel(), maps.ravel()), z["auc_pixel"], 1e-5)
