"""Tests that highdicom, SimpleITK, 3D Slicer's reader and our own read segmentation and map onto the same grid."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK

from medclipad.export.dicom import segmentation_to_mask
from medclipad.volume import Volume, read_volume, write_volume
from medclipad.volume.volume import LPS_TO_RAS

DCMQI = Path(sys.executable).with_name("paramap2itkimage")


def assert_same(volume: Volume, array: np.ndarray, affine: np.ndarray, expected: np.ndarray) -> None:
    """Check that each voxel, found by its position in the patient, has the expected value."""
    assert sorted(array.shape) == sorted(volume.shape)
    positions = np.array([[*index, 1.0] for index in np.ndindex(*volume.shape)]) @ volume.affine.T
    theirs = positions @ np.linalg.inv(affine).T
    index = np.round(theirs[:, :3]).astype(int)
    assert np.abs(theirs[:, :3] - index).max() < 1e-4  # of a voxel
    assert np.array_equal(array[tuple(index.T)], expected.ravel())


def test_highdicom(written):
    for kind, expected in (("map", written.result.anomaly_map), ("segmentation", written.result.segmentation())):
        if kind == "map":
            found = highdicom.imread(written.files[kind]).get_volume(dtype=np.float32)
        else:
            found = highdicom.seg.segread(written.files[kind]).get_volume(combine_segments=True)
        affine = LPS_TO_RAS @ found.affine[:, [2, 1, 0, 3]]
        assert_same(written.volume, found.array.transpose(2, 1, 0), affine, expected.array)


def test_our_own_reader(written):
    read = read_volume(written.files["map"])
    np.testing.assert_allclose(read.affine, written.volume.affine, atol=1e-9)
    assert read.array.dtype == np.float32
    assert np.array_equal(read.array, written.result.anomaly_map.array)
    read = read_volume(written.files["segmentation"])
    np.testing.assert_allclose(read.affine, written.volume.affine, atol=1e-9)
    assert np.array_equal(read.array, written.result.segmentation().array)
    assert read.array.any()


def test_frames_are_in_slice_order(written):
    """Readers that assume a right-handed order would mirror frames in another order."""
    for kind in ("map", "segmentation"):
        groups = pydicom.dcmread(written.files[kind]).PerFrameFunctionalGroupsSequence
        positions = np.array([group.PlanePositionSequence[0].ImagePositionPatient for group in groups], float)
        steps = (np.diff(positions, axis=0)) @ np.diag((-1, -1, 1))
        np.testing.assert_allclose(steps, np.tile(written.volume.affine[:3, 2], (len(steps), 1)), atol=1e-9)
        assert [group.FrameContentSequence[0].DimensionIndexValues for group in groups] == (
            [[1, n] for n in range(1, 7)] if kind == "segmentation" else list(range(1, 7))
        )


def read_with_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the array and the RAS affine that SimpleITK reads."""
    image = SimpleITK.ReadImage(str(path))
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    return SimpleITK.GetArrayFromImage(image).T, LPS_TO_RAS @ affine


@pytest.fixture
def nrrd(written, tmp_path) -> Path:
    """Convert the map with dcmqi, as 3D Slicer does, because GDCM reads no float pixels."""
    if not DCMQI.exists():
        pytest.skip("dcmqi is not installed")
    done = subprocess.run(
        [DCMQI, "--inputDICOM", written.files["map"], "--outputDirectory", tmp_path], capture_output=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return tmp_path / "pmap.nrrd"


def test_simpleitk_reads_the_segmentation(written):
    array, affine = read_with_itk(written.files["segmentation"])
    assert_same(written.volume, array > 0, affine, written.result.segmentation().array > 0)


def test_simpleitk_reads_the_map_through_dcmqi(written, nrrd):
    array, affine = read_with_itk(nrrd)
    assert_same(written.volume, array, affine, written.result.anomaly_map.array)


@pytest.mark.skipif(importlib.util.find_spec("slicer") is None, reason="slicer-core is not installed")
def test_slicer_reads_both(written, nrrd):
    segmentation = written.files["segmentation"]
    program = Path(__file__).with_name("slicer_reader.py")
    done = subprocess.run([sys.executable, program, segmentation, nrrd], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout[done.stdout.index('{"') :])
    for file, expected in ((segmentation, written.result.segmentation().array > 0), (nrrd, written.result.anomaly_map)):
        read = found[str(file)]
        array = np.reshape(read["values"], read["shape"][::-1]).T
        if file == segmentation:
            assert_same(written.volume, array > 0, np.array(read["affine"]), expected)
        else:
            assert_same(written.volume, array.astype(np.float32), np.array(read["affine"]), expected.array)


def test_our_segmentation_is_read_back_on_the_whole_grid(written):
    mask = segmentation_to_mask(pydicom.dcmread(written.files["segmentation"]), written.volume)
    assert np.array_equal(mask.array, written.result.segmentation().array)
    assert np.array_equal(mask.affine, written.volume.affine)


@pytest.mark.skipif(shutil.which(str(DCMQI)) is None, reason="dcmqi is not installed")
def test_a_segmentation_by_dcmqi_is_read_back_on_the_whole_grid(written, tmp_path):
    """It holds only the slices that are not empty, as 3D Slicer saves it."""
    if "joined.dcm" in {file.name for file in written.series.iterdir()}:
        pytest.skip("itkimage2segimage takes no multi-frame source")
    mask = np.zeros(written.volume.shape, np.uint8)
    mask[3:9, 4:12, 2:4] = 1
    write_volume(written.volume.with_array(mask), tmp_path / "mask.nrrd")
    code = {"CodeValue": "49755003", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Morphologically Abnormal"}
    segment = {
        "labelID": 1, "SegmentDescription": "lesion", "SegmentLabel": "lesion", "SegmentAlgorithmType": "MANUAL",
        "SegmentedPropertyCategoryCodeSequence": code, "SegmentedPropertyTypeCodeSequence": code,
    }  # fmt: skip
    about = {
        "ContentCreatorName": "Reader", "ClinicalTrialSeriesID": "1", "ClinicalTrialTimePointID": "1",
        "SeriesDescription": "s", "SeriesNumber": "300", "InstanceNumber": "1", "segmentAttributes": [[segment]],
        "ContentLabel": "SEGMENTATION", "ContentDescription": "s", "ClinicalTrialCoordinatingCenterName": "c",
        "BodyPartExamined": "",
    }  # fmt: skip
    (tmp_path / "about.json").write_text(json.dumps(about))
    done = subprocess.run(
        [
            DCMQI.with_name("itkimage2segimage"), "--inputImageList", tmp_path / "mask.nrrd", "--inputDICOMDirectory",
            written.series, "--outputDICOM", tmp_path / "seg.dcm", "--inputMetadata", tmp_path / "about.json",
            "--skip", "1",
        ],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = pydicom.dcmread(tmp_path / "seg.dcm")
    assert int(theirs.NumberOfFrames) == 2
    assert np.array_equal(segmentation_to_mask(theirs, written.volume).array, mask)
