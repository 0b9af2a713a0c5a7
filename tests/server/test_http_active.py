"""Active learning over HTTP: it never waits for scores, and uses them once they exist."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import requests
from live_server import Server, fill

from medclipad.active_learning import Candidate
from medclipad.client import Client, ServerError


@pytest.fixture(scope="module")
def scoring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(fill(tmp_path_factory.mktemp("scored") / "studies"))
    yield server
    server.stop()


def test_it_answers_at_once_and_then_by_score(scoring: Server) -> None:
    client = scoring.client
    started = time.perf_counter()
    first = client.next_sample("most_anomalous")
    took, state = time.perf_counter() - started, client.scoring()
    assert took < 2 or state["done"] < state["total"], "asking must not wait for scoring"
    assert first["strategy"] == "most_anomalous" and first["unlabelled"] == 3 and first["reason"].endswith(".")
    deadline = time.monotonic() + 300
    while client.scoring()["done"] < client.scoring()["total"] and time.monotonic() < deadline:
        time.sleep(0.5)
    state = client.scoring()
    assert state["done"] == state["total"] == 5 and (state["method"], state["detector"]) == ("mediclip", "starter")
    scores = {image: client.infer("mediclip", image)[1] for image in ("normal_1", "normal_2")}
    assert all(answer["cached"] for answer in scores.values()), "a scored image is not computed again"
    best = max(scores, key=lambda image: scores[image]["volume_score"])
    chosen = client.next_sample("most_anomalous")
    assert chosen["id"] == best and chosen["score"] == pytest.approx(scores[best]["volume_score"])
    assert chosen["scored"] == 2, "the damaged image has no score, and nothing breaks"
    assert chosen["slices"][0]["plane"] == "axial" and len(chosen["slices"]) <= 5
    number = chosen["slices"][0]["slice"]
    assert scores[best]["slice_scores"][number] == max(score or 0 for score in scores[best]["slice_scores"])
    for strategy in ("most_uncertain", "most_diverse"):
        chosen = client.next_sample(strategy, {"method": "mediclip"})
        assert chosen["id"] in scores and isinstance(chosen["score"], float) and chosen["slices"]
    assert client.next_sample("random", {"seed": 1})["id"] in client.images()


def test_scores_survive_a_restart(scoring: Server) -> None:
    before = scoring.client.next_sample("most_diverse")
    again = Server(scoring.studies, MEDCLIPAD_SCORING="off")
    try:
        after = again.client.next_sample("most_diverse")
        assert (after["id"], after["score"], after["scored"]) == (before["id"], before["score"], before["scored"])
    finally:
        again.stop()


def test_scores_are_those_of_the_detector_and_the_file(tmp_path: Path) -> None:
    """Scores of another detector, or of an earlier file, are not returned, neither from memory nor from the disk."""
    from medclipad.server.inference.scoring import ScoreStore

    def scores(value: float) -> Candidate:
        return Candidate("image", value, np.array([value]), 0.5, np.ones((1, 4), np.float16))

    store = ScoreStore(tmp_path)
    store.put("one", "image", "state", scores(0.25))
    store.put("two", "image", "state", scores(0.75))
    for seen in (store, ScoreStore(tmp_path)):
        one, two = seen.get("one", "image", "state"), seen.get("two", "image", "state")
        assert one is not None and one.volume_score == 0.25
        assert two is not None and two.volume_score == 0.75
        assert seen.get("three", "image", "state") is None and not seen.has("three", "image", "state")
        assert seen.get("one", "image", "changed") is None and not seen.has("one", "image", "changed")
        assert seen.get("one", "other", "state") is None


@pytest.mark.parametrize(
    "body",
    [
        {"method": "unknown"},
        {"seed": "x"},
        {"client_id": 5},
        {"seed": True},
        {"client_id": "x" * 300},
        {"client_id": "\ud800"},
    ],
)
def test_wrong_requests(server: Server, body: dict) -> None:
    answer = requests.post(f"{server.url}/activelearning/random", json=body, timeout=30)
    assert answer.status_code == 422 and next(iter(body)) in answer.json()["detail"]
    assert requests.get(f"{server.url}/scoring/?method=x", timeout=30).status_code == 422


def test_unknown_strategy(client: Client) -> None:
    with pytest.raises(ServerError, match="Strategy 'best' was not found; available: most_anomalous"):
        client.next_sample("best")
