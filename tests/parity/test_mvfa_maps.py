"""MVFA's tokens, memory, maps and scores, few- and zero-shot (test_few.py and test_zero.py of the reference)."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score

from medclipad.encoders import load_encoder
from medclipad.methods.common.augment import augment, square
from medclipad.methods.mvfa.evidence import Evidence, Level, combine, unit_range
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.prompts import CLASS_NAMES
from medclipad.methods.mvfa.reference import MVFAReference

NAME = re.compile(r"mvfa_test_(few|zero)_(.+)_(gelu|quickgelu)$")


def reference_adapters(z: dict[str, np.ndarray], prefix: str) -> dict[str, dict[str, torch.Tensor]]:
    """Return the adapters of a file as the reference's checkpoint holds them."""
    parts: dict[str, dict[str, torch.Tensor]] = {"seg_adapters": {}, "det_adapters": {}}
    for key, value in z.items():
        if key.startswith(prefix):
            part, _, name = key.removeprefix(prefix).partition(".")
            parts[part][name] = torch.tensor(value)
    return parts


class Case:
    """The model of a parity file, with its adapters, prompts and test images."""

    def __init__(self, parity, toy_clip, file: str) -> None:
        self.shots, self.name, self.activation = NAME.match(file).groups()
        self.file, self.z = file, parity(file)
        full, self.raw = parity(f"mvfa_test_{self.shots}_{self.name}_gelu"), parity("mvfa_raw_inputs")
        self.images, size = torch.tensor(full["test_image"]), full["test_image"].shape[-1]
        self.model = MVFANetwork(load_encoder(toy_clip(self.activation), size), MVFAOptions(memory_tokens="all"))
        MVFAReference().load_state(self.model, reference_adapters(full, "adapter."))
        self.model.use_class(CLASS_NAMES.get(self.name, self.name))
        self.head = "seg" if self.shots == "zero" or "gt_mask" in self.z else "det"
        self.model.has_masks.fill_(self.head == "seg")

    def remember(self) -> list[torch.Tensor]:
        size, pictures = self.images.shape[-1], self.raw[f"{self.name}_valid_good_img"]
        return self.model.remember(augment(torch.stack([square(picture, size) for picture in pictures])))

    def levels(self) -> list[Level]:
        """Return the levels of all test images, computed one by one as in the reference."""
        with torch.inference_mode():
            each = [list(self.model.levels(self.model.frozen(image))) for image in self.images.split(1)]
        return [Level(*map(torch.cat, zip(*level, strict=True))) for level in zip(*each, strict=True)]

    def tokens(self) -> list[torch.Tensor]:
        return [getattr(level, self.head) for level in self.levels()]

    def evidence(self) -> Evidence:
        each = [self.model.evidence(image) for image in self.images.split(1)]
        return Evidence(*map(torch.cat, zip(*each, strict=True)))

    def logits(self) -> list[torch.Tensor]:
        return self.model.logits(self.tokens(), self.model.text(self.head))


@pytest.fixture
def case(parity, toy_clip, file) -> Case:
    parity(file)
    return Case(parity, toy_clip, file)


@pytest.mark.parity_files("mvfa_test_*")
def test_tokens(same, case):
    z, model, levels = case.z, case.model, case.levels()
    same(case.file, "text_features", model.text(case.head), z["text_features"], 1e-6)
    with torch.inference_mode():
        pooled = model.encoder.project(levels[-1].after[:, 0])
    for head in ("seg", "det"):
        if f"{head}_tokens" in z:
            tokens = torch.stack([getattr(level, head) for level in levels], dim=1)
            same(case.file, f"{head}_tokens", tokens, z[f"{head}_tokens"], 1e-5)
    blocks = sorted({int(key.rpartition("_")[2]) for key in z if key.startswith("hidden_")})
    for block, level in zip(blocks, levels, strict=bool(blocks)):
        same(case.file, f"hidden_pre_{block}", level.before, z[f"hidden_pre_{block}"], 1e-5)
        same(case.file, f"hidden_post_{block}", level.after, z[f"hidden_post_{block}"], 1e-5)
    if "pooled" in z:  # MVFA leaves CLIP's own output unused
        same(case.file, "pooled", pooled, z["pooled"], 1e-5)


