"""Tests of the metrics against hand-computed values and scikit-learn, and where they are not defined."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from medclipad.detection.result import AnomalyResult
from medclipad.errors import MedCLIPADError
from medclipad.evaluation import CaseMetrics, baseline_map, compute_metrics, mean_metrics, score_case
from medclipad.volume import Slicing, Volume


def volume(shape: tuple[int, ...], array: np.ndarray | None = None) -> Volume:
    return Volume(np.zeros(shape, np.float32) if array is None else array, np.eye(4), name="case")


def evaluate(
    score_map: np.ndarray, truth: np.ndarray, region: np.ndarray | None = None, scores: np.ndarray | None = None
) -> CaseMetrics:
    slicing = Slicing(volume(score_map.shape), "axial")
    region = np.ones(score_map.shape, bool) if region is None else region
    scores = slicing.slices(score_map).max(axis=(1, 2)) if scores is None else scores
    return compute_metrics(score_map, truth, region, slicing, scores)


def test_by_hand():
    # Four voxels, each its own slice: scores .1 .4 .35 .8, the second and last abnormal.
    scores = np.array([0.1, 0.4, 0.35, 0.8]).reshape(1, 1, 4)
    truth = np.array([0, 1, 0, 1]).reshape(1, 1, 4)
    m = evaluate(scores, truth)
    assert (m.voxel_auroc, m.slice_auroc, m.average_precision, m.best_dice, m.best_threshold) == (1, 1, 1, 1, 0.4)
    # Now the first normal one scores .5: pairs won are 3 of 4; precision 1 at recall .5, 2/3 at recall 1.
    m = evaluate(np.array([0.1, 0.4, 0.5, 0.8]).reshape(1, 1, 4), truth)
    assert m.voxel_auroc == 0.75
    assert m.average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert (m.best_dice, m.best_threshold) == (pytest.approx(0.8), 0.4)
    assert (m.n_slices, m.n_abnormal_slices, m.n_skipped, m.n_voxels, m.n_abnormal_voxels) == (4, 2, 0, 4, 2)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(2, 400), st.sampled_from([np.float32, np.float64]), st.booleans())
def test_equals_scikit_learn(seed, levels, dtype, rare):
    rng = np.random.default_rng(seed)
    score_map = (rng.integers(0, levels, (5, 6, 7)) / levels).astype(dtype)  # with ties
    truth = rng.random((5, 6, 7)) < (0.02 if rare else 0.4)
    region = rng.random((5, 6, 7)) < 0.7
    truth[0, 0, 0], truth[0, 0, 1], region[0, 0, 1] = True, False, True
    m = evaluate(score_map, truth, region)
    kept = region | truth
    y, s = truth[kept], score_map[kept]
    precision, recall, thresholds = precision_recall_curve(y, s)
    dice = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    assert m.voxel_auroc == pytest.approx(roc_auc_score(y, s), abs=1e-12)
    assert m.average_precision == pytest.approx(average_precision_score(y, s), abs=1e-12)
    assert m.best_dice == pytest.approx(dice.max(), abs=1e-12)
    assert m.best_threshold in thresholds
    found = kept & (score_map >= m.best_threshold)
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) == pytest.approx(m.best_dice)
    assert (m.n_voxels, m.n_abnormal_voxels) == (kept.sum(), truth.sum())


def test_slices_are_ranked_by_their_own_scores_and_skipped_ones_left_out():
    rng = np.random.default_rng(0)
    truth = np.zeros((4, 4, 6), bool)
    truth[1, 1, [2, 3, 5]] = True
    scores = np.array([0.1, np.nan, 0.9, 0.3, 0.4, np.nan])
    m = evaluate(rng.random((4, 4, 6)), truth, scores=scores)
    assert m.slice_auroc == roc_auc_score([0, 1, 1, 0], scores[[0, 2, 3, 4]]) == 0.75
    assert (m.n_slices, m.n_abnormal_slices, m.n_skipped, m.n_skipped_abnormal) == (4, 2, 2, 1)


def test_slice_numbers_follow_the_slicing_not_the_order_in_the_file():
    truth = np.zeros((3, 3, 5), bool)
    truth[:, :, 4] = True
    flipped = Volume(np.zeros((3, 3, 5)), np.diag([1.0, 1.0, -1.0, 1.0]))  # slice 0 is index 4
    m = compute_metrics(np.zeros((3, 3, 5)), truth, truth, Slicing(flipped, "axial"), np.array([9.0, 1, 2, 3, 4]))
    assert m.slice_auroc == 1


def test_truth_outside_the_region_counts():
    score_map, truth, region = np.zeros((2, 2, 2)), np.zeros((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    truth[0, 0, 0] = region[1, 1, 1] = True
    score_map[1, 1, 1] = 1
    m = evaluate(score_map, truth, region)
    assert (m.n_voxels, m.voxel_auroc) == (2, 0)


def test_without_lesion_metrics_are_undefined_not_zero():
    m = evaluate(np.random.default_rng(0).random((3, 3, 3)), np.zeros((3, 3, 3)))
    assert (m.slice_auroc, m.voxel_auroc, m.average_precision, m.best_dice, m.best_threshold) == (None,) * 5
    assert (m.n_slices, m.n_abnormal_slices, m.n_voxels, m.n_abnormal_voxels) == (3, 0, 27, 0)


def test_all_lesion_has_a_dice_but_no_auroc():
    m = evaluate(np.random.default_rng(0).random((3, 3, 3)), np.ones((3, 3, 3)))
    assert (m.slice_auroc, m.voxel_auroc, m.average_precision, m.best_dice) == (None, None, 1, 1)


def test_all_slices_skipped():
    truth = np.zeros((3, 3, 3), bool)
    truth[0, 0, 0] = True
    m = evaluate(np.ones((3, 3, 3)), truth, scores=np.full(3, np.nan))
    assert (m.slice_auroc, m.voxel_auroc, m.n_slices, m.n_skipped, m.n_skipped_abnormal) == (None, 0.5, 0, 3, 1)


def test_wrong_input_is_refused():
    zeros, slicing = np.zeros((3, 3, 3)), Slicing(volume((3, 3, 3)), "axial")
    with pytest.raises(MedCLIPADError, match="different sizes"):
        compute_metrics(zeros, np.zeros((3, 3, 4)), zeros, slicing, np.zeros(3))
    with pytest.raises(MedCLIPADError, match="5 slice scores for 3 slices"):
        compute_metrics(zeros, zeros, zeros, slicing, np.zeros(5))
    broken = zeros.copy()
    broken[1, 1, 1] = np.nan
    with pytest.raises(MedCLIPADError, match="not a number"):
        compute_metrics(broken, zeros, np.ones((3, 3, 3)), slicing, np.zeros(3))
    outside = np.ones((3, 3, 3), bool)
    outside[1, 1, 1] = False
    assert compute_metrics(broken, zeros, outside, slicing, np.zeros(3)).n_voxels == 26


def test_means_leave_out_undefined_metrics():
    truth = np.zeros((2, 2, 2), bool)
    truth[0, 0, 0] = True
    found, missed = (evaluate(truth * sign + 0.5, truth) for sign in (0.5, -0.5))
    nothing = evaluate(np.zeros((2, 2, 2)), np.zeros((2, 2, 2)))
    mean = mean_metrics([found, missed, nothing])
    assert (found.voxel_auroc, missed.voxel_auroc, mean.voxel_auroc) == (1, 0, 0.5)
    assert mean_metrics([nothing]).voxel_auroc is None


def test_baseline_is_brightness_over_the_foreground():
    array = np.array([-1000, 10, 20, 30, np.nan, np.inf, 5000]).reshape(7, 1, 1)
    foreground = np.array([0, 1, 1, 1, 1, 1, 0]).reshape(7, 1, 1)
    expected = [0, 0, 0.5, 1, 0, 1, 0]
    np.testing.assert_allclose(baseline_map(volume((7, 1, 1), array), foreground).ravel(), expected)
    flat = volume((2, 2, 2), np.full((2, 2, 2), 7, np.int16))
    assert baseline_map(flat, np.ones((2, 2, 2))).max() == baseline_map(flat, np.zeros((2, 2, 2))).max() == 0


def test_map_and_baseline_are_evaluated_on_the_same_slices_and_voxels():
    rng = np.random.default_rng(3)
    image = volume((6, 6, 5), rng.random((6, 6, 5)).astype(np.float32))
    lesion = np.zeros((6, 6, 5), np.uint8)
    lesion[2:4, 2:4, 1:3] = 1
    foreground = np.ones((6, 6, 5), bool)
    foreground[:, :, 4] = False
    result = AnomalyResult(
        anomaly_map=image.with_array(lesion.astype(np.float32)),
        slice_scores=np.array([0.1, 0.9, 0.8, 0.2, np.nan]),
        foreground=foreground,
        slicing=Slicing(image, "axial"),
        detector="test",
    )
    evaluation = score_case(image, image.with_array(lesion), result, 2.0)
    assert (evaluation.metrics.slice_auroc, evaluation.metrics.voxel_auroc, evaluation.metrics.best_dice) == (1, 1, 1)
    assert evaluation.seconds_per_slice == 0.5
    same = ("n_slices", "n_skipped", "n_voxels", "n_abnormal_voxels")
    assert (
        [getattr(evaluation.metrics, k) for k in same]
        == [getattr(evaluation.baseline, k) for k in same]
        == [4, 1, 144, 8]
    )
    expected = roc_auc_score(lesion[foreground], image.array[foreground])
    assert evaluation.baseline.voxel_auroc == pytest.approx(expected)
    assert evaluation.abnormal and evaluation.regions.lesion_ml == (0.008,)
    normal = score_case(image, None, result, 2.0)
    assert not normal.abnormal and normal.metrics.voxel_auroc is None and normal.metrics.n_voxels == 144
    assert normal.regions.levels[0].false_peaks == (1.0,), "what it outlines in a normal scan is false"
