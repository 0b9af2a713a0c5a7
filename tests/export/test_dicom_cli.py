"""Tests of `medclipad series` and `medclipad detect --dicom`."""

from __future__ import annotations

import re

import numpy as np
import pydicom
import pytest
from dicom_cases import make_series
from typer.testing import CliRunner

from medclipad.cli.main import app
from medclipad.detection.fit import fit
from medclipad.errors import MedCLIPADError
from medclipad.volume import Volume, read_volume, write_volume
from sample_data.dicom import write_series


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.stdout


def test_series_lists_uids_that_can_be_copied(tmp_path):
    series = make_series(tmp_path, "oblique")
    uid = pydicom.dcmread(next(series.iterdir())).SeriesInstanceUID
    lines = run("series", tmp_path).splitlines()
    assert [re.split(" {2,}", line.strip()) for line in lines] == [
        ["modality", "description", "images", "volume", "UID"],
        ["1", "MR", "T1", "6", "20 x 16 x 6 voxels of 0.75 x 0.5 x 2 mm", uid],
    ]


@pytest.mark.long
def test_detect_writes_dicom(head, tmp_path):
    """It writes all four kinds, only on request, and fails with one sentence without a DICOM series to refer to."""
    series = tmp_path / "x" / "case"
    series.parent.mkdir()
    affine = np.diag((-2.1, -1.9, 3.3, 1.0))
    write_series(Volume(head(1).array.clip(0).astype(np.uint16), affine, name="case"), series, "T1", seed=0)
    volume = read_volume(series)
    fit(method="mediclip", normal=[volume], shots=8, epochs=1, image_size=64, name="small").save(tmp_path / "model")
    run("detect", tmp_path / "model", series, "--out", tmp_path / "none")
    assert not list((tmp_path / "none").glob("*.dcm"))
    kinds = [part for kind in ("segmentation", "map", "report", "key-slices") for part in ("--dicom", kind)]
    run("detect", tmp_path / "model", series, "--out", tmp_path / "out", *kinds, "--deidentify")
    names = {file.name for file in (tmp_path / "out").glob("*.dcm")}
    assert names == {
        "case_segmentation.dcm", "case_map.dcm", "case_report.dcm", *(f"case_key-slices_{n}.dcm" for n in range(1, 6)),
    }  # fmt: skip
    stored = read_volume(tmp_path / "out" / "case_map.dcm")
    nifti = read_volume(tmp_path / "out" / "case_anomaly.nii.gz")
    assert np.array_equal(stored.array, nifti.array)
    assert pydicom.dcmread(tmp_path / "out" / "case_map.dcm").PatientName == ""
    write_volume(volume, tmp_path / "case.nii.gz")
    with pytest.raises(MedCLIPADError, match="1 of 1 volumes failed"):
        run("detect", tmp_path / "model", tmp_path / "case.nii.gz", "--out", tmp_path / "no", "--dicom", "map")