@pytest.mark.parity_files("mvfa_test_*")
def test_zero_shot_levels(same, case):
    z, logits = case.z, case.logits()
    if "zero_level_logits_grid" in z:
        same(case.file, "zero_level_logits_grid", torch.stack(logits, dim=1), z["zero_level_logits_grid"], 1e-4)
    if "zero_level_map" in z:
        maps = torch.stack([level[:, 1] for level in case.model.probabilities(logits)], dim=1)
        same(case.file, "zero_level_map", maps[: len(z["zero_level_map"])], z["zero_level_map"], 1e-5)
    if "zero_level_patch_prob" in z:
        patches = torch.stack([level.softmax(1)[:, 1].flatten(1) for level in logits], dim=1)
        same(case.file, "zero_level_patch_prob", patches, z["zero_level_patch_prob"], 1e-5)


@pytest.mark.parity_files("mvfa_test_few_*")
def test_memory_and_distances(same, case):
    z, banks = case.z, case.remember()
    for level, bank in enumerate(banks):
        key = f"mem_{case.head}_{level}"
        if key in z:
            same(case.file, key, bank, z[key], 1e-5)
    assert case.model.memory.sizes == [len(bank) for bank in banks]
    with torch.inference_mode():
        levels = case.model.distances(case.tokens())
        maps = torch.cat([case.model.upsample(level) for level in levels], dim=1)
    same(case.file, "few_level_map_grid", torch.cat(levels, dim=1), z["few_level_map_grid"], 1e-5)
    if "few_level_map" in z:
        same(case.file, "few_level_map", maps[: len(z["few_level_map"])], z["few_level_map"], 1e-5)


@pytest.mark.parity_files("mvfa_test_few_*")
def test_few_shot_scores(same, case):
    z = case.z
    case.remember()
    evidence = case.evidence()
    if case.head == "seg":
        if "score_map_few" in z:
            same(case.file, "score_map_few", evidence.few_map, z["score_map_few"], 1e-5)
            same(case.file, "score_map_zero", evidence.zero_map, z["score_map_zero"], 1e-5)
        maps = combine(evidence.zero_map, evidence.few_map)
        scores = maps.amax(dim=(1, 2))
        same(case.file, "pixel_score", maps, z["pixel_score"], 1e-5)
        pixel = roc_auc_score(z["gt_mask"].ravel(), maps.ravel())
        same(case.file, "auc_pixel", pixel, z["auc_pixel"], 1e-5)
    else:
        same(case.file, "score_few", evidence.few_score, z["score_few"], 1e-5)
        same(case.file, "score_zero", evidence.zero_score, z["score_zero"], 1e-5)
        scores = combine(evidence.zero_score, evidence.few_score)
    same(case.file, "image_score", scores, z["image_score"], 1e-5)
    same(case.file, "auc_image", roc_auc_score(z["image_label"], scores), z["auc_image"], 1e-9)


@pytest.mark.parity_files("mvfa_test_zero_*")
def test_zero_shot_scores(same, case):
    z = case.z
    evidence = case.evidence()
    maps, scores = evidence.zero_map, evidence.zero_score
    same(case.file, "image_score_raw", scores, z["image_score_raw"], 1e-5)
    same(case.file, "image_score_normalised", unit_range(scores), z["image_score_normalised"], 1e-5)
    same(case.file, "auc_image", roc_auc_score(z["image_label"], scores), z["auc_image"], 1e-9)
    if "score_map_zero" in z:
        same(case.file, "score_map_zero", maps, z["score_map_zero"], 1e-5)
    if "gt_mask" in z:
        same(case.file, "pixel_score_normalised", unit_range(maps), z["pixel_score_normalised"], 1e-5)
        pixel = roc_auc_score(z["gt_mask"].ravel(), maps.ravel())
        same(case.file, "auc_pixel", pixel, z["auc_pixel"], 1e-5)
