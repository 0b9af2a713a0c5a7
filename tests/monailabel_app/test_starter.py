"""The starter detector that ships with the app."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from live_server import Server

import monailabel_app
from medclipad.client import Client
from medclipad.storage import INFO, WEIGHTS, read_info
from medclipad.volume import read_volume

STARTER = Path(monailabel_app.__file__).parent / "starter"


def test_it_says_what_it_was_made_from() -> None:
    info = read_info(STARTER)
    assert (info.method, info.encoder, info.plane) == ("mediclip", "embedded", "axial")
    assert "simulated" in info.description and "not for diagnosis" in info.description
    assert all(case["volume"].startswith("normal-") and not case["abnormal"] for case in info.training_slices)
    assert sum((STARTER / name).stat().st_size for name in (INFO, WEIGHTS)) < 2_000_000


def test_it_answers_on_a_server(server: Server, client: Client, tmp_path: Path) -> None:
    assert "starter" in client.info()["models"]["mediclip"]["config"]["detector"]
    path, scores = client.infer("mediclip", "normal_1", {"result": "map", "detector": "starter"}, folder=tmp_path)
    heat = read_volume(path).array
    assert scores["detector"] == "starter"
    assert heat.dtype == np.float32 and 0 <= heat.min() < heat.max() <= 1
    analysed = [score for score in scores["slice_scores"] if score is not None]
    assert analysed and 0 < max(analysed) <= np.float32(heat.max()), "the score is a mean of the highest of the map"
