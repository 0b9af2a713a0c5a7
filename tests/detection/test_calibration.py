"""What normal scans say about map values, regions, slices and volumes: numbers by hand, and a real detector."""

from __future__ import annotations

import math

import numpy as np
import pytest

from medclipad.detection.acquisition import MIN_SCANS, AcquiredScan, Acquisition
from medclipad.detection.calibration import (
    DECADES,
    Calibration,
    NormalScan,
    Scale,
    ScanRecord,
    learn_region_limits,
    learn_scale,
    learn_slice_limit,
)
from medclipad.detection.detector import load_detector
from medclipad.detection.fit import fit
from medclipad.detection.regions import find_regions, region_labels
from medclipad.detection.result import AnomalyResult, rate_words
from medclipad.errors import DetectorError, TrainingError
from medclipad.methods.mediclip.method import MediCLIP
from medclipad.volume import Slicing, Volume

QUICK = {"planes": "axial", "method": "mediclip", "shots": 8, "image_size": 128, "max_steps": 2, "memory_size": 300}


def calibrated(*scores: float, **fields) -> Calibration:
    scans = [NormalScan(name=f"n{i}", score=score) for i, score in enumerate(scores)]
    return Calibration(**{"basis": "left out", "scans": scans, **fields})


# -- the scale ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("places", [50, 2000])
@pytest.mark.parametrize("n", [1, 6, 24])
def test_a_map_value_is_a_rarity(n, places):
    """Of uniform values u, a share 1 - u lies above u."""
    rng = np.random.default_rng(n)
    scale = learn_scale([ScanRecord("a", rng.random(40_000), places) for _ in range(n)])
    for value in (v for v in (0.2, 0.4, 0.5) if v < scale.top):
        raw = float(scale.inverse(np.float64(value)))
        expected = (n * (1 - raw) + 1 / places) / (n + 1 / places)
        assert -math.log10(expected) / DECADES == pytest.approx(value, abs=0.01)
    assert scale.top == pytest.approx(min(math.log10(places * n + 1) / DECADES, 0.95))
    assert scale.value[-1] >= scale.top and scale.raw[-1] == 1


def test_the_scale_keeps_every_order_and_can_be_undone():
    rng = np.random.default_rng(0)
    scale = learn_scale([ScanRecord("a", rng.beta(2, 30, 5000), 300) for _ in range(5)])
    raw = np.linspace(0, 1, 2001)
    values = scale(raw)
    assert values[0] == 0 and values[-1] == 1 and (np.diff(values) > 0).all(), "also above the highest normal value"
    np.testing.assert_allclose(scale.inverse(values), raw, atol=1e-12)
    assert scale(raw.astype(np.float32)).dtype == np.float32


def test_scans_weigh_the_same_however_large_they_are():
    low, high = np.full(100_000, 0.1), np.full(10, 0.9)
    share = np.mean([ScanRecord("a", values, 100).share_above for values in (low, high)], axis=0)
    assert share[32768] == 0.5


@pytest.mark.parametrize("raw", [np.zeros(50), np.ones(50), np.full(9, 0.5)])
def test_a_flat_map_still_has_a_scale(raw):
    scale = learn_scale([ScanRecord("a", raw, 10)])
    assert (np.diff(scale.raw) > 0).all() and (np.diff(scale.value) > 0).all()
    assert np.isfinite(scale(np.linspace(0, 1, 11))).all()


# -- volumes -----------------------------------------------------------------------------------------------------


def test_p_values_count_scans():
    known = calibrated(0.3, 0.1, 0.2, 0.4)
    assert [known.p_value(score) for score in (0.5, 0.4, 0.35, 0.05)] == [1 / 5, 2 / 5, 2 / 5, 1]
    assert known.n == 4 and known.lowest_p == 1 / 5 and known.p_value(math.nan) is None


def test_the_p_value_of_a_normal_scan_is_valid():
    """Of 20,000 exchangeable draws, p ≤ α in a share of floor(α (n + 1)) / (n + 1)."""
    rng = np.random.default_rng(0)
    p_values = np.array([calibrated(*row[1:]).p_value(row[0]) for row in rng.random((4000, 20))], dtype=float)
    for alpha in (0.05, 0.1, 0.2):
        assert (p_values <= alpha + 1e-9).mean() == pytest.approx(alpha, abs=0.02)


