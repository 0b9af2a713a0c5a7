"""Real DICOM series on which other readers have failed, and the expected result for each.

From github.com/neurolabusc/dcm_qa_ct and github.com/icometrix/dicom2nifti.
"""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK

from medclipad.errors import VolumeError
from medclipad.volume import Slicing, read_volume, resolve_preset
from tests.volume.volume_cases import world

REFUSED = {
    "ge_ct_gantry_tilt_variable_spacing": "by a gantry tilt of 18.5 degrees; resample it to upright slices",
    "philips_ct_phantom_tilt_-18.5": "by a gantry tilt of 18.5 degrees; resample it to upright slices",
    "dicom2nifti_gantrytilting/001": "by a gantry tilt of 14.0 degrees; resample it to upright slices",
    "dicom2nifti_sliceincrement/002": "by a gantry tilt of 15.5 degrees; resample it to upright slices",
    "dicom2nifti_sliceincrement/001": "1 slice is missing (10 instead of 5 mm between IM-0001-0009-0001.dcm and",
    "dicom2nifti_sliceincrement": "it holds 2 series, CT (4 slices, 1.2.826",
    "dicom2nifti_notavolume/001": "it has 4 volumes (0: acquisition=12; 1: acquisition=13; 2: acquisition=14;",
    "dicom2nifti_sliceorientation/001": "it has 2 volumes (0: stack=0 sagittal 288 x 288; 1: stack=1 axial 288 x 288)",
}
READ = {
    # size, spacing in mm, plane of acquisition
    "mr_compressed_rle": ((256, 256, 4), (1, 1, 1), "axial"),
    "mr_compressed_j2k": ((256, 256, 4), (1, 1, 1), "axial"),
    "mr_compressed_jpeg": ((256, 256, 4), (1, 1, 1), "axial"),
    "mr_compressed_jpegls": ((256, 256, 4), (1, 1, 1), "axial"),
    "dicom2nifti_slicecount/001": ((256, 256, 2), (1, 1, 1), "axial"),
    "philips_enhanced_multiframe": ((256, 256, 8), (1, 1, 1.2000057), "sagittal"),
}


@pytest.fixture(scope="module")
def edge_cases(shared_data):
    if not (shared_data / "dicom_edge_cases").is_dir():
        pytest.skip("the DICOM edge cases are not here")
    return shared_data / "dicom_edge_cases"


def test_every_folder_has_an_expectation(edge_cases):
    named = {case.split("/")[0] for case in (*REFUSED, *READ)}
    assert named == {folder.name for folder in edge_cases.iterdir() if folder.is_dir()}


@pytest.mark.parametrize("case", REFUSED)
def test_series_is_refused_with_its_remedy(edge_cases, case):
    with pytest.raises(VolumeError) as caught:
        read_volume(edge_cases / case)
    assert str(caught.value).startswith(f"{case.split('/')[-1]}: ")
    assert REFUSED[case] in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", READ)
def test_series_is_read_and_placed_as_by_itk(edge_cases, case):
    size, spacing, plane = READ[case]
    read = read_volume(edge_cases / case)
    assert read.shape == size
    assert read.modality == "MR"
    np.testing.assert_allclose(read.spacing, spacing, rtol=1e-6)
    assert Slicing(read, "acquisition").plane == plane
    files = sorted(str(f) for f in (edge_cases / case).iterdir())
    if len(files) > 1:
        files = SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(edge_cases / case))
    image = SimpleITK.ReadImage(files if len(files) > 1 else files[0])
    values = SimpleITK.GetArrayFromImage(image).T
    for index in np.random.default_rng(0).integers(0, size, (1000, 3)):
        place = world(read.affine, index) * (-1, -1, 1)
        there = image.TransformPhysicalPointToContinuousIndex(place.tolist())
        np.testing.assert_allclose(there, np.round(there), atol=1e-3)  # a voxel of theirs, whatever their order
        assert values[tuple(np.round(there).astype(int))] == pytest.approx(read.array[tuple(index)], rel=1e-6)


def test_all_encodings_hold_the_same_picture(edge_cases):
    first, *others = (read_volume(edge_cases / f"mr_compressed_{e}") for e in ("rle", "j2k", "jpeg", "jpegls"))
    assert first.array.std() > 0
    for other in others:
        assert np.array_equal(first.array, other.array)
        assert np.array_equal(first.affine, other.affine)


def test_slicecount_equals_its_ground_truth(edge_cases):
    truth = read_volume(edge_cases / "dicom2nifti_slicecount" / "001_ground_truth.nii.gz")
    read = read_volume(edge_cases / "dicom2nifti_slicecount" / "001")
    for plane in ("axial", "coronal", "sagittal"):
        one, other = Slicing(truth, plane), Slicing(read, plane)
        assert np.array_equal(one.slices(truth.array), other.slices(read.array))
        for n in (0, len(one) - 1):
            np.testing.assert_allclose(one.position(n), other.position(n), atol=1e-3)


def test_the_remedy_in_each_refusal_works(edge_cases):
    times = [read_volume(edge_cases / "dicom2nifti_notavolume" / "001", component=n) for n in range(4)]
    assert {time.shape for time in times} == {(512, 512, 1)}
    folder = edge_cases / "dicom2nifti_sliceorientation" / "001"
    for stack in (sorted(folder.glob("* 2.dcm")), sorted(f for f in folder.iterdir() if " " not in f.name)):
        assert read_volume(stack).shape == (288, 288, 2)
    with pytest.raises(VolumeError, match="1 slice is missing"):
        read_volume(
            edge_cases / "dicom2nifti_sliceincrement",
            series="1.2.826.0.1.3680043.8.498.172569766509356227417197937",
        )
    even = read_volume(sorted((edge_cases / "dicom2nifti_sliceincrement" / "001").iterdir())[:3])
    assert even.shape == (512, 512, 3)
    np.testing.assert_allclose(even.spacing[2], 5, rtol=1e-6)


def test_ct_requires_a_window(edge_cases):
    slice_14 = read_volume(edge_cases / "ge_ct_gantry_tilt_variable_spacing" / "14.dcm")
    assert slice_14.modality == "CT"
    with pytest.raises(VolumeError, match="14 holds CT numbers, for which 'auto' has no window"):
        resolve_preset("auto", slice_14)
