"""Tests of results for real series that other software has failed on: compressed, multi-frame, anonymised by hand."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_cases import make_result, validate

from medclipad.errors import VolumeError
from medclipad.export.dicom import KINDS, write_dicom
from medclipad.volume import read_volume
from tests.volume.format_cases_dicom import _tilted, stack

DATA = Path(os.environ.get("MEDCLIPAD_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
CASES = [
    "mr_compressed_rle",
    "mr_compressed_j2k",
    "mr_compressed_jpeg",
    "mr_compressed_jpegls",
    "dicom2nifti_slicecount/001",
    "philips_enhanced_multiframe",
    "ge_ct_gantry_tilt_variable_spacing/14.dcm",
]


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("deidentify", [False, True])
def test_valid_and_on_the_same_grid(dciodvfy, tmp_path, case, deidentify):
    source = DATA / "dicom_edge_cases" / case
    if not source.exists():
        pytest.skip("the DICOM edge cases are missing (MEDCLIPAD_DATA)")
    volume = read_volume(source)
    result = make_result(volume, "acquisition")
    files = write_dicom(tmp_path, source, volume, result, deidentify=deidentify)
    assert len(files) >= 4
    for file in files:
        assert validate(file) == [], file.name
    read = read_volume(tmp_path / f"{volume.name}_map.dcm")
    np.testing.assert_allclose(read.affine, volume.affine, atol=1e-6)
    assert np.array_equal(read.array, result.anomaly_map.array)


def refusals(folder: Path, source: Path, **options: Any) -> list[str]:
    """Return the error of each kind of result, and check that nothing is written."""
    volume, texts = read_volume(source, **options), []
    result = make_result(volume, "acquisition")
    for kind in KINDS:
        with pytest.raises(VolumeError) as caught:
            write_dicom(folder, source, volume, result, [kind])
        texts.append(str(caught.value))
    assert not list(folder.iterdir())
    return texts


def test_a_resampled_volume_cannot_refer_to_the_tilted_images(tmp_path):
    """No image lies where its slices do: a reference from frame to image would be wrong."""
    (tmp_path / "out").mkdir()
    errors = refusals(tmp_path / "out", _tilted(15)(tmp_path), tilt="resample")
    assert set(errors) == {
        "case: it was resampled, so that it does not lie on the images of its DICOM series, to which DICOM results "
        "must refer; write other formats."
    }


def test_a_resampled_real_volume_cannot_either(tmp_path):
    source = DATA / "dicom_edge_cases" / "dicom2nifti_gantrytilting" / "001"
    if not source.exists():
        pytest.skip("the DICOM edge cases are missing (MEDCLIPAD_DATA)")
    (error,) = set(refusals(tmp_path, source, tilt="resample"))
    assert "it was resampled, so that it does not lie on the images of its DICOM series" in error


def test_images_with_the_same_uid_are_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (error,) = set(refusals(tmp_path / "out", stack(SOPInstanceUID="1.2.3.9")(tmp_path)))
    assert "several of its images have the same SOP Instance UID" in error