@pytest.mark.parametrize(("basis", "words"), [
    ("left out", "rests on 6 normal scans: at most 1 false alarm in 7"), ("none", "not calibrated"),
    ("other slices", "very volumes that were learned from"), ("training slices", "very slices"),
])  # fmt: skip
def test_nothing_is_promised_that_the_scans_cannot_carry(basis, words):
    known = calibrated(*np.linspace(0, 1, 6), basis=basis)
    assert words in known.promise()
    assert (known.p_value(2) is None) == (basis != "left out")


# -- slices and regions ------------------------------------------------------------------------------------------


def test_slice_limit_by_hand():
    """Of 19 scans with scores 1 to 100, the limit lets no slice through: (19 · 0 + 1) / 20 = .05."""
    scores = [np.arange(1.0, 101) / 100] * 19
    assert learn_slice_limit(scores) == (1.0, 0.05)
    assert learn_slice_limit(scores * 11) == (0.96, 0.05), "of 209 scans: (209 · .04 + 1) / 210 = .045"
    limit, rate = learn_slice_limit(scores[:4])
    assert (limit, rate) == (1.0, 0.2), "4 scans support 1 in 5"


def test_region_limits_by_hand():
    peaks = [np.array([0.9, 0.6]), np.array([0.8]), np.array([]), np.array([0.7])]
    known = calibrated(0.1, 0.2, 0.3, 0.4, region_limits=learn_region_limits(peaks, [(0.4, 2.0), (0.3, 1.5)]))
    assert known.region_limits == [(0.9, 0.25), (0.8, 0.5), (0.7, 0.75), (0.6, 1.0), (0.4, 2.0)]
    assert known.region_limit(0.5) == 0.8 and known.region_limit(1) == 0.6 and known.region_limit(3) == 0.4
    assert list(known.rates()) == [0.25, 0.5, 1, 2, 4, 8] and known.default_rate() == 1
    with pytest.raises(DetectorError, match=r"For 0\.125 false regions per scan, give at least 8"):
        known.region_limit(0.125)
    assert Calibration().default_rate() is None


def test_region_rates_hold_for_the_next_scan():
    """Peaks of a Poisson process: the limit for r false regions a scan lets r through in new scans, on average."""
    rng = np.random.default_rng(1)

    def scans(n: int) -> list[np.ndarray]:
        return [0.5 + 0.5 * rng.random(rng.poisson(6)) for _ in range(n)]

    for rate in (0.5, 1, 2, 4):
        found = [
            np.mean([(peaks > calibrated(region_limits=learn_region_limits(scans(24), [])).region_limit(rate)).sum()
                     for peaks in scans(20)])
            for _ in range(100)
        ]  # fmt: skip
        assert np.mean(found) == pytest.approx(rate, rel=0.1)


def test_regions_are_connected_parts_with_a_high_peak():
    array = np.zeros((20, 20, 10), np.float32)
    array[2:6, 2:6, 2:4] = 0.6
    array[3, 3, 3] = 0.9
    array[6, 6, 4] = 0.7  # touches by a corner
    array[14:17, 14:17, 5:9] = 0.65
    labels, peaks = region_labels(array, 0.5, 0.8)
    assert peaks.tolist() == pytest.approx([0.9]) and (labels == 1).sum() == 4 * 4 * 2 + 1
    volume = Volume(array, np.diag((-2.0, -2, 3, 1)))
    (first, second) = find_regions(volume, array >= 0, Slicing(volume, "axial"), 0.5, 0.6)
    assert (
        first.volume_ml == pytest.approx(36 * 12 / 1000)
        and first.ijk == (14, 14, 5)
        and (first.first, first.last) == (5, 8)
    )
    assert first.side == "left posterior" and second.side == "right anterior"
    assert second.slice == 3 and second.peak == pytest.approx(0.9) and second.position == (-6, -6, 9)
    assert not find_regions(volume, array >= 0, Slicing(volume, "axial"), 0.5, 0.95)


# -- the verdict -------------------------------------------------------------------------------------------------


