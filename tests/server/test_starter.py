"""The starter detector that ships with the app."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from live_server import Server

import monailabel_app
from medclipad.client import Client
from medclipad.detection.slice_frames import smoothed_scores
from medclipad.detection.storage import INFO, WEIGHTS, read_info
from medclipad.volume import Slicing, read_volume

STARTER = Path(monailabel_app.__file__).parent / "starter"
SHARE = 0.02  # of the body's largest slice: so many of the highest values have a slice's score as their mean
SMOOTHING = 6.0  # mm, of the scores along the stack


def test_it_says_what_it_was_made_from() -> None:
    info = read_info(STARTER)
    assert (info.method, info.encoder, info.plane) == ("mediclip", "embedded", "axial")
    assert "simulated" in info.description and "not for diagnosis" in info.description
    assert all(case["volume"].startswith("normal-") and not case["abnormal"] for case in info.training_slices)
    assert sum((STARTER / name).stat().st_size for name in (INFO, WEIGHTS)) < 2_000_000


def test_the_encoder_is_loaded_once_for_all_detectors(tmp_path: Path) -> None:
    from medclipad.server.training.versions import DetectorCache

    shutil.copytree(STARTER, tmp_path / "copy")
    cache = DetectorCache()
    one, other = cache.get(STARTER), cache.get(tmp_path / "copy")
    assert one is not other and one.model.encoder is other.model.encoder
    assert cache.get(STARTER) is one


def test_it_answers_on_a_server(server: Server, client: Client, tmp_path: Path) -> None:
    assert "starter" in client.info()["models"]["mediclip"]["config"]["detector"]
    path, scores = client.infer("mediclip", "normal_1", {"result": "map", "detector": "starter"}, folder=tmp_path)
    heat = read_volume(path)
    assert scores["detector"] == "starter"
    assert heat.array.dtype == np.float32 and 0 <= heat.array.min() < heat.array.max() <= 1
    found = np.array([np.nan if score is None else score for score in scores["slice_scores"]])
    analysed = np.isfinite(found)
    slicing = Slicing(heat, "axial")
    maps = slicing.slices(heat.array)
    body = int((maps > 0).sum(axis=(1, 2)).max())
    highest = np.sort(maps.reshape(len(maps), -1))[:, -int(SHARE * body) :].mean(axis=1)
    expected = smoothed_scores(np.where(analysed, highest, np.nan), heat.spacing[slicing.axis], SMOOTHING)
    assert analysed.any() and found[analysed] == pytest.approx(expected[analysed], rel=1e-4)
