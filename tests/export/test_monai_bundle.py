"""Detectors as MONAI bundles, run by MONAI's own command."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import medclipad as mc
from medclipad.errors import DetectorError
from medclipad.export.monai_bundle import DetectorNetwork, write_bundle

pytest.importorskip("monai", reason="needs the extra bundle: make setup")
pytest.importorskip("fire", reason="needs the extra bundle: make setup")

MANDATORY = {"version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
             "description", "authors", "copyright", "network_data_format"}  # fmt: skip
OF_A_TENSOR = {"type", "format", "num_channels", "spatial_shape", "dtype", "value_range", "is_patch_data",
               "channel_def"}  # fmt: skip


@pytest.fixture(scope="module")
def folder(head, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A detector of three planes."""
    folder = tmp_path_factory.mktemp("bundle") / "mine"
    quick = {"planes": "all", "image_size": 64, "memory_size": 50, "shots": 6}
    mc.fit(method="memory", normal=[head(1), head(2)], **quick).save(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Path:
    """The bundle that the command writes."""
    out = folder.parent / "new" / "bundle"
    command = [sys.executable, "-m", "medclipad", "models", "bundle", str(folder), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and f"{out}: written" in done.stdout, done.stderr
    return out


def test_monais_command_writes_the_map_of_detect(bundle: Path, folder: Path, head, reordered, tmp_path: Path) -> None:
    volume = reordered(head(5, True), "PIL")  # another order of axes than the one it learned from
    (tmp_path / "scans").mkdir()
    mc.write_volume(volume, tmp_path / "scans" / "case.nii.gz")
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", "configs/inference.json",
               "--dataset_dir", str(tmp_path / "scans"), "--output_dir", str(tmp_path / "out")]  # fmt: skip
    done = subprocess.run(command, cwd=bundle, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    found = mc.read_volume(tmp_path / "out" / "case_anomaly.nii.gz")
    expected = mc.load_detector(folder).detect(mc.read_volume(tmp_path / "scans" / "case.nii.gz")).anomaly_map
    assert found.array.dtype == np.float32 and (found.affine == expected.affine).all()
    assert expected.array.max() > 0.5 and np.abs(found.array - expected.array).max() < 1e-6


def test_monai_finds_all_that_a_bundle_must_have(bundle: Path) -> None:
    from monai.bundle import ConfigWorkflow

    configs = bundle / "configs"
    files = {"config_file": str(configs / "inference.json"), "meta_file": str(configs / "metadata.json")}
    workflow = ConfigWorkflow(**files, workflow_type="infer", bundle_root=str(bundle))
    workflow.initialize()
    assert workflow.check_properties() == []
    metadata = json.loads((configs / "metadata.json").read_text())
    assert metadata.keys() >= MANDATORY
    for tensors in metadata["network_data_format"].values():
        assert all(tensor.keys() >= OF_A_TENSOR for tensor in tensors.values())
    assert metadata["network_data_format"]["inputs"]["image"]["modality"] == "MR"


def test_a_bundle_names_no_volume(bundle: Path, folder: Path) -> None:
    assert "head1" in (folder / "detector.json").read_text()
    texts = [file.read_text() for file in bundle.rglob("*") if file.suffix in (".json", ".md", "") and file.is_file()]
    assert len(texts) == 6 and not any("head1" in text for text in texts)
    assert "not for diagnosis" in (bundle / "docs" / "README.md").read_text()


def test_what_cannot_be_written_or_run_is_said(bundle: Path, folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DetectorError, match="exists already: choose another folder"):
        write_bundle(folder, bundle)
    with pytest.raises(DetectorError, match="is not a detector folder"):
        write_bundle(tmp_path, tmp_path / "bundle")
    assert not list(tmp_path.iterdir())
    network = DetectorNetwork(bundle / "models" / "detector")
    with pytest.raises(DetectorError, match="are not volumes of one channel"):
        network(torch.zeros(1, 3, 8, 8, 8))
    with pytest.raises(DetectorError, match="have no affine: load them with MONAI's LoadImage"):
        network(torch.zeros(1, 1, 8, 8, 8))