def judged(score: float, calibration: Calibration, **fields) -> AnomalyResult:
    array = np.zeros((12, 12, 12), np.float32)
    array[2:5, 2:5, 3:6] = score
    volume = Volume(array, np.diag((10.0, 10, 10, 1)))
    return AnomalyResult(
        anomaly_map=volume, slice_scores=np.full(12, score), foreground=np.ones(array.shape, bool),
        slicing=Slicing(volume, "axial"), detector="d", calibration=calibration, **fields,
    )  # fmt: skip


def test_the_verdict_says_what_a_reader_should_know_first():
    many = calibrated(*np.linspace(0.1, 0.5, 24), region_limits=[(0.7, 1 / 24), (0.55, 1.0)])
    verdict = judged(0.8, many).verdict()
    assert "Unusual: higher than 24 of 24 normal scans (p = .04)." in verdict
    assert "1 region above the limit of 1 false alarm per scan; the largest 27.0 ml, left posterior" in verdict
    assert "slices 3–5" in verdict and verdict.endswith("Research software: not for diagnosis.")
    calm = judged(0.3, many).verdict()
    assert "Not unusual" in calm and "No region above the limit of 1 false alarm per scan." in calm
    few = judged(0.8, calibrated(0.1, 0.2, 0.3, 0.4, 0.5, 0.55)).verdict()
    assert "6 of 6 normal scans (p = .14)" in few and "at most 1 false alarm in 7 can be promised" in few
    assert rate_words(0.125) == "1/8 false alarm" and rate_words(4) == "4 false alarms"


@pytest.mark.parametrize(
    "fields", [{"complete": False}, {"warnings": ("Unusual acquisition (contrast): no verdict.",)}]
)
def test_no_verdict_on_a_part_of_a_volume_or_an_unusual_one(fields):
    result = judged(0.8, calibrated(*np.linspace(0.1, 0.5, 24)), **fields)
    assert result.p_value is None and "no verdict" in result.verdict()
    assert result.summary()["p_value"] is None and result.summary()["warnings"] == list(fields.get("warnings", ()))


def test_a_stored_result_is_the_result():
    known = calibrated(*np.linspace(0.1, 0.5, 24), region_limits=[(0.55, 1.0)])
    result = judged(0.8, known)
    again = AnomalyResult.from_summary(result.anomaly_map, result.slicing, result.summary(), known)
    assert again.summary() == {**result.summary(), "regions": again.summary()["regions"]}
    assert again.p_value == result.p_value == 1 / 25 and len(again.regions()) == 1


# -- acquisition -------------------------------------------------------------------------------------------------


def acquired(features: float, spacing: float = 3.0) -> AcquiredScan:
    return AcquiredScan(features=[features, 0], brightness=[0.5], slice_spacing=spacing)


def test_an_unusual_acquisition_is_told():
    known = Acquisition(scans=[acquired(x) for x in (0.0, 0.1, 0.2, 0.3)])
    assert not known.warnings(acquired(0.4)) and not known.warnings(None)
    (sentence,) = known.warnings(acquired(0.5))
    assert "sharpness, noise or sequence" in sentence and "no verdict" in sentence
    (sentence,) = known.warnings(acquired(0.1, spacing=7))
    assert "7 mm apart" in sentence and "learned from 3 mm" in sentence
    assert not Acquisition(scans=known.scans[: MIN_SCANS - 1]).warnings(acquired(9))


# -- a real detector ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def detector(head):
    return fit(normal=[head(seed) for seed in range(10, 18)], **{**QUICK, "shots": 64, "memory_size": 2000})


def test_learned_scans_look_like_new_ones(detector, head):
    """Left out, a scan that was remembered scores as a new one; without that, far lower."""
    known = detector.info.calibration
    assert known.basis == "left out" and known.n == 8
    new = [detector.detect(head(seed)).volume_score for seed in range(30, 40)]
    inside = [detector.detect(head(seed)).volume_score for seed in range(10, 18)]
    assert abs(np.mean(known.scores) - np.mean(new)) < 0.5 * (np.mean(new) - np.mean(inside))


def test_memory_is_whole_again_after_calibration(detector, head, tmp_path):
    detector.save(tmp_path / "saved")
    ours, theirs = detector.detect(head(12)), load_detector(tmp_path / "saved").detect(head(12))
    assert np.array_equal(ours.anomaly_map.array, theirs.anomaly_map.array)
    assert ours.summary() == theirs.summary()


