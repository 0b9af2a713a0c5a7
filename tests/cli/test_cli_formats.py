"""`medclipad detect` on files that need a choice or a word."""

from __future__ import annotations

import sys

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from medclipad import fit
from medclipad.cli import main as cli
from medclipad.volume import read_volume
from tests.volume.format_cases_dicom import _tilted


@pytest.fixture(scope="module")
def model(head, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "brain"
    fit(normal=[head(1)], shots=4, epochs=1, image_size=64, intensity="raw").save(folder)
    return folder


@pytest.fixture
def detect(model, tmp_path, monkeypatch, capsys):
    """`detect(*arguments)`: (exit code, what was said on standard error)."""

    def run(*arguments) -> tuple[int, str]:
        command = ("medclipad", "detect", model, *arguments, "--out", tmp_path)
        monkeypatch.setattr(sys, "argv", [str(argument) for argument in command])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code or 0, capsys.readouterr().err

    return run


def test_a_tilted_series_is_refused_or_resampled(detect, tmp_path):
    folder = _tilted(15)(tmp_path)
    code, said = detect(folder)
    assert code == 1
    assert "by a gantry tilt of 15.0 degrees; resample it to upright slices" in said
    code, said = detect(folder, "--untilt")
    assert code == 0, said
    assert "a gantry tilt of 15.0 degrees is resampled to upright slices" in said
    assert read_volume(tmp_path / "case_anomaly.nii.gz").shape == read_volume(folder, tilt="resample").shape
    (tmp_path / "case_anomaly.nii.gz").unlink()
    code, said = detect(folder, "--untilt", "--dicom", "map")
    assert code == 1
    assert "case: it was resampled, so that it does not lie on the images of its DICOM series" in said
    assert not (tmp_path / "case_anomaly.nii.gz").exists()  # said before the work


def test_a_time_point_is_chosen(detect, tmp_path):
    array = np.random.default_rng(0).integers(1, 99, (20, 20, 6, 3)).astype(np.int16)
    nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / "four.nii.gz")
    code, said = detect(tmp_path / "four.nii.gz")
    assert code == 1
    assert "it has 3 components or time points" in said
    code, said = detect(tmp_path / "four.nii.gz", "--component", 2)
    assert code == 0, said


def test_what_is_assumed_of_pictures_and_label_maps_is_said(detect, tmp_path):
    for n in range(3):
        picture = np.random.default_rng(n).integers(0, 255, (40, 30)).astype(np.uint8)
        (tmp_path / "stack").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / "stack" / f"{n}.png")
    code, said = detect(tmp_path / "stack")
    assert code == 0, said
    assert "stack: a picture has no spacing and no position in the patient; 1 mm per pixel is assumed" in said
    assert "stack: 3 pictures are stacked from 0.png to 2.png, feet to head" in said
    assert read_volume(tmp_path / "stack_anomaly.nii.gz").shape == (30, 40, 3)
    labels = np.kron(np.arange(8).reshape(2, 2, 2) % 3, np.ones((10, 10, 10))).astype(np.int32)
    nib.Nifti1Image(labels, np.eye(4)).to_filename(tmp_path / "labels.nii.gz")
    code, said = detect(tmp_path / "labels.nii.gz")
    assert "labels: it looks like a label map (only the values 0, 1, 2 in regions of one value each)" in said


def test_much_memory_is_said_before_and_too_much_refused(detect, tmp_path, monkeypatch):
    from medclipad.cli import notes
    from medclipad.volume import memory_budget

    array = np.random.default_rng(0).integers(1, 99, (20, 20, 6)).astype(np.int16)
    nib.Nifti1Image(array, np.eye(4)).to_filename(tmp_path / "case.nii.gz")
    monkeypatch.setattr(notes, "_MUCH", 0)
    code, said = detect(tmp_path / "case.nii.gz")
    assert code == 0, said
    assert "case: 20 x 20 x 6 voxels need about 1 MB of memory beside the 1 MB of the volume" in said
    free = iter([10**9, 10**9, 10])  # reading, saying, detecting
    monkeypatch.setattr(memory_budget, "free_memory", lambda: next(free, 10))
    code, said = detect(tmp_path / "case.nii.gz")
    assert code == 1
    assert (
        "case: its anomaly map needs about 1 MB of memory, but only 1 MB is free; use a machine with more memory"
        in said
    )
