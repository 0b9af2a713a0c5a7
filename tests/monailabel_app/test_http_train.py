"""Training over HTTP: progress, versions, and everything that is refused before a process is started."""

from __future__ import annotations

import json
import time

import pytest
import requests
from live_server import SMALL, Server

from medclipad.client import Client, ServerError


def test_progress_is_told_live(trained: list[dict], client: Client) -> None:
    phases = [report["phase"] for report in trained]
    assert phases[-1] == "done" and trained[-1]["status"] == "DONE"
    assert trained[-1]["info"] == {"version": "first"}
    assert len(set(phases)) >= 3
    assert any(report["status"] == "RUNNING" and 0 < report["fraction"] <= 1 for report in trained)


def test_a_version_is_a_folder_and_a_pointer(trained: list[dict], server: Server, client: Client) -> None:
    home = server.studies / "models" / "mediclip"
    assert {path.name for path in (home / "first").iterdir()} == {"detector.json", "weights.safetensors"}
    assert "first" in client.info()["train_stats"]["mediclip"]["versions"]
    assert not list(home.glob(".*")), "leftovers"


def test_labels_become_shots_and_the_new_version_serves(trained: list[dict], server: Server, client: Client) -> None:
    """Without named cases: lesion slices of the final labels are abnormal shots, their other slices normal ones."""
    client.set_image_info("normal_1", {"normal": True})
    few = {"max_samples": 16, "memory_tokens": 100}
    client.train("mvfa", {"shots": 3, "epochs": 1, "options": few, "name": "from-labels"})
    client.wait_trained(seconds=400)
    detector = json.loads((server.studies / "models" / "mvfa" / "from-labels" / "detector.json").read_text())
    assert detector["method"] == "mvfa" and detector["shots"] == 3 and detector["abnormal_shots"] == 3
    sources = {record["volume"]: record for record in detector["training_slices"]}
    assert set(sources) == {"normal_1", "lesion_1", "lesion_2"}
    assert sources["lesion_1"]["abnormal"] and not sources["normal_1"]["abnormal"] and sources["normal_1"]["normal"]
    assert client.infer("mvfa", "lesion_1")[1]["detector"] == "from-labels"  # without a restart

    client.train("mediclip", {**SMALL, "normal": ["normal_2", "lesion_2"]})
    version = client.wait_trained(seconds=400)["info"]["version"]
    assert version.startswith("mediclip-20")
    assert client.infer("mediclip", "normal_1")[1]["detector"] == version
    assert client.infer("mediclip", "normal_1", {"detector": "first"})[1]["detector"] == "first"
    assert client.info()["models"]["mediclip"]["config"]["detector"][:2] == ["current", version]


@pytest.mark.parametrize(
    ("model", "body", "status", "says"),
    [
        ("unknown", {}, 404, "no trainer 'unknown'"),
        ("mediclip", {"normal": ["nobody"]}, 404, "'nobody'"),
        ("mediclip", {"abnormal": ["normal_2"]}, 422, "final label"),
        ("mvfa", {"normal": ["normal_2"]}, 422, "final label"),
        ("mediclip", {"epochs": -1}, 422, "epochs"),
        ("mediclip", {"epoch": 3}, 422, "epoch"),
        ("mediclip", {"plane": "oblique"}, 422, "plane"),
        ("mediclip", {"name": "../evil"}, 422, "name"),
        ("mediclip", {"name": "current"}, 422, "current"),
        ("mediclip", {"name": "first"}, 409, "never overwritten"),
        ("mediclip", {"options": {"colour": "red"}}, 422, "colour"),
        ("mediclip", [], 422, "dictionary"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    trained: list[dict], server: Server, model: str, body: object, status: int, says: str
) -> None:
    answer = requests.post(f"{server.url}/train/{model}", json=body, timeout=30)
    assert answer.status_code == status and says in answer.json()["detail"], answer.text
    assert requests.get(f"{server.url}/train/?check_if_running=true", timeout=30).status_code == 404


def test_a_failing_training_says_why_and_the_old_version_serves(trained: list[dict], client: Client) -> None:
    before = client.info()["train_stats"]["mediclip"]["current"]
    client.train("mediclip", {"normal": ["damaged"], "name": "never"})
    with pytest.raises(ServerError, match=r"damaged.*\.$"):
        client.wait_trained(seconds=60)
    status = client.train_status()
    assert status["status"] == "ERROR" and "damaged" in status["error"]
    assert "Traceback" not in "".join(status["details"])
    assert client.info()["train_stats"]["mediclip"]["current"] == before
    assert client.infer("mediclip", "normal_1")[1]["detector"] == before


def test_one_training_at_a_time_and_stop(trained: list[dict], client: Client, server: Server) -> None:
    before = client.info()["train_stats"]["mediclip"]["current"]
    client.train("mediclip", {"normal": ["normal_1"], "epochs": 10_000, "name": "endless"})
    with pytest.raises(ServerError, match="running already") as caught:
        client.train("mediclip", {"normal": ["normal_1"]})
    assert caught.value.status == 429
    deadline = time.monotonic() + 60
    while client.train_progress()["phase"] in ("starting", "load", "read") and time.monotonic() < deadline:
        time.sleep(0.2)
    started = time.monotonic()
    client.stop_training()
    assert time.monotonic() - started < 2
    home = server.studies / "models"
    assert not [*home.glob("*/.*")] and not [*home.glob("*/endless*")], "something was left"
    assert client.train_progress()["status"] == client.train_status()["status"] == "STOPPED"
    assert not (server.studies / "models" / "mediclip" / "endless").exists()
    assert client.infer("mediclip", "normal_1")[1]["detector"] == before
    assert client.stop_training() == {}
