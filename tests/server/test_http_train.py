"""Training over HTTP: progress, versions, and everything that is refused before a process is started."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from live_server import SMALL, Server, head

from medclipad.client import Client, ServerError
from medclipad.methods import get_method, method_names
from medclipad.volume import Slicing, read_volume, write_volume


def test_progress_is_told_live(trained: list[dict], client: Client) -> None:
    phases = [report["phase"] for report in trained]
    assert phases[-1] == "done" and trained[-1]["status"] == "DONE"
    assert trained[-1]["info"] == {"version": "first"}
    assert len(set(phases)) >= 3
    assert any(report["status"] == "RUNNING" and 0 < report["fraction"] <= 1 for report in trained)


def test_a_version_is_a_folder_and_a_pointer(trained: list[dict], server: Server, client: Client) -> None:
    home = server.studies / "models" / "mediclip"
    assert {path.name for path in (home / "first").iterdir()} == {"README.md", "detector.json", "weights.safetensors"}
    assert "first" in client.info()["train_stats"]["mediclip"]["versions"]
    assert not list(home.glob(".*")), "leftovers"


def test_labels_become_shots_and_the_new_version_serves(trained: list[dict], server: Server, client: Client) -> None:
    """Without named cases: lesion slices of the final labels are abnormal shots, their other slices normal ones."""
    client.set_image_info("normal_1", {"normal": True})
    few = {"max_samples": 16, "memory_tokens": 100}
    client.train("mvfa", {"shots": 3, "epochs": 1, "image_size": 96, **few, "name": "from-labels"})
    client.wait_trained(seconds=120)
    detector = json.loads((server.studies / "models" / "mvfa" / "from-labels" / "detector.json").read_text())
    assert detector["config"]["method"] == "mvfa" and detector["config"]["image_size"] == 96
    assert detector["normal_slices"] == detector["abnormal_slices"] == 3
    sources = {record["volume"]: record for record in detector["training_slices"]}
    assert set(sources) == {"normal_1", "lesion_1", "lesion_2"}
    assert sources["lesion_1"]["abnormal"] and not sources["normal_1"]["abnormal"] and sources["normal_1"]["normal"]
    for name in ("lesion_1", "lesion_2"):
        mask = read_volume(server.studies / "labels" / "final" / f"{name}.nii.gz")
        shows = np.any(Slicing(mask, "axial").slices(mask.array), axis=(1, 2))
        normal, abnormal = sources[name]["normal"], sources[name]["abnormal"]
        assert normal and not shows[normal].any(), "lesion-free slices of a labelled volume are normal shots"
        assert shows[abnormal].all()
    assert client.infer("mvfa", "lesion_1")[1]["detector"] == "from-labels"  # without a restart

    client.train("mediclip", {**SMALL, "normal": ["normal_2", "lesion_2"], "select": "always"})
    version = client.wait_trained(seconds=120)["info"]["version"]
    assert version.startswith("mediclip-20")
    assert client.infer("mediclip", "normal_1")[1]["detector"] == version
    assert client.infer("mediclip", "normal_1", {"detector": "first"})[1]["detector"] == "first"
    assert client.info()["models"]["mediclip"]["config"]["detector"][:2] == ["current", version]


@pytest.mark.parametrize(
    ("model", "body", "status", "says"),
    [
        ("unknown", {}, 404, "Trainer 'unknown' was not found"),
        ("mediclip", {"normal": ["nobody"]}, 404, "'nobody'"),
        ("mediclip", {"abnormal": ["normal_2"]}, 422, "final label"),
        ("mvfa", {"normal": ["normal_2"]}, 422, "final label"),
        ("mediclip", {"epochs": -1}, 422, "epochs"),
        ("mediclip", {"epoch": 3}, 422, "epoch"),
        ("mediclip", {"plane": "oblique"}, 422, "plane"),
        ("mediclip", {"image_size": 100}, 422, "multiples of 32"),
        ("mediclip", {"name": "../evil"}, 422, "name"),
        ("mediclip", {"name": "current"}, 422, "current"),
        ("mediclip", {"name": "first"}, 409, "never overwritten"),
        ("mediclip", {"colour": "red"}, 422, "colour"),
        ("mediclip", [], 422, "dictionary"),
    ],
)
def test_what_cannot_be_trained_is_refused_at_once(
    trained: list[dict], server: Server, model: str, body: Any, status: int, says: str
) -> None:
    answer = requests.post(f"{server.url}/train/{model}", json=body, timeout=30)
    assert answer.status_code == status and says in answer.json()["detail"], answer.text
    assert requests.get(f"{server.url}/train/?check_if_running=true", timeout=30).status_code == 404


def test_the_whole_loop(trained: list[dict], client: Client, tmp_path: Path) -> None:
    """Request the next image, look, correct, train: the next answer is the new detector's."""
    volume, mask = head(16, lesion=True)
    write_volume(volume, tmp_path / "loop.nii.gz")
    write_volume(mask, tmp_path / "corrected.nii.gz")
    client.upload_image(tmp_path / "loop.nii.gz")
    offered = [client.next_sample()["id"] for _ in client.images()]
    assert "loop" in offered and "lesion_1" not in offered, "all that have no label, each before one comes twice"
    before = client.infer("mediclip", "loop")[1]["detector"]
    client.save_label("loop", tmp_path / "corrected.nii.gz")
    assert "loop" not in [client.next_sample()["id"] for _ in offered]
    client.train("mediclip", {**SMALL, "abnormal": ["loop"], "select": "always", "name": "looped"})
    outcome = client.wait_trained(seconds=120)["outcome"]
    assert (outcome["previous"], outcome["selected"]) == (before, True)
    assert client.infer("mediclip", "loop")[1]["detector"] == "looped"
    client.select_version("mediclip", before)
    client.delete_version("mediclip", "looped")
    client.json("DELETE", "/datastore/image", params={"id": "loop"})


@pytest.mark.parametrize("method", method_names())
def test_the_published_schema_is_the_one_that_is_checked(server: Server, client: Client, method: str) -> None:
    """A value that the schema of `/info/` forbids is refused, with the name of the parameter."""
    schema = client.info()["trainers"][method]["schema"]
    assert not schema["additionalProperties"]
    refused = _beyond(schema["properties"])
    assert {"shots", "seed", "planes", "select", "held_out", "name", "intensity"} <= set(refused)
    assert {"image_size", "precision", *get_method(method).Options.model_fields} <= set(refused)
    for name, value in refused.items():
        answer = requests.post(f"{server.url}/train/{method}", json={name: value}, timeout=30)
        assert answer.status_code == 422 and name in answer.json()["detail"], (name, answer.text)


def _beyond(properties: dict) -> dict:
    """Return a value that the schema forbids, by name."""
    forbidden = {}
    for name, rule in properties.items():
        for part in rule.get("anyOf", [rule]):
            if "enum" in part:
                forbidden[name] = "none of them"
            elif {"minimum", "exclusiveMinimum"} & set(part):
                forbidden[name] = part.get("minimum", part.get("exclusiveMinimum")) - 1
            elif "maxLength" in part:
                forbidden[name] = "x" * (part["maxLength"] + 1)
    return forbidden


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
    client.train("mediclip", {"normal": ["normal_1"], "epochs": 10_000, "memory_share": 0.5, "name": "endless"})
    with pytest.raises(ServerError, match="already running") as caught:
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
