"""What is held out of a training, and when a new detector is measurably worse than the old one."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medclipad.detection.detector import fit
from medclipad.detection.slice_selection import Case
from medclipad.errors import TrainingError
from medclipad.evaluation.comparison import MAX_SLICES, Figures, Measured, _wins, hold_out, measurably_worse, measure
from medclipad.methods.common.auroc import auroc
from medclipad.volume import Slicing, Volume

NONE = np.zeros(0)


def case(name: str, lesion: tuple[int, ...] = (), n: int = 24, **known) -> Case:
    volume = Volume(np.ones((8, 8, n), np.float32), np.eye(4), name=name)
    mask = np.zeros(volume.shape, np.uint8)
    mask[2:4, 2:4, list(lesion)] = 1
    return Case(volume, volume.with_array(mask) if lesion else None, **known)


def test_whole_volumes_are_held_out_those_first_that_nobody_learned_from():
    cases = [case(name, (10, 11)) for name in "abcdef"]
    kept, held = hold_out(cases, 0.34, "axial", learned="abcd")
    assert {one.case.volume.name for one in held} == {"e", "f"}
    assert [one.volume.name for one in kept] == ["a", "b", "c", "d"] and not any(one.held_out for one in kept)
    assert hold_out(cases, 0.34, "axial", learned="abcd") == (kept, held), "the same each time"


def test_of_few_volumes_runs_of_slices_are_held_out():
    cases = [case("a", (4, 5, 6, 7)), case("b")]
    kept, held = hold_out(cases, 0.25, "axial")
    assert [one.volume.name for one in kept] == ["a", "b"]
    for one, rest in zip(held, kept, strict=True):
        assert list(rest.held_out) == one.numbers and 0 < len(one.numbers) <= 8
    truth = cases[0].known(Slicing(cases[0].volume, "axial"))[1]
    assert truth[held[0].numbers].any() and truth[[k for k in (4, 5, 6, 7) if k not in held[0].numbers]].any()


@pytest.mark.parametrize(
    "cases",
    [
        [case("a"), case("b")],
        [case("a", (3,))],
        [case("a", tuple(range(24)))],
        [case("a", normal=[], abnormal=[3])],
    ],
    ids=["no lesion", "one abnormal slice", "no normal slice", "nothing called normal"],
)
def test_nothing_is_held_out_where_too_little_is_known(cases):
    assert hold_out(cases, 0.25, "axial") == (cases, [])
    assert hold_out([case(name, (3, 4)) for name in "abcd"], 0, "axial")[1] == []


def test_what_is_held_out_is_bounded():
    _, held = hold_out([case(name, (10, 11), n=200) for name in "abcdefgh"], 0.5, "axial")
    assert sum(len(one.numbers) for one in held) <= MAX_SLICES + len(held)


def test_called_slices_count_as_the_mask_does():
    marked = case("a", (5,), abnormal=[6, 7], normal=[5, 6, 1])
    normal, abnormal = marked.known(Slicing(marked.volume, "axial"))
    assert np.flatnonzero(abnormal).tolist() == [5, 6, 7] and np.flatnonzero(normal).tolist() == [1]
    with pytest.raises(TrainingError, match="no axial slice 24"):
        case("a", normal=[24]).known(Slicing(marked.volume, "axial"))


def measured(scores: np.ndarray, truth: np.ndarray, outlines: np.ndarray = NONE) -> Measured:
    return Measured(Figures(slice_auroc=auroc(scores, truth)), scores, truth, outlines)


def test_the_pairs_that_are_resampled_make_up_the_auroc():
    rng = np.random.default_rng(0)
    scores, truth = rng.integers(0, 20, 500) / 20, rng.random(500) < 0.2  # many ties
    area = pytest.approx(roc_auc_score(truth, scores))
    assert _wins(measured(scores, truth)).mean() == area and auroc(scores, truth) == area
    assert auroc(scores, np.zeros(500, bool)) is None


def test_measurably_worse_needs_more_than_chance():
    rng = np.random.default_rng(0)
    truth = np.arange(40) < 20
    good, bad = truth + rng.normal(0, 0.3, 40), truth + rng.normal(0, 3, 40)
    assert measurably_worse(measured(good, truth), measured(bad, truth))
    assert not measurably_worse(measured(bad, truth), measured(good, truth))
    assert not measurably_worse(measured(good, truth), measured(good, truth))
    nudged = good + rng.normal(0, 0.05, 40)
    assert not measurably_worse(measured(good, truth), measured(nudged, truth)), "a hair is no measure"


def test_a_detector_that_outlines_worse_is_worse_though_it_ranks_as_well():
    rng = np.random.default_rng(0)
    truth = np.arange(40) < 20
    scores, sharp = truth + rng.normal(0, 0.3, 40), rng.uniform(0.7, 0.9, 20)
    blunt, other = sharp - rng.uniform(0.1, 0.4, 20), sharp + rng.normal(0, 0.05, 20)
    assert measurably_worse(measured(scores, truth, sharp), measured(scores, truth, blunt))
    assert not measurably_worse(measured(scores, truth, blunt), measured(scores, truth, sharp))
    assert not measurably_worse(measured(scores, truth, sharp), measured(scores, truth, other)), "a hair is no measure"


def test_a_detector_is_measured_on_held_out_slices(head, lesion):
    cases = [Case(head(1)), Case(head(0, True), lesion)]
    kept, held = hold_out(cases, 0.3, "axial")
    detector = fit(cases=kept, shots=8, epochs=2)
    learned = {one["volume"]: {*one["normal"], *one["abnormal"]} for one in detector.info.training_slices}
    for one in held:
        assert not set(one.numbers) & learned[one.case.volume.name], "a held-out slice was learned"
    told = []
    result = measure(detector, held, "axial", "new", lambda *call: told.append(call))
    figures = result.figures
    assert len(result.scores) == len(result.truth) <= sum(len(one.numbers) for one in held)
    assert figures.slice_auroc == auroc(result.scores, result.truth) and 0 <= figures.dice <= 1
    assert figures.voxel_auroc > 0.5 and 0 < figures.average_precision <= 1
    assert 0 < len(result.outlines) <= result.truth.sum() and (result.outlines > 0).all()
    assert told[-1][0] == "compare" and told[-1][3] == {"detector": "new"}


def test_slices_called_abnormal_without_a_mask(head):
    """Both methods have a defined behaviour: MVFA learns the call, MediCLIP keeps the slice out of what is normal."""
    case_ = Case(head(0, True), normal=range(3, 9), abnormal=[10, 11, 12])
    mediclip = fit(cases=[case_], shots=None, epochs=1)
    assert mediclip.info.training_slices[0] == {"volume": "head0", "normal": [*range(3, 9)], "abnormal": [10, 11, 12]}
    assert (mediclip.info.shots, mediclip.info.abnormal_shots) == (6, 3)
    without = fit(cases=[Case(head(0, True), normal=range(3, 9))], shots=None, epochs=1)
    assert np.array_equal(mediclip.detect(head(1)).anomaly_map.array, without.detect(head(1)).anomaly_map.array), (
        "without a mask there is nothing for MediCLIP's pixel losses to learn"
    )
    mvfa = fit(method="mvfa", cases=[case_], shots=None, epochs=1, max_samples=16, memory_tokens=100)
    assert mvfa.info.abnormal_shots == 3 and np.isfinite(mvfa.detect(head(1)).volume_score)


def test_only_the_asked_slices_are_analysed(head):
    detector = fit(normal=[head(1)], shots=4, epochs=1)
    whole, part = detector.detect(head(2)), detector.detect(head(2), slices=[6, 7, 8])
    assert np.flatnonzero(np.isfinite(part.slice_scores)).tolist() == [6, 7, 8]
    assert np.isfinite(whole.slice_scores).sum() > 10 and not part.anomaly_map.array[..., :6].any()
