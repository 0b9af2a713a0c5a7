"""Which volume and which slices are asked for next."""

from __future__ import annotations

import numpy as np
import pytest

from medclipad.active_learning import APART, STRATEGIES, Candidate, project, rank, slices_first
from medclipad.errors import MedCLIPADError


def candidate(name: str, score: float, place: tuple[float, float] = (0, 0), slices: int = 12) -> Candidate:
    scores = np.linspace(0, score, slices)
    scores[0] = np.nan
    features = np.tile(np.array(place, float), (slices, 1)) + np.linspace(0, 0.1, slices)[:, None]
    features[0] = np.nan
    return Candidate(name, score, scores, 0.5, features)


def names(strategy: str, candidates: list[Candidate], labelled: list[Candidate] = [], **more) -> list[str]:  # noqa: B006
    return [one.name for one, _ in rank(strategy, candidates, labelled, **more)]


def test_most_anomalous_and_most_uncertain():
    three = [candidate("a", 0.9), candidate("b", 0.45), candidate("c", 0.1)]
    assert names("most_anomalous", three) == ["a", "b", "c"]
    assert names("most_uncertain", three) == ["b", "a", "c"] or names("most_uncertain", three) == ["b", "c", "a"]
    assert rank("most_uncertain", three)[0][1] == pytest.approx(-0.05)


def test_an_image_that_shows_nothing_comes_last_and_equals_go_by_name():
    blank = Candidate("blank", float("nan"), np.full(3, np.nan), 0.5, np.full((3, 2), np.nan))
    assert names("most_anomalous", [blank, candidate("b", 0.2), candidate("a", 0.2)]) == ["a", "b", "blank"]
    assert set(names("most_diverse", [blank, candidate("a", 0.2, (3, 3))])) == {"blank", "a"}
    assert slices_first("most_anomalous", blank) == []


def test_most_diverse_is_far_from_the_labelled_and_from_each_other():
    places = {"near": (0, 0.1), "far": (10, 0), "far too": (9.9, 0), "aside": (0, 6)}
    candidates = [candidate(name, 0.1, place) for name, place in places.items()]
    order = names("most_diverse", candidates, [candidate("known", 0.1)])
    assert order == ["far", "aside", "near", "far too"] or order == ["far", "aside", "far too", "near"]
    merits = [merit for _, merit in rank("most_diverse", candidates, [candidate("known", 0.1)])]
    assert merits == sorted(merits, reverse=True)


def test_without_labels_the_most_typical_comes_first():
    candidates = [candidate(str(k), 0.1, (float(k), 0)) for k in range(5)]
    assert names("most_diverse", candidates)[0] == "2"
    assert sorted(names("most_diverse", candidates)) == ["0", "1", "2", "3", "4"]


def test_random_is_repeatable_and_covers_all():
    candidates = [candidate(str(k), 0.1) for k in range(8)]
    assert names("random", candidates, seed=3) == names("random", candidates, seed=3)
    assert {names("random", candidates, seed=seed)[0] for seed in range(60)} == {str(k) for k in range(8)}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_slices_to_look_at_are_apart_and_were_analysed(strategy: str):
    chosen = slices_first(strategy, candidate("a", 0.9, slices=40), [candidate("b", 0.1)], seed=1)
    numbers = sorted(number for number, _ in chosen)
    assert 2 <= len(numbers) <= 5 and 0 not in numbers
    assert min(np.diff(numbers)) >= APART


def test_slices_by_score_and_by_doubt():
    one = candidate("a", 0.9, slices=40)
    assert slices_first("most_anomalous", one)[0] == (39, pytest.approx(0.9))
    number, merit = slices_first("most_uncertain", one)[0]
    assert abs(one.slice_scores[number] - 0.5) == pytest.approx(-merit) and -merit < 0.02


def test_projection_keeps_distances():
    points = np.random.default_rng(1).normal(size=(30, 500)).astype(np.float32)
    small = project(points).astype(float)
    true, seen = (np.linalg.norm(x[:, None] - x[None], axis=-1)[np.triu_indices(30, 1)] for x in (points, small))
    assert small.shape == (30, 64) and np.allclose(seen / true, 1, atol=0.4)
    assert np.array_equal(project(points), project(points))


def test_unknown_strategy():
    with pytest.raises(MedCLIPADError, match="no strategy 'best'"):
        rank("best", [])
