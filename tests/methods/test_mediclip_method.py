"""MediCLIP on the embedded encoder and on a tiny CLIP with random weights: training, memory, variants."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from discs import SIZE, slices

from medclipad.errors import Cancelled, TrainingError
from medclipad.methods.base import Shots
from medclipad.methods.common.normal_memory import UNKNOWN, NormalMemory
from medclipad.methods.mediclip.method import MediCLIP
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mediclip.training import learn, new_optimiser, step

QUICK = MediCLIPOptions(max_steps=3, memory_size=300, memory_share=0.9)


def shots(n: int = 6, m: int = 0) -> Shots:
    images, masks = slices(m, 1, lesion=True)
    return Shots(slices(n, 2)[0], images, tuple(masks))


def fitted(encoder, options=QUICK, given=None, seed=0) -> MediCLIPNetwork:
    torch.manual_seed(seed)
    model = MediCLIPNetwork(encoder, options)
    MediCLIP.fit(model, given or shots(), seed)
    model.calibrate(slices(6, 3)[0])
    return model


@pytest.fixture(scope="module")
def quick(embedded) -> MediCLIPNetwork:
    return fitted(embedded)


def test_finds_lesions_of_unseen_slices(quick):
    images, masks = slices(6, 4, lesion=True)
    maps, scores = quick.anomaly(torch.from_numpy(images))
    healthy, _ = quick.anomaly(torch.from_numpy(slices(6, 5)[0]))
    assert scores is None, "a slice's score follows from its map"
    assert maps.shape == (6, SIZE, SIZE) and maps.min() >= 0 and maps.max() <= 1
    inside = torch.from_numpy(masks)
    assert maps[inside].mean() > maps[~inside].mean() + 0.2
    assert maps.amax((1, 2)).min() > healthy.amax((1, 2)).max()


def test_training_finds_synthetic_anomalies(embedded):
    """Without the memory, the head finds lesions after training on synthetic ones."""
    options = MediCLIPOptions(max_steps=60, memory_share=0)
    losses = []
    torch.manual_seed(0)
    model = MediCLIPNetwork(embedded, options)
    given = shots(8, 8)
    MediCLIP.fit(model, given, 0, lambda phase, done, total, info: losses.append(info.get("loss")))
    losses = [loss for loss in losses if loss is not None]
    assert len(losses) == 60 and np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])
    images, masks = slices(6, 4, lesion=True)
    maps, _ = model.anomaly(torch.from_numpy(images))
    inside = torch.from_numpy(masks)
    assert maps[inside].mean() > maps[~inside].mean() + 0.3


@pytest.mark.parametrize("fixture", ["embedded", "clip"])
@pytest.mark.parametrize("variant", ["reference", "paper"])
def test_maps_are_sound_in_both_variants(request, fixture, variant):
    encoder = request.getfixturevalue(fixture)
    model = fitted(encoder, MediCLIPOptions(max_steps=2, memory_size=50, variant=variant))
    maps, _ = model.anomaly(torch.from_numpy(slices(3, 4, lesion=True)[0]))
    assert maps.shape == (3, SIZE, SIZE) and maps.isfinite().all() and maps.min() >= 0 and maps.max() <= 1
    both = model.probabilities(model.patch_tokens(torch.from_numpy(slices(1, 4)[0])))
    torch.testing.assert_close(both.sum(dim=1), torch.ones(1, SIZE, SIZE))


def test_variants_differ_in_temperature(clip):
    """A cosine is at most 1: without temperature a softmax of two stays in (.119, .881), with τ = .07 it does not."""
    models = [MediCLIPNetwork(clip, MediCLIPOptions(variant=variant)) for variant in ("reference", "paper")]
    models[1].load_head_state(models[0].head_state())
    tokens = models[0].patch_tokens(torch.from_numpy(slices(2, 4)[0]))
    text = models[0].prompts()[:, 1]
    with torch.no_grad():
        for model in models:  # adapted tokens all point to the abnormal text, whatever they were
            for adapter in model.adapters:
                adapter.weight.zero_()
                adapter.bias.copy_(text)
            model.prompts.abnormal_context.add_(torch.randn(model.prompts.abnormal_context.shape))
        plain, sharp = (model.probabilities(tokens)[:, 1] for model in models)
    assert 0.119 < plain.min() <= plain.max() < 0.881
    assert (sharp - 0.5).abs().max() > 3 * (plain - 0.5).abs().max() > 0


def test_a_slice_does_not_depend_on_its_neighbours(quick):
    images = torch.from_numpy(np.concatenate([slices(5, 6)[0], slices(5, 7, lesion=True)[0]]))
    alone = torch.cat([quick.anomaly(image)[0] for image in images.split(1)])
    torch.testing.assert_close(quick.anomaly(images)[0], alone, atol=1e-4, rtol=0)


def test_training_is_reproducible_for_a_seed(embedded):
    states = [fitted(embedded, seed=seed).head_state() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    for key in ("adapters.0.weight", "prompts.vectors", "memory.tokens"):
        assert not torch.equal(states[0][key], states[2][key])


def test_shots_are_left_as_they_are(embedded):
    given = shots(4, 2)
    before = [given.normal.copy(), given.abnormal.copy(), np.stack(given.masks)]
    fitted(embedded, given=given)
    for now, then in zip((given.normal, given.abnormal, np.stack(given.masks)), before, strict=True):
        assert np.array_equal(now, then)


@pytest.mark.parametrize(("n", "options", "steps"), [
    (6, {"epochs": 4}, 4), (9, {"epochs": 4}, 8), (9, {"epochs": 4, "batch": 3}, 12),
    (9, {"epochs": 4, "batch": 256}, 4),
    (9, {"epochs": 4, "max_steps": 3}, 3), (1, {"epochs": 2}, 2),
])  # fmt: skip
def test_training_lengths(embedded, n, options, steps):
    calls = []
    model = MediCLIPNetwork(embedded, MediCLIPOptions(memory_size=10, memory_share=0.9, **options))
    figures = MediCLIP.fit(model, shots(n), 0, lambda *call: calls.append(call))
    train = [call for call in calls if call[0] == "train"]
    assert figures["steps"] == steps and [call[1:3] for call in train] == [(i + 1, steps) for i in range(steps)]
    assert all(np.isfinite(call[3]["loss"]) for call in train)
    per_epoch = -(-n // min(options.get("batch", 8), n))
    assert [call[3]["epoch"] for call in train] == [i // per_epoch + 1 for i in range(steps)]
    assert calls[-1][:3] == ("memory", n, n)


def test_default_lengths(clip, embedded, monkeypatch):
    seen = []
    monkeypatch.setattr("medclipad.methods.mediclip.training.learn", lambda *args: seen.append(1) or (0.0, 0.0))
    blank = np.zeros((SIZE, SIZE), np.uint8), np.zeros((SIZE, SIZE))
    monkeypatch.setattr("medclipad.methods.mediclip.training.AnomalySynthesis", lambda *a, **k: lambda *args: blank)
    description = MediCLIPOptions.model_fields["max_steps"].description
    cases = (
        (clip, None, "default: {} if short"),
        (clip, "published", "{} (16 slices for 200 epochs) if as published"),
        (embedded, None, "or {} on an encoder without a text tower"),
    )
    for encoder, schedule, words in cases:
        seen.clear()
        model = MediCLIPNetwork(encoder, MediCLIPOptions(memory_size=10, memory_share=0.9, schedule=schedule))
        assert MediCLIP.fit(model, shots(16), 0)["steps"] == len(seen)
        assert words.format(len(seen)) in description


@pytest.mark.parametrize(("schedule", "first", "last"), [("published", 1e-3, 1e-3), ("short", 2e-3, 0)])
def test_learning_rate_of_a_schedule(embedded, monkeypatch, schedule, first, last):
    """Constant as published, or falling along a cosine to 0; a chosen rate is the first."""
    rates = []

    def record(model, optimiser, *batch):
        rates.append(optimiser.param_groups[0]["lr"])
        return learn(model, optimiser, *batch)

    monkeypatch.setattr("medclipad.methods.mediclip.training.learn", record)
    for chosen in (None, 5e-4):
        rates.clear()
        options = MediCLIPOptions(schedule=schedule, max_steps=20, learning_rate=chosen, memory_share=0)
        MediCLIP.fit(MediCLIPNetwork(embedded, options), shots(2), 0)
        assert len(rates) == 20 and rates == sorted(rates, reverse=True)
        assert rates[0] == (chosen or first) and rates[-1] == pytest.approx(last and (chosen or last), abs=2e-5)
        if schedule == "short":
            assert rates[10] == pytest.approx(rates[0] / 2)


def test_needs_normal_slices(embedded):
    none = Shots(np.empty((0, SIZE, SIZE), np.float32), *[getattr(shots(1, 1), part) for part in ("abnormal", "masks")])
    with pytest.raises(TrainingError, match="at least one"):
        MediCLIP.fit(MediCLIPNetwork(embedded, QUICK), none, 0)


def test_training_can_be_stopped(embedded):
    def stop(phase, done, total, info):
        if done == 2:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        MediCLIP.fit(MediCLIPNetwork(embedded, QUICK), shots(), 0, stop)


def test_only_the_head_learns(clip):
    torch.manual_seed(0)
    model = MediCLIPNetwork(clip, MediCLIPOptions())
    encoder = {key: value.clone() for key, value in clip.state_dict().items()}
    head = {key: value.clone() for key, value in model.head_state().items()}
    images, masks = slices(2, 1, lesion=True)
    step(model, new_optimiser(model), torch.from_numpy(images * 255).byte(), torch.from_numpy(masks).double())
    assert all(torch.equal(value, encoder[key]) for key, value in clip.state_dict().items())
    assert {key for key, value in model.head_state().items() if not torch.equal(value, head[key])} == {
        key for key in head if key != "text_features"
    }, "the text features are kept when the training is over"
    assert set(head) == {
        "text_features",
        *(f"adapters.{level}.{part}" for level in range(3) for part in ("weight", "bias")),
        "prompts.normal_context",
        "prompts.abnormal_context",
    }


def test_real_lesions_join_the_synthetic_ones(embedded, monkeypatch):
    """About half of the slices of all steps are real ones with their masks; those without a mask are left out."""
    seen = []

    def record(model, optimiser, tokens, masks):
        seen.extend(zip(np.round(tokens[0].numpy() * 255).astype(np.uint8), masks.numpy(), strict=True))
        return 0.0, 0.0

    monkeypatch.setattr("medclipad.methods.mediclip.training.learn", record)
    model = MediCLIPNetwork(embedded, MediCLIPOptions(max_steps=40, memory_size=10, memory_share=0.9))
    monkeypatch.setattr(model, "patch_tokens", lambda images: [images])
    monkeypatch.setattr(model, "remember", lambda *args: None)
    images, masks = slices(3, 1, lesion=True)
    given = Shots(slices(8, 2)[0], images, (masks[0], None, masks[2]))
    MediCLIP.fit(model, given, 0)
    real = np.round(images * 255).astype(np.uint8)
    counts = [sum(np.array_equal(image, lesion) for image, _ in seen) for lesion in real]
    assert len(seen) == 320 and counts[1] == 0
    assert 0.4 < sum(counts) / len(seen) < 0.6 and min(counts[0], counts[2]) > 40
    assert all(np.array_equal(mask, masks[0]) for image, mask in seen if np.array_equal(image, real[0]))


def test_head_round_trip(quick, embedded):
    images = torch.from_numpy(slices(2, 9, lesion=True)[0])
    other = MediCLIPNetwork(embedded, QUICK)
    assert not len(other.memory.tokens), "nothing is known yet"
    other.load_head_state({key: value.clone() for key, value in quick.head_state().items()})
    assert torch.equal(other.anomaly(images)[0], quick.anomaly(images)[0])


@pytest.mark.parametrize("key", ["adapters.1.weight", "memory.tokens", "prompts.vectors"])
def test_foreign_head_is_refused(quick, embedded, key):
    state = quick.head_state()
    state[key] = state[key][:, :-1]
    with pytest.raises(ValueError, match=f"{key} has shape"):
        MediCLIPNetwork(embedded, QUICK).load_head_state(state)
    del state[key]
    with pytest.raises(KeyError, match="differ"):
        MediCLIPNetwork(embedded, QUICK).load_head_state(state)


def test_memory_is_the_default_only_without_text(clip, embedded):
    assert MediCLIPNetwork(clip, MediCLIPOptions()).memory is None, "as published"
    assert MediCLIPNetwork(clip, MediCLIPOptions(memory_share=0.5)).memory is not None
    assert MediCLIPNetwork(embedded, MediCLIPOptions()).memory_share == 1
    assert MediCLIPNetwork(embedded, MediCLIPOptions(memory_share=0)).memory is None


def test_the_memory_alone_needs_no_training(embedded):
    told = []
    model = MediCLIPNetwork(embedded, MediCLIPOptions(memory_size=300))
    assert MediCLIP.fit(model, shots(), 0, lambda phase, *_: told.append(phase)) == {}
    assert set(told) == {"train"}, "to fill it is the training"


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_memory_share_mixes_the_two_maps(embedded, share):
    model = fitted(embedded, MediCLIPOptions(max_steps=1, memory_size=100, memory_share=share))
    images = torch.from_numpy(slices(2, 4, lesion=True)[0])
    tokens = model.patch_tokens(images)
    text = model.probabilities(tokens)[:, 1]
    memory = model.memory(model.memory_maps(tokens), images)
    torch.testing.assert_close(model.anomaly(images)[0], (1 - share) * text + share * memory)


def test_far_distances_stay_distinct(embedded):
    memory = NormalMemory((1, 1), 1)
    maps = [torch.ones(4, 1, 2, 2) * torch.tensor([1.0, 2, 20, 200]).view(4, 1, 1, 1)] * 2
    images = torch.zeros(4, 8, 8)
    memory.tokens = memory.join([features[:1] for features in maps], images[:1])[0, 0, :1].half()
    memory.places = torch.full((1, 3), UNKNOWN)
    memory.scale.fill_(0.5)
    values = memory(maps, images)[:, 0, 0]
    far = memory.distance(memory.join(maps, images))[:, 0, 0] / 0.5
    assert far[1] < 1 < far[2] and values[1].item() == pytest.approx(far[1].item() / 2, abs=1e-3)
    assert values[0] < values[1] < 0.5 < values[2] < values[3] < 1


def test_remembered_slices_are_not_anomalous(embedded):
    model = MediCLIPNetwork(embedded, MediCLIPOptions(memory_size=2000, memory_share=1))
    normal = slices(3, 1)[0]
    model.remember(Shots(normal, normal[:0], ()), 0)
    both = normal, slices(3, 1, lesion=True)[0]
    known, new = (model.memory.distance(torch.cat([*model._memory_tokens(images)])) for images in both)
    assert known.max() < 0.05 * new.max()


def test_score_is_the_mean_of_the_highest_share(embedded, clip):
    maps = torch.arange(100.0).view(1, 10, 10) / 100
    for share, expected in ((0, 0.99), (0.02, 0.985), (1, 0.495)):
        assert MediCLIPNetwork(embedded, MediCLIPOptions(score_share=share)).scores_of(maps).item() == pytest.approx(
            expected
        )
    assert MediCLIPNetwork(embedded, MediCLIPOptions()).score_share == 0.02
    assert MediCLIPNetwork(clip, MediCLIPOptions()).score_share == 0, "the maximum, as published"


@pytest.mark.parametrize("option", [
    {"epochs": 0}, {"batch": 0}, {"learning_rate": 0}, {"memory_share": 1.5}, {"memory_size": 0}, {"max_steps": 0},
    {"score_share": 2}, {"variant": "magic"}, {"lr": 1},
])  # fmt: skip
def test_options_are_checked(option):
    with pytest.raises(ValueError, match=next(iter(option))):
        MediCLIPOptions(**option)
