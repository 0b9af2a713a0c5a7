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
    scoring.stop()
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
        one, two = seen.all("one", ["image", "other"]), seen.all("two", ["image"])
        assert list(one) == ["image"] and one["image"][0] == "state" and one["image"][1].volume_score == 0.25
        assert two["image"][1].volume_score == 0.75
        assert not seen.all("three", ["image"]) and not seen.has("three", "image", "state")
        assert not seen.has("one", "image", "changed")


def test_a_request_looks_at_the_file_of_the_chosen_image_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image that was replaced since is not offered with its earlier scores."""
    from medclipad.server import next_sample
    from medclipad.server.services import Services
    from medclipad.server.stores.image_state import image_state

    monkeypatch.setenv("MEDCLIPAD_SCORING", "off")
    for number in range(300):
        (tmp_path / f"image{number:03}.nii.gz").write_bytes(bytes(number + 1))
    services = Services(Path(__file__).parents[2] / "monailabel_app", str(tmp_path), str(tmp_path / "models"))
    store, scorer = services.datastore, services.scorer
    detector = scorer.detector("mediclip")
    assert detector is not None
    for number in range(300):
        name = f"image{number:03}"
        state = "of an earlier file" if number >= 298 else image_state(store, name)
        assert state is not None
        candidate = Candidate(name, number / 300, np.array([number / 300]), 0.5, np.ones((1, 4), np.float16))
        scorer.scores.put(detector, name, state, candidate)
    looked = []
    monkeypatch.setattr(next_sample, "image_state", lambda *given: looked.append(given[1]) or image_state(*given))
    chosen = services.strategies["most_anomalous"]({"method": "mediclip"}, store)
    assert chosen is not None and chosen["id"] == "image297" and looked == ["image299", "image298", "image297"]
    looked.clear()
    assert services.strategies["random"]({"method": "mediclip"}, store) and len(looked) == 1
    assert not scorer.status("mediclip", store)["running"], "what is off stays off"


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
