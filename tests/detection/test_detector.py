"""fit and detect: maps on the input's grid, at the right place, reproducible, on the embedded encoder."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch

import medclipad
from medclipad.detection.detector import AnomalyDetector, load_detector
from medclipad.detection.fit import fit
from medclipad.encoders import load_encoder, loading
from medclipad.errors import Cancelled, DetectorError, MedCLIPADError, TrainingError, VolumeError
from medclipad.volume import MINIMUM_FOREGROUND, Volume, memory_budget, slice_foreground

QUICK = {"planes": "axial", "image_size": 224, "max_steps": 3, "memory_size": 1000, "memory_share": 0.9, "shots": 12}
SMALL = {**QUICK, "image_size": 64}  # where it does not matter what is found
QUICK_MVFA = {
    "planes": "axial", "method": "mvfa", "image_size": 64, "shots": 4, "max_samples": 48, "memory_tokens": 400,
}  # fmt: skip
N_SLICES = 20


@pytest.fixture(scope="session")
def detector(head) -> AnomalyDetector:
    return fit(normal=[head(1), head(2)], **QUICK)


@pytest.fixture(scope="session")
def mvfa(head, lesion) -> AnomalyDetector:
    return fit(normal=[head(1)], abnormal=[(head(2, True), lesion)], **QUICK_MVFA)


def world(volume: Volume, voxel) -> np.ndarray:
    return volume.affine[:3, :3] @ voxel + volume.affine[:3, 3]


def hottest(anomaly_map: Volume) -> np.ndarray:
    return world(anomaly_map, np.unravel_index(anomaly_map.array.argmax(), anomaly_map.shape))


def assert_sound(result, volume):
    """What holds of every result."""
    array = result.anomaly_map.array
    assert array.dtype == np.float32 and array.shape == volume.shape
    assert result.anomaly_map.affine.tobytes() == volume.affine.tobytes()
    assert np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1
    assert not array[~result.foreground].any()
    skipped = slice_foreground(result.foreground, result.slicing) < MINIMUM_FOREGROUND
    assert np.array_equal(np.isnan(result.slice_scores), skipped)
    assert not result.slicing.slices(array)[skipped].any()


@pytest.mark.parametrize("which", ["detector", "mvfa"])
def test_map_lies_on_the_input_grid(request, head, which):
    volume = head(5, True)
    before = volume.array.copy()
    result = request.getfixturevalue(which).detect(volume)
    assert_sound(result, volume)
    assert np.isnan(result.slice_scores).any() and np.isfinite(result.slice_scores).any()
    assert result.anomaly_map.array[result.foreground].any()
    assert np.array_equal(volume.array, before), "the input is left as it is"


def test_scores_are_means_of_the_highest_values_of_the_map(detector, head):
    """Of so many pixels as 2 % of the body at its widest, smoothed along the stack by twice what smooths the map."""
    volume = head(5, True)
    result = detector.detect(volume)
    kept = np.isfinite(result.slice_scores)
    body = result.slicing.slices(result.foreground).sum(axis=(1, 2)).max()
    values = np.sort(result.slicing.slices(result.anomaly_map.array)[kept].reshape(kept.sum(), -1), axis=1)
    means = values[:, -int(0.02 * body) :].mean(axis=1)
    away = np.flatnonzero(kept) * volume.spacing[result.slicing.axis] / (2 * detector.info.smoothing)
    weights = np.exp(-((away[:, None] - away) ** 2) / 2)
    expected = weights @ means / weights.sum(axis=1)
    np.testing.assert_allclose(result.slice_scores[kept], expected, rtol=2e-3)  # ours end at four deviations
    assert result.volume_score == result.slice_scores[kept].max(), "the worst 5 % of 20 slices are one slice"


def test_space_around_the_body_does_not_change_slice_scores(detector, head):
    volume = head(5, True)
    wider = np.pad(volume.array, ((9, 9), (9, 9), (0, 0)))
    affine = volume.affine.copy()
    affine[:3, 3] -= affine[:3, :3] @ [9, 9, 0]
    around = detector.detect(Volume(wider, affine))
    np.testing.assert_allclose(around.slice_scores, detector.detect(volume).slice_scores, atol=1e-6, equal_nan=True)


def test_segmentation_and_summary(detector, head, lesion):
    result = detector.detect(head(5, True))
    mask = result.segmentation()
    assert mask.array.dtype == np.uint8 and mask.affine.tobytes() == head(5).affine.tobytes()
    above = result.anomaly_map.array > result.threshold
    assert mask.array.any() and not (mask.array.astype(bool) & ~above).any()
    assert np.array_equal(result.segmentation(result.threshold).array.astype(bool), above)
    inside = lesion.array > 0
    assert mask.array[inside].mean() > 0.9 > 2 * mask.array[~inside].mean()
    assert not result.segmentation(1.0).array.any()
    summary = result.summary()
    assert summary["plane"] == "axial" and len(summary["slice_scores"]) == N_SLICES
    assert summary["slice_scores"][0] is None and summary["volume_score"] == result.volume_score


@pytest.mark.parametrize("which", ["detector", "mvfa"])
@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASR", "PIL"])
def test_blob_is_hottest_in_world_space_for_any_axis_order(request, head, reordered, which, codes, blob):
    model, volume = request.getfixturevalue(which), head(5, True)
    turned = reordered(volume, codes)
    result = model.detect(turned)
    assert_sound(result, turned)
    assert np.linalg.norm(hottest(result.anomaly_map) - world(volume, blob)) < 8
    straight = model.detect(volume)
    back = reordered(result.anomaly_map, "RAS")
    np.testing.assert_allclose(back.array, straight.anomaly_map.array, atol=1e-5)
    np.testing.assert_allclose(result.slice_scores, straight.slice_scores, atol=1e-5)


def test_a_lesion_raises_the_volume_score(detector, head):
    assert detector.detect(head(5, True)).volume_score > detector.detect(head(5)).volume_score + 0.05


@pytest.mark.parametrize(("plane", "resolved", "n"), [
    ("coronal", "coronal", 44), ("sagittal", "sagittal", 40), ("acquisition", "axial", 20),
])  # fmt: skip
def test_planes(head, plane, resolved, n, blob):
    model = fit(normal=[head(1)], **{**QUICK, "planes": plane})
    result = model.detect(head(5, True))
    assert (result.plane, len(result.slice_scores), model.info.plane) == (resolved, n, plane)
    assert_sound(result, head(5))
    assert np.linalg.norm(hottest(result.anomaly_map) - world(head(5), blob)) < 8


def test_plane_may_be_chosen_at_detection(detector, head):
    coronal = detector.detect(head(5, True), plane="coronal")
    assert (coronal.plane, len(coronal.slice_scores)) == ("coronal", 44)
    assert not np.array_equal(coronal.anomaly_map.array, detector.detect(head(5, True)).anomaly_map.array)


def test_seed_decides_and_global_generators_are_left_alone(detector, head):
    torch.manual_seed(12345)  # another state than when the first detector was made
    torch_state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    again = fit(normal=[head(1), head(2)], **QUICK)
    assert torch.equal(torch.get_rng_state(), torch_state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)
    other = fit(normal=[head(1), head(2)], seed=1, **QUICK)
    first, second, third = (model.detect(head(5, True)).anomaly_map.array for model in (detector, again, other))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, third)
    assert again.info.training_slices == detector.info.training_slices
    assert again.info.calibration == detector.info.calibration


@pytest.mark.parametrize("options", [SMALL, QUICK_MVFA], ids=["mediclip", "mvfa"])
@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_fit_trains_where_the_caller_switched_gradients_off(head, lesion, options, without_gradients):
    given = {"normal": [head(1)], "abnormal": [(head(2, True), lesion)], **options}
    with without_gradients():
        quiet = fit(**given)
        assert not torch.is_grad_enabled(), "the caller's mode is left as it was"
        assert torch.is_inference_mode_enabled() == (without_gradients is torch.inference_mode)
    usual = fit(**given)
    assert torch.is_grad_enabled() and quiet.info.metrics == usual.info.metrics
    states = [detector.model.head_state() for detector in (quiet, usual)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


@pytest.mark.parametrize("which", ["detector", "mvfa"])
def test_saved_detector_gives_the_same_map(request, head, tmp_path, which):
    model = request.getfixturevalue(which)
    model.save(tmp_path / "saved")
    loaded = load_detector(tmp_path / "saved")
    assert loaded.info == model.info
    ours, theirs = loaded.detect(head(5, True)), model.detect(head(5, True))
    assert np.array_equal(ours.anomaly_map.array, theirs.anomaly_map.array)
    assert np.array_equal(ours.slice_scores, theirs.slice_scores, equal_nan=True)
    assert ours.threshold == theirs.threshold


def test_info_says_how_it_was_made(detector):
    info = detector.info
    assert (info.method, info.encoder, info.plane, info.intensity) == ("mediclip", "embedded", "axial", "mr")
    assert info.normal_slices == 12 == sum(len(record["normal"]) for record in info.training_slices)
    assert info.abnormal_slices == 0 and info.image_size == QUICK["image_size"]
    assert info.calibration.basis == "left out" and [scan.name for scan in info.calibration.scans] == ["head1", "head2"]
    assert info.spare_slices > 0
    assert info.versions.keys() >= {"medclipad", "torch"} and info.config.options["max_steps"] == QUICK["max_steps"]
    assert info.metrics["steps"] == QUICK["max_steps"]


def test_progress_is_told(head):
    calls = []
    model = fit(normal=[head(1)], progress=lambda *call: calls.append(call), **SMALL)
    assert {"read", "train", "memory", "calibrate"} <= {phase for phase, *_ in calls}
    train = [(done, total) for phase, done, total, _ in calls if phase == "train"]
    steps = SMALL["max_steps"]
    assert train == [(step, steps) for step in range(1, steps + 1)]
    calls.clear()
    result = model.detect(head(5), progress=lambda *call: calls.append(call))
    analysed = int(np.isfinite(result.slice_scores).sum())
    assert {call[0] for call in calls} == {"detect"} and {call[2] for call in calls} == {analysed}, "slices of 3.3 mm"
    done = [call[1] for call in calls]
    assert done[0] == 0 and done[-1] == analysed and done == sorted(set(done))


@pytest.mark.parametrize("phase", ["read", "train", "memory", "calibrate"])
def test_training_can_be_stopped(head, tmp_path, monkeypatch, phase):
    monkeypatch.chdir(tmp_path)

    def stop(now, done, total, info):
        if now == phase:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        fit(normal=[head(1)], progress=stop, **SMALL)
    assert not list(tmp_path.iterdir())


def test_training_starts_only_with_room_for_the_maps_it_ends_with(head, monkeypatch):
    phases, sizes = [], iter([100])  # bytes that are free when first asked
    monkeypatch.setattr(memory_budget, "free_memory", lambda: next(sizes, 2**40))
    with pytest.raises(VolumeError, match=r"its anomaly map needs about \d+ MB of memory, but only .* is free"):
        fit(normal=[head(1)], progress=lambda phase, *_: phases.append(phase), **SMALL)
    assert "read" in phases and "train" not in phases
    sizes = iter([2**40, 100])  # the training took it
    with pytest.raises(VolumeError, match=r"its anomaly map needs about"):
        fit(normal=[head(1)], progress=lambda phase, *_: phases.append(phase), **SMALL)
    assert "train" in phases


def test_detection_can_be_stopped_and_repeated(detector, head):
    before = detector.detect(head(5, True)).anomaly_map.array

    def stop(phase, done, total, info):
        if done:
            raise Cancelled("Stopped.")

    with pytest.raises(Cancelled):
        detector.detect(head(5, True), progress=stop)
    assert np.array_equal(detector.detect(head(5, True)).anomaly_map.array, before)


@pytest.mark.parametrize(("wrong", "kind", "words"), [
    ({"plane": "diagonal"}, TrainingError, "plane"),
    ({"intensity": "ct:knee"}, VolumeError, "preset"),
    ({"method": "magic"}, DetectorError, "mediclip, memory, mvfa"),
    ({"encoder": "magic"}, DetectorError, "not known"),
    ({"image_size": 65}, DetectorError, "multiples of 32"),
    ({"shots": 0}, TrainingError, "shots"),
    ({"shots": "few"}, TrainingError, "shots"),
    ({"smoothing": -1}, TrainingError, "smoothing"),
    ({"smoothing": float("nan")}, TrainingError, "smoothing"),
    ({"smoothing": float("inf")}, TrainingError, "smoothing"),
    ({"seed": -1}, TrainingError, "seed"),
    ({"seed": 2**80}, TrainingError, "seed"),
    ({"max_steps": 0}, TrainingError, "max_steps"),
    ({"learning_speed": 1}, TrainingError, "learning_speed"),
    ({"method": "mvfa", "max_steps": 3}, TrainingError, "max_steps"),
    ({"normal": []}, TrainingError, "at least one normal"),
])  # fmt: skip
def test_wrong_use_is_told_in_one_sentence(head, wrong, kind, words):
    with pytest.raises(kind, match=words) as caught:
        fit(**{"normal": [head(1)], **QUICK, **wrong})
    text = str(caught.value)
    assert isinstance(caught.value, MedCLIPADError)
    assert "\n" not in text and text.endswith(".") and len(text) < 400


def test_detect_refuses_an_unknown_plane(detector, head):
    with pytest.raises(VolumeError, match="plane"):
        detector.detect(head(5), plane="diagonal")


def test_mvfa_needs_abnormal_shots(head):
    with pytest.raises(TrainingError, match="abnormal"):
        fit(normal=[head(1)], **QUICK_MVFA)


def test_mediclip_learns_from_abnormal_shots_too(head, lesion):
    model = fit(normal=[head(1)], abnormal=[(head(2, True), lesion)], **{**SMALL, "memory_share": 0.0})
    plain = fit(normal=[head(1), (head(2, True), lesion)], **{**SMALL, "memory_share": 0.0})
    assert model.info.abnormal_slices > 0 == plain.info.abnormal_slices
    assert model.info.training_slices[0] == plain.info.training_slices[0], "else the same slices"
    ours, theirs = (one.detect(head(5, True)).anomaly_map.array for one in (model, plain))
    assert not np.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("which", ["detector", "mvfa"])
def test_oblique_volume(request, head, which, blob):
    angle = np.deg2rad(17)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    volume = Volume(head(5, True).array, turn @ head(5).affine, name="oblique")
    result = request.getfixturevalue(which).detect(volume)
    assert_sound(result, volume)
    assert np.linalg.norm(hottest(result.anomaly_map) - world(volume, blob)) < 8


def test_single_slice(detector, head, blob):
    whole = head(5, True)
    start = np.eye(4)
    start[2, 3] = blob[2]
    single = Volume(whole.array[:, :, blob[2] : blob[2] + 1], whole.affine @ start, name="single")
    result = detector.detect(single)
    assert_sound(result, single)
    assert np.linalg.norm(hottest(result.anomaly_map) - world(whole, blob)) < 8
    assert fit(normal=[single], **QUICK).info.normal_slices == 1


@pytest.mark.parametrize("value", [0.0, 7.0, np.nan, np.inf])
def test_volume_without_contents(detector, head, value):
    empty = head(5).with_array(np.full(head(5).shape, value, np.float32))
    result = detector.detect(empty)
    assert_sound(result, empty)
    assert np.isnan(result.slice_scores).all() and np.isnan(result.volume_score)
    assert result.summary()["volume_score"] is None
    assert not result.segmentation().array.any()
    with pytest.raises(TrainingError):
        fit(normal=[empty], **QUICK)


def test_nan_voxels_do_not_spread(detector, head, blob):
    array = head(5, True).array.copy()
    array[8:12, 20:24, 4:8] = np.nan
    array[30, 20, 10] = np.inf
    volume = head(5).with_array(array)
    result = detector.detect(volume)
    assert_sound(result, volume)
    assert np.linalg.norm(hottest(result.anomaly_map) - world(volume, blob)) < 8


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float64])
def test_integer_and_double_volumes(detector, head, dtype, blob):
    scaled = head(5, True).array * (200 / head(5, True).array.max())
    volume = head(5).with_array(scaled.clip(0).astype(dtype))
    result = detector.detect(volume)
    assert_sound(result, volume)
    assert np.linalg.norm(hottest(result.anomaly_map) - world(volume, blob)) < 8


def test_detectors_share_the_encoder(detector, head, tmp_path):
    other = fit(normal=[head(3)], **QUICK)
    detector.save(tmp_path / "saved")
    loaded = load_detector(tmp_path / "saved")
    assert detector.model.encoder is other.model.encoder is loaded.model.encoder
    assert load_encoder("embedded", QUICK["image_size"]) is detector.model.encoder
    del other, loaded
    gc.collect()
    assert load_encoder("embedded", QUICK["image_size"]) is detector.model.encoder


def test_encoder_is_dropped_with_its_last_detector(head):
    size = 96
    model = fit(normal=[head(1)], **{**QUICK, "image_size": size})
    key = next(key for key in loading._encoders if key[1] == size)
    del model
    gc.collect()
    assert key not in loading._encoders


def test_training_leaves_the_encoder_as_it_was(detector, head):
    before = {key: value.clone() for key, value in detector.model.encoder.state_dict().items()}
    fit(normal=[head(3)], **QUICK)
    after = detector.model.encoder.state_dict()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_smoothing(head):
    rough, smooth = (fit(normal=[head(1)], smoothing=sigma, **SMALL) for sigma in (0.0, 4.0))
    maps = [model.detect(head(5, True)) for model in (rough, smooth)]
    for result in maps:
        assert_sound(result, head(5))
    inside = maps[0].foreground
    steps = [np.abs(np.diff(result.anomaly_map.array, axis=2))[inside[..., 1:] & inside[..., :-1]] for result in maps]
    assert steps[1].mean() < 0.8 * steps[0].mean()
    means = [result.raw_map.array[inside].mean() for result in maps]
    assert means[1] == pytest.approx(means[0], rel=0.05), "smoothing moves the map about, it does not fade it"
    assert rough.model.head_state()["memory.tokens"].equal(smooth.model.head_state()["memory.tokens"])


def test_package_shows_its_public_names(detector):
    assert medclipad.fit is fit and medclipad.AnomalyDetector is AnomalyDetector
    assert set(medclipad.__all__) <= set(dir(medclipad))
    with pytest.raises(AttributeError, match="magic"):
        medclipad.magic  # noqa: B018
