"""Tests of which slices are held out of a training, and when a new detector is measurably worse than the old one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medclipad.detection.cases import Case
from medclipad.detection.fit import fit
from medclipad.errors import TrainingError
from medclipad.evaluation.comparison import (
    HeldOutEvaluation,
    HeldOutMetrics,
    compare,
    evaluate_held_out,
    pairwise_wins,
)
from medclipad.evaluation.held_out import MAX_SLICES, hold_out
from medclipad.methods.common.auroc import auroc
from medclipad.volume import Slicing, Volume

NONE = np.zeros(0)


def case(name: str, lesion: tuple[int, ...] = (), n: int = 24, **known: Any) -> Case:
    """Return a case of n slices, with a lesion in some of them."""
    volume = Volume(np.ones((8, 8, n), np.float32), np.eye(4), name=name)
    mask = np.zeros(volume.shape, np.uint8)
    mask[2:4, 2:4, list(lesion)] = 1
    return Case(volume, volume.with_array(mask) if lesion else None, **known)


def test_whole_volumes_are_held_out_unlearned_ones_first():
    cases = [case(name, (10, 11)) for name in "abcdef"]
    kept, held_out = hold_out(cases, 0.34, "axial", learned_volumes="abcd")
    assert {part.case.volume.name for part in held_out} == {"e", "f"}
    assert [kept_case.volume.name for kept_case in kept] == ["a", "b", "c", "d"]
    assert not any(kept_case.held_out for kept_case in kept)
    assert hold_out(cases, 0.34, "axial", learned_volumes="abcd") == (kept, held_out), "the choice is repeatable"


def test_with_few_volumes_runs_of_slices_are_held_out():
    cases = [case("a", (4, 5, 6, 7)), case("b")]
    kept, held_out = hold_out(cases, 0.25, "axial")
    assert [kept_case.volume.name for kept_case in kept] == ["a", "b"]
    for part, rest in zip(held_out, kept, strict=True):
        assert list(rest.held_out) == part.numbers and 0 < len(part.numbers) <= 8
    truth = cases[0].known(Slicing(cases[0].volume, "axial"))[1]
    numbers = held_out[0].numbers
    assert held_out[0].truth("axial").any() and truth[[k for k in (4, 5, 6, 7) if k not in numbers]].any()


@pytest.mark.parametrize(
    "cases",
    [
        [case("a"), case("b")],
        [case("a", (3,))],
        [case("a", tuple(range(24)))],
        [case("a", normal=[], abnormal=[3])],
    ],
    ids=["no lesion", "one abnormal slice", "no normal slice", "no slice marked normal"],
)
def test_nothing_is_held_out_if_too_little_is_labelled(cases):
    assert hold_out(cases, 0.25, "axial") == (cases, [])
    assert hold_out([case(name, (3, 4)) for name in "abcd"], 0, "axial")[1] == []


def test_the_number_of_held_out_slices_is_bounded():
    _, held_out = hold_out([case(name, (10, 11), n=200) for name in "abcdefgh"], 0.5, "axial")
    assert sum(len(part.numbers) for part in held_out) <= MAX_SLICES + len(held_out)


def test_marked_slices_count_as_the_mask_does():
    marked = case("a", (5,), abnormal=[6, 7], normal=[5, 6, 1])
    normal, abnormal = marked.known(Slicing(marked.volume, "axial"))
    assert np.flatnonzero(abnormal).tolist() == [5, 6, 7] and np.flatnonzero(normal).tolist() == [1]
    with pytest.raises(TrainingError, match="no axial slice 24"):
        case("a", normal=[24]).known(Slicing(marked.volume, "axial"))


def evaluation(
    scores: np.ndarray, truth: np.ndarray, outlines: np.ndarray = NONE, volumes: np.ndarray | None = None
) -> HeldOutEvaluation:
    """Return an evaluation of slices, by default of two volumes; the outlines are of the abnormal slices in turn."""
    volumes = np.arange(len(scores)) % 2 if volumes is None else volumes
    of_outlines = volumes[truth][: len(outlines)]
    metrics = HeldOutMetrics(slice_auroc=auroc(scores, truth))
    return HeldOutEvaluation(metrics, scores, truth, volumes, outlines, of_outlines)


def test_the_mean_of_pairwise_wins_is_the_auroc():
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 20, 500) / 20, rng.random(500) < 0.2  # many ties
    area = pytest.approx(roc_auc_score(truth, scores))
    assert pairwise_wins(scores, truth).mean() == area and auroc(scores, truth) == area
    assert auroc(scores, np.zeros(500, bool)) is None


def test_measurably_worse_needs_more_than_chance():
    rng = np.random.default_rng(0)
    truth = np.arange(40) < 20
    good, bad = truth + rng.normal(0, 0.3, 40), truth + rng.normal(0, 3, 40)
    assert compare(evaluation(good, truth), evaluation(bad, truth)).worse
    assert not compare(evaluation(bad, truth), evaluation(good, truth)).worse
    assert not compare(evaluation(good, truth), evaluation(good, truth)).worse
    nudged = good + rng.normal(0, 0.05, 40)
    assert not compare(evaluation(good, truth), evaluation(nudged, truth)).worse, "a small difference is not measurable"


def test_a_detector_that_ranks_as_well_but_outlines_worse_is_worse():
    rng = np.random.default_rng(0)
    truth = np.arange(40) < 20
    scores, sharp = truth + rng.normal(0, 0.3, 40), rng.uniform(0.7, 0.9, 20)
    blunt, other = sharp - rng.uniform(0.1, 0.4, 20), sharp + rng.normal(0, 0.05, 20)
    assert compare(evaluation(scores, truth, sharp), evaluation(scores, truth, blunt)).worse
    assert not compare(evaluation(scores, truth, blunt), evaluation(scores, truth, sharp)).worse
    assert not compare(evaluation(scores, truth, sharp), evaluation(scores, truth, other)).worse, (
        "a small difference is not measurable"
    )


def test_patients_are_drawn_where_enough_are_held_out():
    truth, volumes = np.tile([False, False, True, True], 10), np.repeat(np.arange(10), 4)
    rng = np.random.default_rng(1)
    scores = truth * 0.3 + rng.normal(0.4, 0.1, 40)
    good, bad = evaluation(scores, truth, volumes=volumes), evaluation(-scores, truth, volumes=volumes)
    outcome = compare(good, bad)
    assert (outcome.worse, outcome.unit, outcome.units) == (True, "patients", 10)
    assert not compare(bad, good).worse and not compare(good, good).worse
    few = compare(evaluation(scores, truth), evaluation(-scores, truth))
    assert (few.worse, few.unit, few.units) == (True, "slices", 40)
    one_sick = np.where(volumes == 0, truth, False)
    single = compare(evaluation(scores, one_sick, volumes=volumes), evaluation(-scores, one_sick, volumes=volumes))
    assert single.unit == "slices", "a single abnormal patient says nothing about others"


def test_many_slices_of_one_patient_are_no_proof():
    """The new detector fails on one of six patients, who has most of the slices, and is a little better on the rest."""
    volumes = np.array([0] * 40 + [v for v in range(1, 6) for _ in range(4)])
    truth = np.arange(60) % 2 == 0
    old = np.where(truth, 0.6, 0.4) + np.linspace(0, 0.01, 60)
    new = np.where(volumes == 0, 1 - old, old + 0.1 * truth)
    as_patients = compare(evaluation(old, truth, volumes=volumes), evaluation(new, truth, volumes=volumes))
    as_slices = compare(evaluation(old, truth), evaluation(new, truth))
    assert (as_slices.worse, as_slices.unit) == (True, "slices")
    assert (as_patients.worse, as_patients.unit) == (False, "patients")
    # The same of outlines alone.
    sharp = np.full(30, 0.8)
    blunt = np.where(volumes[truth] == 0, 0.5, 0.85)
    assert compare(evaluation(old, truth, sharp), evaluation(old, truth, blunt)).worse
    assert not compare(evaluation(old, truth, sharp, volumes), evaluation(old, truth, blunt, volumes)).worse


def test_a_detector_is_evaluated_on_held_out_slices(head, lesion):
    cases = [Case(head(1)), Case(head(0, True), lesion)]
    kept, held_out = hold_out(cases, 0.3, "axial")
    detector = fit(cases=kept, shots=8, epochs=2)
    learned = {used["volume"]: {*used["normal"], *used["abnormal"]} for used in detector.info.training_slices}
    for part in held_out:
        assert not set(part.numbers) & learned[part.case.volume.name], "a held-out slice was learned from"
    calls = []
    result = evaluate_held_out(detector, held_out, "axial", "new", lambda *call: calls.append(call))
    metrics = result.metrics
    assert len(result.scores) == len(result.truth) <= sum(len(part.numbers) for part in held_out)
    assert metrics.slice_auroc == auroc(result.scores, result.truth)
    assert metrics.dice is not None and 0 <= metrics.dice <= 1
    assert metrics.voxel_auroc is not None and metrics.voxel_auroc > 0.5
    assert metrics.average_precision is not None and 0 < metrics.average_precision <= 1
    assert 0 < len(result.outlines) <= result.truth.sum() and (result.outlines > 0).all()
    assert len(result.volumes) == len(result.scores) and set(result.volumes) == set(range(len(held_out)))
    assert (result.outline_volumes == result.volumes[result.truth][0]).all(), "one volume has a mask"
    assert compare(result, result).unit == "slices"
    assert calls[-1][0] == "compare" and calls[-1][3] == {"detector": "new"}


def test_slices_marked_abnormal_without_a_mask(head):
    """MVFA learns from the mark; MediCLIP only leaves the slice out of the normal ones."""
    case_ = Case(head(0, True), normal=range(3, 9), abnormal=[10, 11, 12])
    mediclip = fit(cases=[case_], shots="all", epochs=1)
    assert mediclip.info.training_slices[0] == {"volume": "head0", "normal": [*range(3, 9)], "abnormal": [10, 11, 12]}
    assert (mediclip.info.normal_slices, mediclip.info.abnormal_slices) == (6, 3)
    without = fit(cases=[Case(head(0, True), normal=range(3, 9))], shots="all", epochs=1)
    assert np.array_equal(mediclip.detect(head(1)).anomaly_map.array, without.detect(head(1)).anomaly_map.array), (
        "without a mask, MediCLIP's pixel losses have nothing to learn from"
    )
    mvfa = fit(method="mvfa", cases=[case_], shots="all", epochs=1, max_samples=16, memory_tokens=100)
    assert mvfa.info.abnormal_slices == 3 and np.isfinite(mvfa.detect(head(1)).volume_score)


def test_only_the_requested_slices_are_analysed(head):
    detector = fit(normal=[head(1)], shots=4, epochs=1)
    whole, part = detector.detect(head(2)), detector.detect(head(2), slices=[6, 7, 8])
    assert np.flatnonzero(np.isfinite(part.slice_scores)).tolist() == [6, 7, 8]
    assert np.isfinite(whole.slice_scores).sum() > 10 and not part.anomaly_map.array[..., :6].any()
