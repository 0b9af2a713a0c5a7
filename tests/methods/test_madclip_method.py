"""MadCLIP on the embedded encoder and on a tiny CLIP with random weights: training, heads, prompts, a detector."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from discs import SIZE, slices

import medclipad as mc
from medclipad.errors import Cancelled, DetectorError, TrainingError
from medclipad.methods.base import Shots
from medclipad.methods.madclip.adapters import BranchAdapter
from medclipad.methods.madclip.method import MadCLIP
from medclipad.methods.madclip.network import MadCLIPNetwork
from medclipad.methods.madclip.options import MadCLIPOptions
from medclipad.methods.madclip.prompts import N_CONTEXT, PLACES, ContextPrompts
from medclipad.methods.madclip.reference import MadCLIPReference
from medclipad.methods.madclip.training import augmented, detection_loss, samples

QUICK = MadCLIPOptions(max_samples=384, learning_rate=3e-3)


def shots(k: int = 4, masked: str = "all") -> Shots:
    images, masks = slices(k, 1, lesion=True)
    keep = {"all": k, "half": k // 2, "none": 0}[masked]
    return Shots(slices(k, 2)[0], images, tuple(mask if i < keep else None for i, mask in enumerate(masks)))


def fitted(encoder, given=None, options=QUICK, seed=0, progress=lambda *_: None) -> MadCLIPNetwork:
    torch.manual_seed(seed)
    model = MadCLIPNetwork(encoder, options)
    MadCLIP.fit(model, given or shots(), seed, progress)
    return model


@pytest.fixture(scope="module")
def trained(embedded) -> MadCLIPNetwork:
    return fitted(embedded)


def test_finds_lesions_of_unseen_slices(trained):
    images, masks = slices(6, 4, lesion=True)
    maps, scores = trained.anomaly(torch.from_numpy(images))
    healthy, _ = trained.anomaly(torch.from_numpy(slices(6, 5)[0]))
    assert scores is None and trained.head == "seg", "with masks a slice's score follows from its map"
    assert maps.shape == (6, SIZE, SIZE) and maps.min() >= 0 and maps.max() <= 1
    inside = torch.from_numpy(masks)
    assert maps[inside].mean() > maps[~inside].mean() + 0.2
    assert trained.scores_of(maps).min() > trained.scores_of(healthy).max()


@pytest.mark.parametrize("share", [0, None])
def test_without_masks_the_detection_head_makes_map_and_score(embedded, share):
    options = MadCLIPOptions(max_samples=384, learning_rate=3e-3, score_share=share)
    model = fitted(embedded, shots(masked="none"), options)
    images = torch.from_numpy(np.concatenate([slices(4, 4, lesion=True)[0], slices(4, 5)[0]]))
    maps, scores = model.anomaly(images)
    assert model.head == "det" and (scores is None) == (share is None)
    values = model.scores_of(maps) if scores is None else scores
    assert values[:4].min() > values[4:].max()


def test_slices_without_a_mask_have_no_part_in_the_map_losses(embedded):
    data = samples(shots(masked="half"), torch.Generator().manual_seed(0))
    assert len(data.images) == 16 * 8 and data.labels.sum() == 64
    assert data.has_mask[:64].tolist() == [True, True, False, False] * 16 and data.has_mask[64:].all()
    assert not data.masks[64:].any() and data.masks[:64:4].flatten(1).any(dim=1).all()
    losses = []
    fitted(embedded, shots(masked="half"), progress=lambda *call: losses.append(call[3]["loss"]))
    assert len(losses) == 24 and np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])


def test_training_is_reproducible_and_leaves_the_shots(embedded):
    given, options = shots(), MadCLIPOptions(max_samples=32)
    before = given.normal.copy(), given.abnormal.copy()
    states = [fitted(embedded, given, options, seed).head_state() for seed in (0, 0, 1)]
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    for key in ("normal_adapters.0.shared.weight", "vectors.seg.0.vectors"):
        assert not torch.equal(states[0][key], states[2][key])
    assert np.array_equal(given.normal, before[0]) and np.array_equal(given.abnormal, before[1])


def test_vectors_are_learned_for_each_head_and_stage(trained):
    vectors = [module.vectors for head in trained.learned_vectors.values() for module in head]
    assert len(vectors) == 2 * 3, "of a CNN the first stage is left out"
    assert len({vector.data_ptr() for vector in vectors}) == len(vectors)
    assert not hasattr(trained, "memory") and not trained.can_leave_out


def test_clip_learns_prompts_and_forgets_the_tower(clip):
    torch.manual_seed(0)
    start = {key: value.clone() for key, value in MadCLIPNetwork(clip, QUICK).prompts.contexts.items()}
    model = fitted(clip, shots(2), MadCLIPOptions(max_samples=16, class_name="Liver"))
    assert all(not torch.equal(start[key], value) for key, value in model.prompts.contexts.items())
    assert model.score_share == 0, "as published"
    torch.testing.assert_close(model.text_features, model.prompts().detach())
    images = torch.from_numpy(slices(2, 9, lesion=True)[0])
    other = MadCLIPNetwork(clip, MadCLIPOptions(class_name="Liver"))
    with pytest.raises(DetectorError, match="fit it"):
        other.anomaly(images)
    other.load_head_state({key: value.clone() for key, value in model.head_state().items()})
    maps = other.anomaly(images)[0]
    assert torch.equal(maps, model.anomaly(images)[0]) and maps.shape == (2, SIZE, SIZE)


def test_states_go_behind_before_and_between_the_context(clip):
    prompts = ContextPrompts(clip, "Chest X-ray film")
    end = int(prompts.tokens("abnormal").argmax(dim=1)[0])
    plain = prompts._text.token_embedding(prompts.tokens("abnormal"))[0]
    state, n = plain[1 + N_CONTEXT : end - 1], end - 2 - N_CONTEXT
    starts = {"end": 1 + N_CONTEXT, "front": 1, "middle": 1 + N_CONTEXT // 2}
    for place in PLACES:
        embedded = prompts.embeddings("abnormal", place)[0]
        assert torch.equal(embedded[starts[place] : starts[place] + n], state), place
        assert torch.equal(embedded[end - 1 :], plain[end - 1 :]) and torch.equal(embedded[0], plain[0])


def test_each_token_is_normalised_over_its_features():
    """As InstanceNorm1d does with tensors (tokens, batch, width): a token does not depend on the others."""
    adapter, x = BranchAdapter(6, 4), torch.randn(2, 5, 6)
    hidden = torch.nn.functional.leaky_relu(adapter.shared(x))
    theirs = torch.nn.InstanceNorm1d(len(x))(hidden.transpose(0, 1)).transpose(0, 1)
    expected = torch.nn.functional.leaky_relu(adapter.det(theirs))
    torch.testing.assert_close(adapter(x)["det"], expected)
    torch.testing.assert_close(adapter(x[:, :1])["seg"], adapter(x)["seg"][:, :1])


def test_detection_loss_wants_each_branch_on_its_side():
    labels = torch.tensor([0.0, 1.0])
    right = torch.tensor([[[2.0, -2.0]], [[-2.0, 2.0]]])
    low, zero, high = (float(detection_loss(value, labels)) for value in (right, 0 * right, -right))
    assert low < zero < high and zero == pytest.approx(2 * np.log(2))
    assert low == pytest.approx(2 * np.log1p(np.exp(-2)))


def test_sixteen_versions_in_the_range_of_images():
    images = torch.from_numpy(slices(2, 3)[0])
    versions = augmented(images, torch.Generator().manual_seed(0))
    assert versions.shape == (32, SIZE, SIZE) and versions.min() >= 0 and versions.max() <= 1
    assert torch.equal(versions[:2], images) and not torch.equal(versions[30:], images)
    assert torch.equal(augmented(images, None)[30:], images), "a mask keeps its values"


def test_needs_normal_and_abnormal(embedded):
    full, none = shots(), np.empty((0, SIZE, SIZE), np.float32)
    with pytest.raises(TrainingError, match="abnormal, or use a method that needs normal slices alone"):
        fitted(embedded, Shots(full.normal, none, ()))
    with pytest.raises(TrainingError, match="at least one normal"):
        fitted(embedded, Shots(none, full.abnormal, full.masks))
    with pytest.raises(TrainingError, match="batch: Input should be greater than or equal to 1"):
        mc.fit(method="madclip", normal=[volume(0)], batch=0)


def test_progress_reports_each_step_and_can_stop(embedded):
    seen = []
    fitted(embedded, options=MadCLIPOptions(max_samples=40), progress=lambda *call: seen.append(call))
    assert [call[:3] for call in seen] == [("train", 1, 3), ("train", 2, 3), ("train", 3, 3)]

    def stop(*_):
        raise Cancelled

    with pytest.raises(Cancelled):
        fitted(embedded, progress=stop)


def test_foreign_head_is_refused(trained, embedded):
    state = trained.head_state()
    state["vectors.det.0.vectors"] = state["vectors.det.0.vectors"][:, :1]
    with pytest.raises(ValueError, match="shape"):
        MadCLIPNetwork(embedded, QUICK).load_head_state(state)


def test_checkpoint_of_the_reference_code(clip, embedded, tmp_path):
    """Its file repeats the text tower; adapters and contexts come back as they were."""
    torch.manual_seed(1)
    model = MadCLIPNetwork(clip, MadCLIPOptions(class_name="retinal OCT"))
    state = {part: dict(values) for part, values in MadCLIPReference().state(model).items()}
    tower = {"text_encoder.positional_embedding": torch.zeros(77, 16)}
    state = {part: values | (tower if "prompt" in part else {}) for part, values in state.items()}
    torch.save(state, tmp_path / "Retina_RESC.tar.pth")
    detector = mc.import_checkpoint(tmp_path / "Retina_RESC.tar.pth", encoder=clip.name, image_size=SIZE)
    assert detector.info.config.options["class_name"] == "retinal OCT"
    detector.save(tmp_path / "saved")
    left_out = mc.export_checkpoint(tmp_path / "saved", tmp_path / "again.pth")
    assert any("text tower" in part for part in left_out)
    again = torch.load(tmp_path / "again.pth", weights_only=True)
    for part, values in MadCLIPReference().state(model).items():
        assert again[part].keys() == values.keys()
        assert all(torch.equal(again[part][key], value) for key, value in values.items())
    with pytest.raises(DetectorError, match="learned vectors"):
        MadCLIPReference().state(MadCLIPNetwork(embedded, QUICK))
    with pytest.raises(DetectorError, match="name it with --class-name"):
        mc.import_checkpoint((tmp_path / "again.pth"), encoder=clip.name)


def volume(seed: int, lesion: bool = False) -> mc.Volume:
    """Return a stack of ten discs; with a lesion, a bright one in three of its slices."""
    array = slices(10, seed)[0]
    if lesion:
        array[4:7] = slices(3, seed, lesion=True)[0]
    return mc.Volume(np.ascontiguousarray(array.transpose(2, 1, 0)) * 100, np.diag([3, 3, 4, 1.0]), name=f"v{seed}")


def lesions(seed: int) -> mc.Volume:
    """Return the mask of `volume(seed, lesion=True)`."""
    mask = np.zeros((10, SIZE, SIZE), np.uint8)
    mask[4:7] = slices(3, seed, lesion=True)[1]
    return mc.Volume(np.ascontiguousarray(mask.transpose(2, 1, 0)), np.diag([3, 3, 4, 1.0]), name=f"m{seed}")


def test_detector(tmp_path):
    """Fit on volumes, detect, save and load; limits rest on models without a third of the volumes."""
    detector = mc.fit(
        method="madclip", planes="axial", image_size=SIZE, shots=6, intensity="raw", max_samples=256,
        learning_rate=3e-3, normal=[volume(0), volume(1)], abnormal=[(volume(2, lesion=True), lesions(2))],
    )  # fmt: skip
    result = detector.detect(volume(9, lesion=True))
    scores = result.slice_scores
    assert scores[4:7].min() > max(scores[:4].max(), scores[7:].max())
    assert detector.info.calibration.basis == "left out"
    assert detector.info.config.options["max_samples"] == 256
    detector.save(tmp_path / "saved")
    again = mc.load_detector(tmp_path / "saved").detect(volume(9, lesion=True))
    assert np.array_equal(again.anomaly_map.array, result.anomaly_map.array)
