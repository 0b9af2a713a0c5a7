"""Detectors as ONNX: onnxruntime computes what torch does, on slices of a real volume."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import medclipad as mc
from medclipad.compat import ensure_torchvision
from medclipad.errors import DetectorError
from medclipad.export import onnx

onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra onnx: make setup")

QUICK = {"planes": "axial", "image_size": 64, "shots": 6, "smoothing": 0}
TINY = {
    "embed_dim": 16,
    "vision_cfg": {"image_size": 56, "layers": 4, "width": 32, "head_width": 16, "patch_size": 14},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}


@pytest.fixture(scope="module")
def folder(head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector that compares slices of about the same height."""
    folder = tmp_path_factory.mktemp("onnx") / "memory"
    mc.fit(method="memory", normal=[head(1), head(2)], memory_size=1500, **QUICK).save(folder)
    return folder


def require_same(detector: mc.AnomalyDetector, file: Path, volume: mc.Volume) -> None:
    """Compare the maps of every third slice of a volume, as `detect` computes them before smoothing."""
    framed, model = detector.framed(volume, detector.info.plane), detector.model
    session = onnxruntime.InferenceSession(file)
    names = [one.name for one in session.get_inputs()]
    assert names == ["images", "heights"][: 1 + model.uses_heights]
    assert [(one.name, one.shape[0]) for one in session.get_outputs()] == [("map", 1), ("score", 1)]
    for n in framed.analysed[::3]:
        images, heights = framed.images([n]), framed.heights[[n]].astype(np.float32)
        found, score = session.run(None, dict(zip(names, (images, heights), strict=False)))
        maps, scores = model.anomaly_at(torch.from_numpy(images), torch.from_numpy(heights))
        expected = model.scores_of(maps) if scores is None else scores
        assert np.abs(found - maps.numpy()).max() < 1e-4 and np.abs(score - expected.numpy()).max() < 1e-4


def test_the_command_writes_what_onnxruntime_computes_alike(folder: Path, head, tmp_path: Path) -> None:
    out = tmp_path / "new" / "memory.onnx"
    command = [sys.executable, "-m", "medclipad", "models", "export-onnx", str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert f"{out}: written" in done.stdout
    detector = mc.load_detector(folder, precision="float32")
    assert detector.model.uses_heights
    require_same(detector, out, head(5, True))
    metadata = onnxruntime.InferenceSession(out).get_modelmeta().custom_metadata_map
    assert {"plane": "axial", "image_size": "64", "intensity": "mr"}.items() <= metadata.items()


def test_heads_on_clip_with_flags_and_text_features(head, lesion, tmp_path: Path) -> None:
    """MVFA has both, and a memory without heights."""
    ensure_torchvision()
    import open_clip

    (tmp_path / "tiny-onnx-test.json").write_text(json.dumps(TINY))
    open_clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    torch.save(open_clip.CLIP(**TINY).state_dict(), tmp_path / "tiny.pt")
    options = {**QUICK, "image_size": 56, "encoder": f"tiny-onnx-test/{tmp_path / 'tiny.pt'}", "epochs": 1}
    mc.fit(method="mvfa", normal=[head(1)], abnormal=[(head(0, True), lesion)], **options).save(tmp_path / "mvfa")
    assert onnx.export_onnx(tmp_path / "mvfa", tmp_path / "mvfa.onnx") == [tmp_path / "mvfa.onnx"]
    require_same(mc.load_detector(tmp_path / "mvfa", precision="float32"), tmp_path / "mvfa.onnx", head(5, True))


def test_what_cannot_be_exported_is_said(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there.onnx").touch()
    with pytest.raises(DetectorError, match=r"there.onnx exists already"):
        onnx.export_onnx(folder, tmp_path / "there.onnx")
    with pytest.raises(DetectorError, match="There is no detector folder"):
        onnx.export_onnx(tmp_path / "none", tmp_path / "none.onnx")
    monkeypatch.setattr(onnx, "NEEDED", ("onnx", "no_such_package"))
    with pytest.raises(DetectorError, match="no_such_package is not installed: pip install"):
        onnx.export_onnx(folder, tmp_path / "none.onnx")


def test_a_file_that_computes_something_else_is_not_written(folder, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnx, "TOLERANCE", 0.0)
    with pytest.raises(DetectorError, match=r"away from torch's, more than 0: nothing was written"):
        onnx.export_onnx(folder, tmp_path / "apart.onnx")
    assert not list(tmp_path.iterdir())


@pytest.mark.long
@pytest.mark.parametrize("method", ["mediclip", "madclip"])
def test_other_methods(method: str, head, lesion, tmp_path: Path) -> None:
    quick = {**QUICK, "planes": "all", "memory_size": 50} if method == "mediclip" else QUICK
    mc.fit(method=method, normal=[head(1)], abnormal=[(head(0, True), lesion)], **quick).save(tmp_path / method)
    files = onnx.export_onnx(tmp_path / method, tmp_path / "head.onnx")
    detector = mc.load_detector(tmp_path / method, precision="float32")
    names = ["head.axial.onnx", "head.coronal.onnx", "head.sagittal.onnx"] if method == "mediclip" else ["head.onnx"]
    assert [file.name for file in files] == names
    require_same(detector, files[0], head(5, True))