def test_where_a_head_knows_its_volumes_others_look_at_them(head, monkeypatch):
    """Three more models, each without a third of the volumes that were learned from."""
    trained: list[set[int]] = []
    fit_one = MediCLIP.fit

    def watched(model, shots, seed, progress):
        trained.append(shots.numbers)
        return fit_one(model, shots, seed, progress)

    monkeypatch.setattr(MediCLIP, "fit", watched)
    volumes = [head(seed) for seed in (10, 11, 12, 13)]
    detector = fit(normal=volumes, memory_share=0, **QUICK)
    assert trained == [{0, 1, 2, 3}, {1, 2}, {0, 2, 3}, {0, 1, 3}] and detector.info.calibration.n == 4
    trained.clear()
    assert fit(normal=volumes[:2], memory_share=0, **{**QUICK, "shots": 1}).info.calibration.n == 1
    assert len(trained) == 1, "the volume that gave the only slice cannot be left out, the other one is as new"
    trained.clear()
    fit(normal=volumes, **QUICK)
    assert len(trained) == 1, "a memory leaves out by itself"


def test_raw_values_stay_available(detector, head):
    result = detector.detect(head(30))
    raw = detector.detect_raw(detector.frames(detector.framed(head(30), "axial"), ("axial",)))
    detector.evidence(raw.map, raw.framed, raw.seen)
    np.testing.assert_allclose(result.raw_map.array, raw.map, atol=1e-5)


def test_a_set_kept_out_calibrates(head):
    detector = fit(normal=[head(10)], calibrate_on=[head(20)], **QUICK)
    known = detector.info.calibration
    assert known.basis == "kept out" and [scan.name for scan in known.scans] == ["head20"]
    assert known.scores == pytest.approx([detector.detect(head(20)).volume_score], abs=1e-4)
    both = fit(normal=[head(10)], calibrate_on=[head(20), head(21)], **QUICK)
    assert both.evidence is not None and detector.evidence is None, "a scan is compared with others, not with itself"


def test_only_normal_volumes_are_calibrated_on(head, lesion):
    with pytest.raises(TrainingError, match="has a lesion: only normal volumes"):
        fit(normal=[head(10)], calibrate_on=[(head(0, True), lesion)], **QUICK)


def test_slices_of_abnormal_volumes_promise_nothing_about_volumes(head, lesion):
    known = fit(abnormal=[(head(0, True), lesion)], normal=[head(10)], **QUICK).info.calibration
    assert [scan.score is None for scan in known.scans] == [False, True] and known.n == 1


def test_three_planes_are_one_detector(head, tmp_path, blob):
    detector = fit(normal=[head(10), head(11)], **{**QUICK, "planes": "all"})
    assert set(detector.models) == {"axial", "coronal", "sagittal"} and detector.info.plane == "axial"
    detector.save(tmp_path / "saved")
    again = load_detector(tmp_path / "saved")
    volume = head(5, True)
    ours, theirs = detector.detect(volume), again.detect(volume)
    assert np.array_equal(ours.anomaly_map.array, theirs.anomaly_map.array) and ours.complete
    peak = np.unravel_index(ours.anomaly_map.array.argmax(), volume.shape)
    assert np.linalg.norm((np.array(peak) - blob) * volume.spacing) < 10
    one = detector.detect(volume, plane="coronal")
    assert one.plane == "coronal" and not one.complete and one.p_value is None
    assert detector.memory_for(volume) > detector.memory_for(volume, "axial")


def test_pictures_are_calibrated_one_by_one():
    """Of 2D pictures, the picture is the unit."""
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64))

    def picture(name: str) -> Volume:
        array = np.where(np.hypot(x, y) < 0.9, 100 + 10 * rng.normal(size=x.shape), 0)[..., None]
        return Volume(array.astype(np.float32), np.eye(4), name=name)

    detector = fit(normal=[picture(f"p{i}") for i in range(6)], intensity="raw", **{**QUICK, "shots": "all"})
    assert detector.info.calibration.n == 6 and not detector.info.acquisition.scans
    assert detector.detect(picture("new")).p_value in [k / 7 for k in range(1, 8)]


def test_no_scale_is_the_identity():
    np.testing.assert_array_equal(Scale()(np.array([0.0, 0.3, 1.0])), [0.0, 0.3, 1.0])
