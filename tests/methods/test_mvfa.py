"""MVFA on the embedded encoder and on a tiny CLIP with random weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from discs import SIZE, slices

from medclipad.encoders import load_encoder
from medclipad.errors import Cancelled, DetectorError, TrainingError
from medclipad.methods.base import Shots
from medclipad.methods.common import token_memory
from medclipad.methods.common.augment import TRANSFORMS, augment, square
from medclipad.methods.common.frozen_states import FrozenStates
from medclipad.methods.common.token_memory import TokenMemory
from medclipad.methods.mvfa.evidence import combine, unit_range
from medclipad.methods.mvfa.method import MVFA
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.reference import MVFAReference
from medclipad.methods.mvfa.training import Trainer, initialise, samples

QUICK = MVFAOptions(max_samples=64)


def shots(k: int = 4, masked: str = "all") -> Shots:
    images, masks = slices(k, 1, lesion=True)
    keep = {"all": k, "half": k // 2, "none": 0}[masked]
    return Shots(slices(k, 2)[0], images, tuple(mask if i < keep else None for i, mask in enumerate(masks)))


@pytest.fixture(scope="module")
def fitted(embedded):
    model = MVFANetwork(embedded, QUICK)
    MVFA.fit(model, shots(), seed=0)
    model.calibrate(slices(6, 3)[0])
    return model


def test_finds_lesions_of_unseen_slices(fitted):
    images, masks = slices(6, 4, lesion=True)
    maps, scores = fitted.anomaly(torch.from_numpy(images))
    healthy, _ = fitted.anomaly(torch.from_numpy(slices(6, 5)[0]))
    assert scores is None, "with masks a slice's score follows from its map"
    assert maps.shape == (6, SIZE, SIZE) and maps.min() >= 0 and maps.max() <= 1
    inside = torch.from_numpy(masks)
    assert maps[inside].mean() > maps[~inside].mean() + 0.3
    assert maps.amax((1, 2)).min() > healthy.amax((1, 2)).max()


def test_without_text_scores_are_the_mean_of_the_highest_values(embedded, clip):
    assert MVFANetwork(clip, MVFAOptions()).score_share == 0, "as published"
    model = MVFANetwork(embedded, QUICK)
    MVFA.fit(model, shots(masked="none"), seed=0)
    model.calibrate(slices(6, 3)[0])
    maps, scores = model.anomaly(torch.from_numpy(slices(2, 4, lesion=True)[0]))
    assert scores is None and model.head == "det"
    highest = maps.flatten(1).sort(dim=1).values[:, -int(0.02 * SIZE * SIZE) :]
    torch.testing.assert_close(model.scores_of(maps), highest.mean(dim=1))


def test_a_slice_does_not_depend_on_its_neighbours(fitted):
    images = torch.from_numpy(np.concatenate([slices(5, 6)[0], slices(5, 7, lesion=True)[0]]))
    together, _ = fitted.anomaly(images)
    alone = torch.cat([fitted.anomaly(image)[0] for image in images.split(1)])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_rgb_and_grey_agree(fitted):
    grey = torch.from_numpy(slices(2, 8)[0])
    for ours, theirs in zip(fitted.evidence(grey), fitted.evidence(grey[:, None].repeat(1, 3, 1, 1)), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_training_is_reproducible_and_leaves_the_global_generator(embedded):
    before = torch.get_rng_state()
    states = []
    for seed in (0, 0, 1):
        model = MVFANetwork(embedded, MVFAOptions(max_samples=16, memory_tokens=50))
        torch.set_rng_state(before)
        MVFA.fit(model, shots(), seed)
        assert torch.equal(torch.get_rng_state(), before)
        states.append(model.head_state())
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["memory.level0"], states[2]["memory.level0"])
    assert not torch.equal(states[0]["seg_adapters.0.fc1.0.weight"], states[2]["seg_adapters.0.fc1.0.weight"])


def test_saved_head_gives_the_same_maps(fitted, embedded):
    images = torch.from_numpy(slices(2, 9, lesion=True)[0])
    other = MVFANetwork(embedded, QUICK)
    other.load_head_state({key: value.clone() for key, value in fitted.head_state().items()})
    assert torch.equal(other.anomaly(images)[0], fitted.anomaly(images)[0])


@pytest.mark.parametrize("key", ["seg_adapters.0.fc1.0.weight", "memory.level1"])
def test_foreign_head_is_refused(fitted, embedded, key):
    state = fitted.head_state()
    state[key] = state[key][:, :-1]
    with pytest.raises(ValueError, match="shape"):
        MVFANetwork(embedded, QUICK).load_head_state(state)
    del state[key]
    with pytest.raises(KeyError, match="differ"):
        MVFANetwork(embedded, QUICK).load_head_state(state)


@pytest.mark.parametrize("masked", ["none", "half"])
def test_heads(embedded, masked):
    """With the published score."""
    model = MVFANetwork(embedded, MVFAOptions(max_samples=64, score_share=0))
    MVFA.fit(model, shots(masked=masked), seed=0)
    model.calibrate(slices(6, 3)[0])
    maps, scores = model.anomaly(torch.from_numpy(np.concatenate([slices(6, 4, lesion=True)[0], slices(6, 5)[0]])))
    assert maps.shape == (12, SIZE, SIZE)
    assert model.head == ("det" if masked == "none" else "seg")
    if masked == "none":
        assert scores.shape == (12,) and scores.min() >= 0 and scores.max() <= 1
        assert scores[:6].min() > scores[6:].max()
    else:
        assert scores is None


def test_needs_normal_and_abnormal(embedded):
    full, none = shots(), np.empty((0, SIZE, SIZE), np.float32)
    with pytest.raises(TrainingError, match="abnormal, or use a method that needs normal slices alone"):
        MVFA.fit(MVFANetwork(embedded, QUICK), Shots(full.normal, none, ()), 0)
    with pytest.raises(TrainingError, match="at least one normal"):
        MVFA.fit(MVFANetwork(embedded, QUICK), Shots(none, full.abnormal, full.masks), 0)


def test_progress_reports_each_step_and_can_stop(embedded):
    seen = []
    MVFA.fit(MVFANetwork(embedded, MVFAOptions(max_samples=24, batch=8)), shots(), 0, lambda *call: seen.append(call))
    train = [call for call in seen if call[0] == "train"]
    assert [(done, total) for _, done, total, _ in train] == [(1, 3), (2, 3), (3, 3)]
    assert all(np.isfinite(info["loss"]) for *_, info in train)
    assert seen[-1][:3] == ("memory", 44, 44)

    def stop(phase, done, total, info):
        if phase == "train" and done == 2:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        MVFA.fit(MVFANetwork(embedded, QUICK), shots(), 0, stop)


def test_training_lengths(embedded, clip):
    one_epoch = MVFAOptions(epochs=1, batch=1, max_samples=0)
    assert MVFA.fit(MVFANetwork(embedded, one_epoch), shots(1), 0)["steps"] == 22
    assert MVFA.fit(MVFANetwork(embedded, one_epoch.model_copy(update={"max_samples": 5})), shots(1), 0)["steps"] == 5
    assert MVFA.fit(MVFANetwork(embedded, one_epoch.model_copy(update={"batch": 256})), shots(1), 0)["steps"] == 1
    assert (
        MVFA.fit(MVFANetwork(embedded, MVFAOptions()), shots(1), 0)["steps"] == 20
    )  # 7 passes over 22 slices in batches of 8
    default, published = MVFANetwork(embedded, MVFAOptions()), MVFANetwork(clip, MVFAOptions())
    assert (default.max_samples, published.epochs, published.max_samples) == (2400, 50, 600)


def test_planes_share_the_default_length(embedded):
    model = MVFANetwork(embedded, MVFAOptions(epochs=1))
    model.max_samples = 24
    assert MVFA.fit(model, shots(1), 0)["steps"] == 3
    assert MVFA.fit(model, replace(shots(1), planes=3), 0)["steps"] == 1, "8 of the 24 slices"
    given = MVFANetwork(embedded, MVFAOptions(epochs=1, max_samples=16))
    assert MVFA.fit(given, replace(shots(1), planes=3), 0)["steps"] == 2, "what was asked for is for each plane"


def test_augmented_shots():
    data = samples(shots(3, masked="half"))
    times = len(TRANSFORMS)
    assert times == 11 and len(data.images) == 6 * times
    assert data.labels.tolist() == [1.0] * 3 * times + [0.0] * 3 * times
    assert data.has_mask.tolist() == [True, False, False] * times + [True] * 3 * times
    assert set(data.masks.unique().tolist()) == {0.0, 1.0}
    assert data.masks[1::3][: times - 1].sum() == 0, "an unknown lesion has no mask"
    assert not samples(shots(2, masked="none")).has_mask.any()


def test_transforms_keep_images_and_masks_together():
    images, masks = slices(2, 1, lesion=True)
    both = augment(torch.stack([torch.from_numpy(images), torch.from_numpy(masks).float()], dim=1))
    assert torch.equal(both[:, 0], augment(torch.from_numpy(images)))
    torch.testing.assert_close(both[-4:-2], both[:2].flip(-1), atol=1e-4, rtol=0)  # left-right
    torch.testing.assert_close(both[-2:], both[:2].flip(-2), atol=1e-4, rtol=0)  # up-down
    assert (both[:, 0][both[:, 1] > 0.99] > 0.6).all(), "the lesion is bright wherever its mask goes"


def test_square_reads_pictures_and_masks():
    grey = (np.arange(48 * 40).reshape(48, 40) % 251).astype(np.uint8)
    rgb = square(grey, 32)
    assert rgb.shape == (3, 32, 32) and rgb.dtype == torch.float32 and torch.equal(rgb[0], rgb[2])
    assert rgb.min() >= 0 and rgb.max() <= 1
    mask = square(np.where(grey > 128, 255, 0).astype(np.uint8), 32, mask=True)
    assert mask.shape == (32, 32) and set(mask.unique().tolist()) == {0.0, 1.0}


def batch_of(model: MVFANetwork) -> tuple[list[torch.Tensor], torch.Tensor, torch.Tensor, torch.Tensor]:
    images, masks = slices(3, 1, lesion=True)
    frozen = model.frozen(torch.from_numpy(images))
    return frozen, torch.tensor([1.0, 0.0, 1.0]), torch.from_numpy(masks).float(), torch.tensor([True, True, False])


def test_a_batch_is_the_mean_of_its_samples(clip):
    model = MVFANetwork(clip, MVFAOptions())
    model.use_class("Brain")
    trainer, (frozen, *rest) = Trainer(model, 1e-3), batch_of(model)
    together = trainer.losses(frozen, *rest, text=None)
    alone = []
    for now in (slice(i, i + 1) for i in range(3)):
        alone.append(trainer.losses([state[now] for state in frozen], *(part[now] for part in rest), text=None))
    for ours, parts in zip(together, zip(*alone, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(parts).mean(dim=0), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("residual", [0.1, 0.0])
def test_without_masks_only_the_det_head_learns(embedded, residual):
    model = MVFANetwork(embedded, MVFAOptions(residual=residual))
    initialise(model, 0)
    trainer, (frozen, labels, masks, _) = Trainer(model, 1e-3), batch_of(model)
    before = {key: value.clone() for key, value in model.head_state().items()}
    losses = trainer.step(frozen, labels, masks, torch.zeros(3, dtype=torch.bool))
    assert losses.focal.sum() == losses.dice.sum() == 0
    changed = {key for key, value in model.head_state().items() if not torch.equal(value, before[key])}
    ends = (
        "fc1.0.weight",
        "vectors",
        *(f"{level}.fc2.0.weight" for level in range(3) if residual),
    )  # none after level 3
    assert changed == {key for key in before if key.startswith(("det_", "learned_text.det")) and key.endswith(ends)}


def test_residual_is_the_reference_on_clip_and_none_on_a_cnn(clip, embedded):
    assert MVFANetwork(clip, MVFAOptions()).residual == 0.1 and MVFANetwork(embedded, MVFAOptions()).residual == 0
    images = slices(2, 1)[0]
    for residual, changed in ((0.1, True), (0.0, False)):
        model = MVFANetwork(embedded, MVFAOptions(residual=residual))
        with torch.no_grad():
            levels = list(model.levels(model.frozen(images)))
        plain = embedded.taps(torch.from_numpy(images)[:, None].repeat(1, 3, 1, 1))
        assert torch.equal(levels[0].before, plain[0])
        assert torch.allclose(levels[3].before, plain[3], atol=1e-5) is not changed
        assert torch.equal(levels[3].before, levels[3].after) is not changed


@pytest.mark.parametrize("limit", [0, 100_000, 1 << 30])
def test_frozen_states_are_those_of_the_images(clip, limit):
    model = MVFANetwork(clip, MVFAOptions(residual=0.0))
    images = torch.from_numpy(slices(4, 1)[0])
    states = FrozenStates(model, images, limit)
    for chosen in ([2, 0], [1, 2, 2], [0, 1, 2, 3]):
        for ours, theirs in zip(states[torch.tensor(chosen)], model.frozen(images[chosen]), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


def test_memory_is_the_smallest_cosine_distance(monkeypatch):
    bank = TokenMemory(2, 8)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(57, 8, generator=generator)
    tokens[3] = 0  # a norm of zero
    queries = torch.randn(3, 5, 8, generator=generator)
    bank.remember(1, tokens)
    expected = (1 - F.cosine_similarity(queries[:, :, None], tokens, dim=-1)).amin(dim=-1)
    assert bank.sizes == [0, 57]
    torch.testing.assert_close(bank.distance(1, queries), expected)
    monkeypatch.setattr(token_memory, "BLOCK", (4, 10))
    torch.testing.assert_close(bank.distance(1, queries), expected)


def test_memory_is_bounded(embedded):
    model = MVFANetwork(embedded, MVFAOptions(memory_tokens=20))
    model.remember(slices(2, 1)[0])
    assert model.memory.sizes == [20, 20, 20, 8]  # the last level has 2 × 2 tokens an image
    unbounded = MVFANetwork(embedded, MVFAOptions(memory_tokens="all"))
    unbounded.remember(slices(2, 1)[0])
    assert unbounded.memory.sizes == [2 * grid**2 for grid in embedded.grids]


def test_remembered_images_are_not_anomalous(embedded):
    model = MVFANetwork(embedded, MVFAOptions(memory_tokens="all"))
    initialise(model, 0)
    images = slices(3, 1)[0]
    model.remember(images)
    assert model.evidence(images).few_map.abs().max() < 1e-5
    assert model.evidence(slices(3, 1, lesion=True)[0]).few_map.max() > 1e-3


def test_calibration_spans_normal_to_abnormal(fitted):
    low, high = fitted.ranges.T
    normal = fitted.evidence(slices(6, 3)[0], fitted.scored)
    assert torch.equal(low, torch.stack([part.min() for part in normal]))
    assert (high >= torch.stack([part.max() for part in normal])).all()
    assert (high > low)[[field != "zero_score" for field in normal._fields]].all(), "zero_score is not needed here"


def test_zero_shot_with_prompts_only(clip):
    model = MVFANetwork(clip, MVFAOptions())
    images = torch.from_numpy(slices(3, 1)[0])
    with pytest.raises(DetectorError, match="no class"):
        model.anomaly(images)
    model.use_class("Chest X-ray film")
    torch.testing.assert_close(model.text("seg").norm(dim=0), torch.ones(2))
    maps, scores = model.anomaly(images)
    evidence = model.evidence(images)
    torch.testing.assert_close(maps, evidence.zero_map / 4)
    torch.testing.assert_close(scores, evidence.zero_score / 4)
    assert evidence.few_map.sum() == 0


def test_encoder_loaded_in_inference_mode_can_be_trained_through(clip):
    with torch.inference_mode():
        other = load_encoder(clip.name, 2 * SIZE - 8, "cpu")  # of a size that no other test loads
    assert not any(parameter.is_inference() for parameter in other.parameters())


def test_few_shot_on_clip(clip):
    model = MVFANetwork(clip, MVFAOptions(max_samples=8, batch=4))
    phases = []
    MVFA.fit(model, shots(2), 0, lambda phase, *_: phases.append(phase))
    assert phases[0] == "text"
    assert model.memory.sizes == [2 * 11 * (1 + grid**2) for grid in clip.grids], "the class token is remembered too"
    assert model.anomaly(torch.from_numpy(slices(2, 1)[0]))[0].shape == (2, SIZE, SIZE)


def test_prompts_need_a_text_tower(embedded):
    with pytest.raises(DetectorError, match="text tower"):
        MVFANetwork(embedded, QUICK).use_class("Brain")


def test_reference_checkpoint_round_trip(clip, tmp_path):
    model, other = MVFANetwork(clip, MVFAOptions()), MVFANetwork(clip, MVFAOptions())
    torch.save(MVFAReference().state(model), tmp_path / "Brain.pth")
    state = torch.load(tmp_path / "Brain.pth", weights_only=True)
    assert set(state) == {"seg_adapters", "det_adapters"}
    assert "3.fc2.0.weight" in state["seg_adapters"]
    MVFAReference().load_state(other, state)
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_foreign_checkpoints_are_refused(clip, embedded):
    state = MVFAReference().state(MVFANetwork(clip, MVFAOptions()))
    with pytest.raises(DetectorError, match="learned vectors"):
        MVFAReference().load_state(MVFANetwork(embedded, QUICK), state)
    with pytest.raises(DetectorError, match="holds"):
        MVFAReference().load_state(MVFANetwork(clip, MVFAOptions()), {"seg_adapters": state["seg_adapters"]})
    with pytest.raises(DetectorError, match="no state dict"):
        MVFAReference().load_state(MVFANetwork(clip, MVFAOptions()), {**state, "det_adapters": {"0.fc1.0.weight": "x"}})


@pytest.mark.parametrize("values", [np.array([1.0, 3.0, 2.0]), torch.tensor([1.0, 3.0, 2.0])])
def test_combination_over_a_set(values):
    assert unit_range(values).tolist() == [0.0, 1.0, 0.5]
    assert combine(values, -values).tolist() == [0.5, 0.5, 0.5]
    assert combine(values, values * 0 + 7).tolist() == [0.0, 0.5, 0.25], "a constant says nothing"


@pytest.mark.parametrize("option", [{"epochs": 0}, {"batch": 0}, {"learning_rate": 0}, {"class_name": ""}, {"lr": 1}])
def test_options_are_checked(option):
    with pytest.raises(ValueError):
        MVFAOptions(**option)
