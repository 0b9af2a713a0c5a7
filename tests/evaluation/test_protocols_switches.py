"""The parts that an ablation leaves out: each switch changes the computation as it says, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from protocol_trees import SHOTS

from medclipad.evaluation.protocols.run import train_and_test
from medclipad.methods.common.benchmark_settings import Settings
from medclipad.methods.mediclip.ablations import Parts
from medclipad.methods.mediclip.benchmark import MediCLIPProtocol
from medclipad.methods.mediclip.prompts import ABNORMAL_WORDS, NORMAL_WORDS
from medclipad.methods.mediclip.synthesis import MIXTURES
from medclipad.methods.mvfa.benchmark import FewShot, ZeroShot

SIZE = 64
MVFA_LOSSES, MEDICLIP_LOSSES = ("bce", "focal", "dice"), ("focal", "dice")


def settings(class_name: str, encoder: str, shots: int = SHOTS, **ablated) -> Settings:
    return Settings(class_name, shots, encoder, SIZE, epochs=1, learning_rate=1e-3, max_images=1, ablated=ablated)


def few_shot(tree, encoder: str, **ablated) -> FewShot:
    return FewShot(tree, tree / "fewshot_seed", settings("Brain", encoder, **ablated))


def mediclip(tree, encoder: str, **ablated) -> MediCLIPProtocol:
    return MediCLIPProtocol(tree, settings("busi", encoder, 4, **ablated))


def first_loss(protocol) -> float:
    return protocol.step(protocol.batches()[0])


def moved(protocol, before: dict[str, torch.Tensor]) -> set[str]:
    """Return which trained modules changed."""
    return {
        name.partition(".")[0] for name, value in protocol.weights().items() if not torch.equal(value, before[name])
    }


@pytest.mark.parametrize("level", range(4))
def test_a_single_level_has_its_own_tensors_alone(bmad_tree, level):
    protocol = few_shot(bmad_tree, "embedded", levels=[level])
    model = protocol.model
    width, grid = model.encoder.widths[level], model.encoder.grids[level]
    shapes = {name: tuple(value.shape) for name, value in protocol.weights().items() if "adapters" in name}
    bottleneck = model.encoder.embed_dim
    assert shapes == {
        f"{head}_adapters.0.{fc}.0.weight": shape
        for head in ("seg", "det")
        for fc, shape in (("fc1", (bottleneck, width)), ("fc2", (width, bottleneck)))
    }
    protocol.step(protocol.batches()[0])
    protocol.prepare()
    assert model.memory.sizes == [11 * SHOTS * grid**2]
    evidence = model.evidence(protocol.tests[[0]])
    assert evidence.zero_map.max() <= 1 and evidence.few_map.max() <= 2, "one level's evidence, not a sum"


def test_a_single_level_sees_the_encoders_own_tokens(bmad_tree, tiny_clip):
    """No adapter of an earlier level changes them; the features are those of the level's adapter."""
    model = few_shot(bmad_tree, tiny_clip, levels=[2]).model
    images = torch.rand(2, 3, SIZE, SIZE)
    (seg,), (det,) = model(images)
    tokens = model.encoder.taps(images, 2)[0]
    for features, adapters in ((seg, model.seg_adapters), (det, model.det_adapters)):
        torch.testing.assert_close(features, F.leaky_relu(tokens @ adapters[0].fc1[0].weight.T))


def test_all_levels_are_the_whole_method(bmad_tree, tiny_clip, tmp_path):
    protocols = [few_shot(bmad_tree, tiny_clip, **ablated) for ablated in ({}, {"levels": [0, 1, 2, 3]})]
    whole, again = (train_and_test(p, tmp_path / str(index)) for index, p in enumerate(protocols))
    assert whole.history.losses == again.history.losses
    assert whole.scores.images.tolist() == again.scores.images.tolist()
    assert protocols[0].checkpoint() is not None and protocols[1].checkpoint() is None


@pytest.mark.parametrize("fixture", ["embedded", "clip"])
def test_projections_are_linear(bmad_tree, tiny_clip, fixture):
    protocol = few_shot(bmad_tree, tiny_clip if fixture == "clip" else "embedded", projection=True)
    model, before = protocol.model, protocol.weights()
    assert not any("adapters" in name for name in before)
    images = torch.rand(1, 3, SIZE, SIZE)
    for level, (tokens, seg) in enumerate(zip(model.encoder.taps(images, 0), model(images).seg, strict=True)):
        torch.testing.assert_close(seg, tokens @ model.seg_projectors[level].weight.T)
    protocol.step(protocol.batches()[0])
    assert moved(protocol, before) >= {"seg_projectors", "det_projectors"}


