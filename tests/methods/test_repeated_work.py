"""Nothing is computed twice: passes through the encoder are counted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from discs import SIZE, slices

from medclipad.encoders import load_encoder
from medclipad.methods.base import Shots
from medclipad.methods.mediclip.method import MediCLIP
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mvfa.method import MVFA
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions


class Counter:
    """Counts images through an encoder's stem and each of its stages, and prompts through its text tower."""

    def __init__(self, encoder, monkeypatch) -> None:
        self.stem, self.stages, self.prompts = 0, [0] * 4, 0
        stem, stage, encode = encoder.stem, encoder.stage, encoder.text.encode

        def count_stem(images):
            self.stem += len(images)
            return stem(images)

        def count_stage(state, level):
            self.stages[level] += len(state)
            return stage(state, level)

        def count_text(embeddings, *args, **options):
            self.prompts += len(embeddings)
            return encode(embeddings, *args, **options)

        monkeypatch.setattr(encoder, "stem", count_stem)
        monkeypatch.setattr(encoder, "stage", count_stage)
        monkeypatch.setattr(encoder.text, "encode", count_text)


@pytest.fixture
def counter(clip, monkeypatch) -> Counter:
    return Counter(clip, monkeypatch)


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDCLIPAD_CACHE", str(tmp_path / "cache"))


def shots(k: int) -> Shots:
    images, masks = slices(k, 1, lesion=True)
    return Shots(slices(k, 2)[0], images, tuple(masks))


def test_mvfa_encodes_each_image_once_before_the_first_adapter(clip, counter):
    """Each of the 2 · 11 images passes the first stage once, for all epochs and for the memory."""
    model = MVFANetwork(clip, MVFAOptions(max_samples=66, batch=11, memory_tokens=100))
    MVFA.fit(model, shots(1), 0)
    abnormal = 1  # the abnormal shot, for the scale of the maps
    assert counter.stem == counter.stages[0] == 22 + abnormal
    assert counter.stages[1:] == [66 + 11 + abnormal] * 3


def test_mvfa_without_residual_passes_no_stage_twice(embedded, monkeypatch):
    stages = [0] * 4
    stage = embedded.stage

    def count(state, level):
        stages[level] += len(state)
        return stage(state, level)

    monkeypatch.setattr(embedded, "stage", count)
    MVFA.fit(MVFANetwork(embedded, MVFAOptions(max_samples=66, batch=11, memory_tokens=100)), shots(1), 0)
    assert stages == [22 + 1] * 4


def test_text_features_are_encoded_once_for_all_models(clip, counter):
    model = MVFANetwork(clip, MVFAOptions())
    model.use_class("Brain")
    n, features = counter.prompts, model.text_features
    assert n == 12 * 35
    again = MVFANetwork(clip, MVFAOptions())
    again.use_class("Brain")
    assert counter.prompts == n and torch.equal(again.text_features, features)
    again.use_class("Liver")
    assert counter.prompts == 2 * n and not torch.equal(again.text_features, features)


def test_text_features_of_other_weights_precision_or_activation_are_not_taken(clip, counter, monkeypatch):
    model = MVFANetwork(clip, MVFAOptions())
    model.use_class("Brain")
    n = counter.prompts
    for name, value in (("sha256", "0" * 64), ("name", "tiny-quickgelu/x.pt")):
        with monkeypatch.context() as patch:
            patch.setattr(clip, name, value)
            model.use_class("Brain")
        n += 12 * 35
        assert counter.prompts == n, name
    half = load_encoder(clip.name, SIZE, "cpu", precision="bfloat16")
    other = MVFANetwork(half, MVFAOptions())
    other.use_class("Brain")
    assert not torch.equal(other.text_features, model.text_features)


@pytest.mark.parametrize(
    ("schedule", "encoded"), [("published", 16 * 4), ("short", (4 + 16 // 4 - 1) * 4), (None, (4 + 16 // 4 - 1) * 4)]
)
def test_mediclip_learns_from_each_synthetic_anomaly_in_four_steps(clip, counter, schedule, encoded):
    MediCLIP.fit(MediCLIPNetwork(clip, MediCLIPOptions(schedule=schedule, max_steps=16, batch=4)), shots(4), 0)
    assert counter.stem == encoded


def test_mediclip_encodes_no_prompt_to_analyse_slices(clip, counter):
    model = MediCLIPNetwork(clip, MediCLIPOptions(max_steps=2))
    MediCLIP.fit(model, shots(2), 0)
    counter.prompts = 0
    images = torch.from_numpy(slices(3, 1)[0])
    maps = model.anomaly(images)[0]
    assert counter.prompts == 0
    torch.testing.assert_close(maps, model.probabilities(model.patch_tokens(images))[:, 1].detach())
    assert counter.prompts == 21, "training encodes the prompts, with the same features"


def test_a_head_that_is_not_in_use_costs_nothing_at_the_last_stage(clip):
    model = MVFANetwork(clip, MVFAOptions())
    model.use_class("Brain")
    model.remember(slices(2, 1)[0])
    images = torch.from_numpy(slices(2, 3)[0])
    last = list(model.levels(model.frozen(images), ("seg",), last=False))[-1]
    assert last.det is None and last.after is None and last.seg is not None
    maps, scores = model.anomaly(images)
    whole = model.evidence(images)
    assert scores is None and maps.isfinite().all()
    assert torch.equal(model.evidence(images, scores=False).zero_map, whole.zero_map)
    assert np.all(model.evidence(images, scores=False).zero_score.numpy() == 0) and whole.zero_score.min() > 0
