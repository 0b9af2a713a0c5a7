"""A third method, written in this one file, works on every face without a change elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

METHOD = '''
"""Blank: a slice is as anomalous as it is bright, times a gain."""

from __future__ import annotations

import torch
from pydantic import Field

from medclipad.methods import Method, MethodOptions, register_method
from medclipad.methods.base import AnomalyModel
from medclipad.volume.progress import no_progress


class BlankOptions(MethodOptions):
    gain: float = Field(default=0.5, ge=0, le=1, title="Gain", description="how much brightness counts")


class BlankModel(AnomalyModel):
    def __init__(self, encoder, options):
        super().__init__(encoder, options)
        self.register_buffer("mean", torch.zeros(1))

    def calibrate(self, normal):
        pass

    def anomaly(self, images):
        return (images * self.options.gain).clamp(0, 1), None


@register_method
class Blank(Method):
    name = "blank"
    summary = "Blank: bright is abnormal"
    learns_from = frozenset({"normal"})
    needs = frozenset({"normal"})
    default_image_size = 64
    Options = BlankOptions

    @classmethod
    def build(cls, encoder, options):
        return BlankModel(encoder, options)

    @classmethod
    def fit(cls, model, shots, seed, progress=no_progress):
        progress("train", 1, 1, {})
        model.mean[0] = float(shots.normal.mean())
        return {"mean": float(model.mean)}
'''

STUDY = """
import numpy as np, medclipad as mc
x, y, z = np.meshgrid(*[np.linspace(-1, 1, n) for n in (40, 40, 8)], indexing="ij")
body = np.where(np.hypot(x, y) < 0.8, 50 + 20 * np.sin(9 * x), 0).astype(np.float32)
mask = np.zeros(body.shape, np.uint8); mask[16:22, 16:22, 3:6] = 1
volume = mc.Volume(body, np.eye(4), name="healthy")
mc.write_volume(volume, "healthy.nii.gz")
mc.write_volume(volume.with_array(np.where(mask, 90, body).astype(np.float32)), "sick.nii.gz")
mc.write_volume(volume.with_array(mask), "truth.nii.gz")
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A folder with a package that brings the method by an entry point, and a small study."""
    folder = tmp_path_factory.mktemp("third")
    (folder / "blank_method.py").write_text(METHOD, encoding="utf-8")
    info = folder / "blank_method-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: blank-method\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[medclipad.methods]\nblank = blank_method\n")
    run(folder, "-c", STUDY)
    return folder


def run(folder: Path, *arguments: str) -> str:
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "OMP_NUM_THREADS": "1", "COLUMNS": "200",
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, timeout=200, env=environment, cwd=folder
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_command_line(home):
    assert "--gain" in run(home, "-m", "medclipad", "fit", "--help")
    arguments = ("--method", "blank", "--gain", "0.8", "--image-size", "64", "--normal", "healthy.nii.gz")
    assert "blank on embedded" in run(home, "-m", "medclipad", "fit", *arguments, "--out", "model")
    run(home, "-m", "medclipad", "detect", "model", "sick.nii.gz", "--out", "results")
    assert json.loads((home / "results" / "sick.json").read_text())["volume_score"] > 0
    run(home, "-m", "medclipad", "evaluate", "model", "--case", "sick.nii.gz:truth.nii.gz", "--json", "figures.json")
    assert json.loads((home / "figures.json").read_text())["cases"][0]["detector"]["voxel_auroc"] > 0.6


def test_python(home):
    code = (
        "import medclipad as mc\n"
        "detector = mc.fit(method='blank', normal='healthy.nii.gz', gain=0.25, image_size=64, shots=2)\n"
        "print(detector.info.config.options, detector.detect(mc.read_volume('sick.nii.gz')).plane)"
    )
    assert run(home, "-c", code).strip() == "{'gain': 0.25} axial"


def test_server_and_form(home, tmp_path):
    """Over HTTP: it is listed with its options, can be trained, and its version detects. The form is the schema."""
    sys.path.insert(0, str(ROOT / "tests" / "server"))
    from live_server import Server

    studies = tmp_path / "studies"
    studies.mkdir()
    for name in ("healthy", "sick"):
        (studies / f"{name}.nii.gz").write_bytes((home / f"{name}.nii.gz").read_bytes())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(home), str(ROOT)]))
        patch.setenv("MEDCLIPAD_SCORING", "off")
        server = Server(studies)
    try:
        trainer = server.client.info()["trainers"]["blank"]
        assert trainer["schema"]["properties"]["gain"]["title"] == "Gain"
        server.client.train("blank", {"normal": ["healthy"], "gain": 0.75, "image_size": 64, "name": "first"})
        server.client.wait_trained()
        assert server.client.versions()["blank"]["current"] == "first"
        _, scores = server.client.infer("blank", "sick", {"result": "map"})
        assert scores["detector"] == "first" and scores["volume_score"] > 0
    finally:
        server.stop()
