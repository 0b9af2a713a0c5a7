"""Results beside real series that other software has failed on: compressed, multi-frame, anonymised by hand."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from dicom_cases import result_of, validate

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


def refusals(folder: Path, source: Path, **options: str) -> list[str]:
    """What each kind of result is refused with; that nothing is written."""
    volume, texts = read_volume(source, **options), []
    result = result_of(volume, "acquisition")
    for kind in KINDS:
        with pytest.raises(VolumeError) as caught:
            write_dicom(folder, source, volume, result, [kind])
        texts.append(str(caught.value))
    assert not list(folder.iterdir())
    return texts


def test_what_was_resampled_upright_cannot_refer_to_the_tilted_images(tmp_path):
    """Its slices lie where none of the images does: a reference from frame to image would be false."""
    (tmp_path / "out").mkdir()
    said = refusals(tmp_path / "out", _tilted(15)(tmp_path), tilt="resample")
    assert set(said) == {
        "case: it was resampled, so that it does not lie on the images of its DICOM series, to which DICOM results "
        "must refer; write other formats."
    }


def test_nor_can_a_real_one(tmp_path):
    source = DATA / "dicom_edge_cases" / "dicom2nifti_gantrytilting" / "001"
    if not source.exists():
        pytest.skip("the DICOM edge cases are not here (MEDCLIPAD_DATA)")
    (said,) = set(refusals(tmp_path, source, tilt="resample"))
    assert "it was resampled, so that it does not lie on the images of its DICOM series" in said


def test_images_of_one_uid_cannot_be_told_apart(tmp_path):
    (tmp_path / "out").mkdir()
    (said,) = set(refusals(tmp_path / "out", stack(SOPInstanceUID="1.2.3.9")(tmp_path)))
    assert "several of its images have the same SOP Instance UID" in said
