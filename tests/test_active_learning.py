"""Tests of the active-learning strategies: the order of images and of their slices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from medclipad.active_learning import MIN_GAP, STRATEGIES, Candidate, project, rank, rank_slices
from medclipad.errors import MedCLIPADError


def candidate(name: str, score: float, feature: tuple[float, float] = (0, 0), slices: int = 12) -> Candidate:
    """Return an image whose slice scores rise to `score` and whose features lie close to `feature`."""
    scores = np.linspace(0, score, slices)
    scores[0] = np.nan
    features = np.tile(np.array(feature, float), (slices, 1)) + np.linspace(0, 0.1, slices)[:, None]
    features[0] = np.nan
    return Candidate(name, score, scores, 0.5, features)


def names(strategy: str, candidates: list[Candidate], labelled: Sequence[Candidate] = (), **more: int) -> list[str]:
    return [ranked.name for ranked, _ in rank(strategy, candidates, labelled, **more)]


def test_most_anomalous_and_most_uncertain():
    three = [candidate("a", 0.9), candidate("b", 0.45), candidate("c", 0.1)]
    assert names("most_anomalous", three) == ["a", "b", "c"]
    assert names("most_uncertain", three) == ["b", "a", "c"] or names("most_uncertain", three) == ["b", "c", "a"]
    assert rank("most_uncertain", three)[0][1] == pytest.approx(-0.05)


def test_unanalysed_image_comes_last_and_ties_go_by_name():
    blank = Candidate("blank", float("nan"), np.full(3, np.nan), 0.5, np.full((3, 2), np.nan))
    assert names("most_anomalous", [blank, candidate("b", 0.2), candidate("a", 0.2)]) == ["a", "b", "blank"]
    assert set(names("most_diverse", [blank, candidate("a", 0.2, (3, 3))])) == {"blank", "a"}
    assert rank_slices("most_anomalous", blank) == []


def test_most_diverse_is_far_from_labelled_images_and_from_each_other():
    features = {"near": (0, 0.1), "far": (10, 0), "also far": (9.9, 0), "sideways": (0, 6)}
    candidates = [candidate(name, 0.1, feature) for name, feature in features.items()]
    order = names("most_diverse", candidates, [candidate("known", 0.1)])
    assert order == ["far", "sideways", "near", "also far"] or order == ["far", "sideways", "also far", "near"]
    priorities = [priority for _, priority in rank("most_diverse", candidates, [candidate("known", 0.1)])]
    assert priorities == sorted(priorities, reverse=True)


def test_without_labels_the_most_typical_image_comes_first():
    candidates = [candidate(str(k), 0.1, (float(k), 0)) for k in range(5)]
    assert names("most_diverse", candidates)[0] == "2"
    assert sorted(names("most_diverse", candidates)) == ["0", "1", "2", "3", "4"]


def test_random_is_repeatable_and_reaches_every_image():
    candidates = [candidate(str(k), 0.1) for k in range(8)]
    assert names("random", candidates, seed=3) == names("random", candidates, seed=3)
    assert {names("random", candidates, seed=seed)[0] for seed in range(60)} == {str(k) for k in range(8)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranked_slices_are_apart_and_analysed(strategy: str):
    chosen = rank_slices(strategy, candidate("a", 0.9, slices=40), [candidate("b", 0.1)], seed=1)
    numbers = sorted(number for number, _ in chosen)
    assert 2 <= len(numbers) <= 5 and 0 not in numbers
    assert min(np.diff(numbers)) >= MIN_GAP


def test_slices_by_score_and_by_uncertainty():
    image = candidate("a", 0.9, slices=40)
    assert rank_slices("most_anomalous", image)[0] == (39, pytest.approx(0.9))
    number, priority = rank_slices("most_uncertain", image)[0]
    assert abs(image.slice_scores[number] - 0.5) == pytest.approx(-priority) and -priority < 0.02


def test_projection_keeps_distances():
    points = np.random.default_rng(1).normal(size=(30, 500)).astype(np.float32)
    small = project(points).astype(float)
    before, after = (np.linalg.norm(x[:, None] - x[None], axis=-1)[np.triu_indices(30, 1)] for x in (points, small))
    assert small.shape == (30, 64) and np.allclose(after / before, 1, atol=0.4)
    assert np.array_equal(project(points), project(points))


def test_unknown_strategy_is_refused():
    with pytest.raises(MedCLIPADError, match="no strategy 'best'"):
        rank("best", [])
