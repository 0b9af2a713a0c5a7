"""Results beside real series that other software has failed on: compressed, multi-frame, anonymised by hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from dicom_cases import result_of, validate

from medclipad.dicom_out import write_dicom
from medclipad.volume import read_volume

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
        pytest.skip("the DICOM edge cases are not here (MEDCLIPAD_DATA)")
    volume = read_volume(source)
    result = result_of(volume, "acquisition")
    files = write_dicom(tmp_path, source, volume, result, deidentify=deidentify)
    assert len(files) >= 4
    for file in files:
        assert validate(file) == [], file.name
    read = read_volume(tmp_path / f"{volume.name}_map.dcm")
    np.testing.assert_allclose(read.affine, volume.affine, atol=1e-6)
    assert np.array_equal(read.array, result.anomaly_map.array)