def test_dropped_losses_of_mvfa(bmad_tree):
    """The total loses their part, and the head that a loss trains alone keeps its weights without it."""
    whole = first_loss(few_shot(bmad_tree, "embedded"))
    protocols = {name: few_shot(bmad_tree, "embedded", dropped_losses=[name]) for name in MVFA_LOSSES}
    before = {name: protocol.weights() for name, protocol in protocols.items()}
    losses = {name: first_loss(protocol) for name, protocol in protocols.items()}
    assert sum(losses.values()) == pytest.approx(2 * whole, rel=1e-5)
    assert all(0 < loss < whole for loss in losses.values())
    after = {name: moved(protocol, before[name]) for name, protocol in protocols.items()}
    assert "seg_adapters" in after["bce"] and "det_adapters" not in after["bce"]
    assert {"seg_adapters", "det_adapters"} <= after["focal"] & after["dice"]
    both = few_shot(bmad_tree, "embedded", dropped_losses=["focal", "dice"])
    start = both.weights()
    both.step(both.batches()[0])
    assert "seg_adapters" not in moved(both, start)


def test_zero_shot_without_the_image_loss(bmad_tree, tiny_clip):
    """A picture without a mask then teaches nothing, and one with a mask does."""
    protocol = ZeroShot(bmad_tree, settings("Brain", tiny_clip, 0, dropped_losses=["bce"]))
    masked = [name in ("Liver", "Retina_RESC") for _, name in protocol.training]
    for index, expected in ((masked.index(False), set()), (masked.index(True), {"seg_adapters", "det_adapters"})):
        before = protocol.weights()
        protocol.step(torch.tensor([index]))
        assert moved(protocol, before) == expected


def test_prompts_without_learnable_tokens(mediclip_tree, tiny_clip):
    """They are the words alone, and the adapters still learn."""
    protocol = mediclip(mediclip_tree, tiny_clip, learnable_tokens=False)
    model, text = protocol.model, protocol.model.encoder.require_text()
    columns = []
    for words in (NORMAL_WORDS, ABNORMAL_WORDS):
        tokens = text.tokenize([f"{word}." for word in words])
        encoded = text.encode(text.token_embedding(tokens), tokens.argmax(dim=1), causal=False)
        columns.append(F.normalize(encoded.mean(dim=0), dim=0))
    torch.testing.assert_close(model.prompts(), torch.stack(columns, dim=1))
    before = protocol.weights()
    protocol.step(protocol.batches()[0])
    assert moved(protocol, before) == {"adapters"}
    torch.testing.assert_close(model.prompts(), torch.stack(columns, dim=1))


def test_no_adapter_means_the_encoders_projection(mediclip_tree, tiny_clip):
    protocol = mediclip(mediclip_tree, tiny_clip, adapters=False)
    model, before = protocol.model, protocol.weights()
    tokens = model.patch_tokens(torch.rand(1, SIZE, SIZE))
    for adapted, level in zip(model.adapt(tokens), tokens, strict=True):
        torch.testing.assert_close(adapted, F.normalize(model.encoder.project(level), dim=-1))
    protocol.step(protocol.batches()[0])
    assert set(before) == {"prompts.normal_context", "prompts.abnormal_context"}
    assert moved(protocol, before) == {"prompts"}


def test_nothing_to_learn(mediclip_tree, tiny_clip, tmp_path):
    """Without both it is CLIP alone: an epoch changes no score."""
    given = settings("busi", tiny_clip, 4, learnable_tokens=False, adapters=False)
    protocol = MediCLIPProtocol(mediclip_tree, given)
    assert sum(value.numel() for value in protocol.weights().values()) == 0
    before = protocol.test().images
    outcome = train_and_test(protocol, tmp_path)
    assert protocol.settings.epochs == 1 == len(outcome.history.losses)
    np.testing.assert_array_equal(outcome.scores.images, before)


@pytest.mark.parametrize(
    ("variant", "expected"),
    [("reference", {"gauss": 3 / 8, "source": 3 / 8, "identity": 1 / 4}), ("paper", {"gauss": 1 / 2, "source": 1 / 2})],
)
def test_synthesis_tasks(mediclip_tree, variant, expected):
    """The chosen tasks alone are drawn, equally often, beside as many unchanged pictures as before."""
    assert Parts(tasks=["gauss", "source"]).mixture(variant) == pytest.approx(expected)
    assert Parts().mixture(variant) == MIXTURES[variant]
    given = settings("busi", "embedded", 4, tasks=["gauss", "source"])
    protocol = MediCLIPProtocol(mediclip_tree, replace(given, variant=variant))
    assert list(protocol.synthesis.tasks) == list(expected)


def test_dropped_losses_of_mediclip(mediclip_tree):
    whole = first_loss(mediclip(mediclip_tree, "embedded"))
    protocols = [mediclip(mediclip_tree, "embedded", dropped_losses=[name]) for name in MEDICLIP_LOSSES]
    assert sum(map(first_loss, protocols)) == pytest.approx(whole, rel=1e-9)
    weights = [protocol.weights() for protocol in protocols]
    assert any(not torch.equal(value, weights[1][name]) for name, value in weights[0].items())
