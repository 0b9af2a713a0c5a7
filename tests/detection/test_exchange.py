"""Detectors given to others and taken from them: folders, and a stand-in of the hub over the hub's own library."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import medclipad as mc
from medclipad.detection.exchange import pull, push
from medclipad.detection.storage import INFO, WEIGHTS, read_info
from medclipad.errors import DetectorError
from tests.detection import hub as stand_in


@pytest.fixture(scope="module")
def folder(head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of two volumes."""
    folder = tmp_path_factory.mktemp("exchange") / "mine"
    quick = {"planes": "axial", "image_size": 64, "max_steps": 1, "memory_size": 50, "shots": 6}
    mc.fit(normal=[head(1), head(2)], **quick).save(folder)
    return folder


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The stand-in, in place of the hub, with an empty cache."""
    from huggingface_hub import constants

    with stand_in.running() as running:
        address = f"http://127.0.0.1:{running.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        template = address + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setenv("HF_TOKEN", stand_in.TOKEN)
        running.address = address
        yield running


def same_map(head, one: Path, other: Path) -> bool:
    maps = [mc.load_detector(path).detect(head(5)).anomaly_map.array for path in (one, other)]
    return bool((maps[0] == maps[1]).all())


def test_a_detector_is_given_without_names(head, folder: Path, tmp_path: Path) -> None:
    given = Path(push(folder, str(tmp_path / "given")))
    assert "head" not in (given / INFO).read_text() and "head" in (folder / INFO).read_text()
    known, info = read_info(folder), read_info(given)
    assert [part["volume"] for part in info.training_slices] == ["volume 1", "volume 2"]
    assert [scan.name for scan in info.calibration.scans] == ["volume 1", "volume 2"]
    assert info.calibration.scores == known.calibration.scores
    assert pull(str(given), tmp_path / "taken") == info
    assert same_map(head, folder, tmp_path / "taken")


def test_the_hub_has_it_and_gives_it_back(head, folder: Path, tmp_path: Path, hub: Any) -> None:
    push(folder, "hf://me/detector")
    assert hub.repositories["me/detector"]["visibility"] == "private"
    assert {INFO, WEIGHTS, "README.md"} <= set(hub.files) and b"head" not in hub.files[INFO]
    info = pull("hf://me/detector", tmp_path / "taken")
    assert info.name == read_info(folder).name and same_map(head, folder, tmp_path / "taken")


def test_what_cannot_be_given_or_taken_is_said(folder: Path, tmp_path: Path, hub: Any, monkeypatch) -> None:
    with pytest.raises(DetectorError, match="could not be fetched from hf://me/none"):
        pull("hf://me/none", tmp_path / "none")
    with pytest.raises(DetectorError, match="write it as hf://owner/name"):
        push(folder, "hf://mine")
    push(folder, "hf://me/detector")
    hub.files[WEIGHTS] = hub.files[WEIGHTS][:-1]
    with pytest.raises(DetectorError, match="damaged"):
        pull("hf://me/detector", tmp_path / "damaged")
    with pytest.raises(DetectorError, match="exists already"):
        push(folder, str(folder))
    with pytest.raises(DetectorError, match="not a detector folder"):
        pull(str(tmp_path), tmp_path / "new")
    monkeypatch.setenv("HF_TOKEN", "hf_another")
    with pytest.raises(DetectorError, match=r"could not be written to hf://me/detector.*your token"):
        push(folder, "hf://me/detector")
    assert not [path for path in tmp_path.iterdir() if path.name != "hub"], "nothing is left"


def test_from_the_command_line(folder: Path, tmp_path: Path) -> None:
    """In processes of their own, so that the environment alone says where the hub is."""
    with stand_in.running() as hub:
        environment = {**os.environ, "HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_TOKEN": stand_in.TOKEN,
                       "HF_HOME": str(tmp_path / "home")}  # fmt: skip
        for arguments in (["push", str(folder), "hf://me/detector", "--public"],
                          ["pull", "hf://me/detector", "--out", str(tmp_path / "taken")]):  # fmt: skip
            command = [sys.executable, "-m", "medclipad", "models", *arguments]
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, done.stderr
        assert hub.repositories["me/detector"]["visibility"] == "public"
    assert "1 false alarm in 3" in done.stdout
    assert json.loads((tmp_path / "taken" / INFO).read_text())["config"]["method"] == "mediclip"
