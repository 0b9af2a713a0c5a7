"""Detector versions over HTTP and on the command line, and whether a training reports honestly if it helped."""

from __future__ import annotations

import shutil
from typing import Any

import pytest
import requests
from live_server import SMALL, Server
from typer.testing import CliRunner

from medclipad.cli.main import app
from medclipad.client import Client, ServerError


@pytest.fixture(scope="module")
def spare(trained: list[dict], client: Client) -> dict:
    """Last progress of a training on labels whose version is stored but not put to use."""
    client.train("mediclip", {**SMALL, "abnormal": ["lesion_1", "lesion_2"], "select": "never", "name": "spare"})
    return client.wait_trained(seconds=120)


def test_of_two_patients_nothing_is_compared(spare: dict, client: Client) -> None:
    outcome = spare["outcome"]
    assert outcome["version"] == "spare" and outcome["selected"] is outcome["compared"] is False
    assert outcome["previous"] == client.versions()["mediclip"]["current"] != "spare"
    assert outcome["held_out"]["patients"] < 5, "with the labels of other tests"
    assert outcome["verdict"].startswith("Not compared: ") and "stays in use" in outcome["verdict"]
    assert "\n" not in outcome["verdict"] and outcome["verdict"].endswith(".")


def test_progress_tells_epochs_and_losses(spare: dict) -> None:
    assert spare["epoch"] == spare["epochs"] == 2 and spare["loss"] > 0
    steps = [step for step, _ in spare["history"]]
    assert steps == sorted(steps) and 2 <= len(steps) <= 200 and spare["history"][-1][1] == spare["loss"]


def test_versions_are_listed_selected_and_rolled_back(spare: dict, client: Client) -> None:
    known = client.versions()["mediclip"]
    entry = next(version for version in known["versions"] if version["name"] == "spare")
    assert set(entry) == {
        "name", "created", "method", "encoder", "plane", "intensity", "image_size", "shots", "abnormal_shots",
        "description", "planes", "normal_scans", "metrics", "bytes", "starter",
    }  # fmt: skip
    assert entry["bytes"] > 1000 and not entry["starter"] and known["versions"][-1]["starter"]
    before = known["current"]
    assert client.select_version("mediclip", "spare")["current"] == "spare"
    assert client.infer("mediclip", "normal_1")[1]["detector"] == "spare"
    assert client.select_version("mediclip", before)["current"] == before
    assert client.infer("mediclip", "normal_1")[1]["detector"] == before
    assert client.select_version("mediclip", "starter")["current"] == "starter"
    client.select_version("mediclip", before)


@pytest.mark.parametrize(
    ("method", "name", "status", "says"),
    [
        ("mediclip", "nobody", 404, "nobody"),
        ("mediclip", "current", 404, "current"),
        ("unknown", "first", 404, "was not found"),
        ("mediclip", "..%2F..%2Fx", 404, ""),
        ("mediclip", "starter", 409, "starter"),
    ],
)
def test_what_cannot_be_deleted(spare: dict, server: Server, method: str, name: str, status: int, says: str) -> None:
    answer = requests.delete(f"{server.url}/versions/{method}/{name}", timeout=30)
    assert answer.status_code == status and says in answer.json()["detail"], answer.text


@pytest.mark.parametrize("body", [{}, {"name": 1}, {"name": "first", "x": 1}, [], {"name": "x" * 65}])
def test_a_wrong_choice_is_refused(spare: dict, server: Server, body: Any) -> None:
    answer = requests.put(f"{server.url}/versions/mediclip/current", json=body, timeout=30)
    assert answer.status_code == 422 and answer.json()["detail"]


def test_the_command_line_does_the_same_on_a_server_and_on_a_folder(
    spare: dict, server: Server, client: Client, tmp_path
) -> None:
    models = tmp_path / "models"
    shutil.copytree(server.studies / "models", models)
    before = client.versions()["mediclip"]["current"]
    for where in (["--url", server.url], ["--models", str(models)]):
        listed = CliRunner().invoke(app, ["versions", "list", *where], env={"COLUMNS": "200"})
        assert listed.exit_code == 0 and "spare" in listed.output and "starter" in listed.output, listed.output
        assert CliRunner().invoke(app, ["versions", "select", "mediclip", "spare", *where]).exit_code == 0
        refused = CliRunner().invoke(app, ["versions", "delete", "mediclip", "spare", *where])
        assert "is in use" in str(refused.exception)
        assert CliRunner().invoke(app, ["versions", "select", "mediclip", before, *where]).exit_code == 0
        assert CliRunner().invoke(app, ["versions", "delete", "mediclip", "spare", *where]).exit_code == 0
    assert not (models / "mediclip" / "spare").exists() and (models / "mediclip" / before).is_dir()
    with pytest.raises(ServerError, match="mediclip detector 'spare' was not found") as caught:
        client.infer("mediclip", "normal_1", {"detector": "spare"})
    assert caught.value.status == 404
    assert "either --models" in str(CliRunner().invoke(app, ["versions", "list"]).exception)
