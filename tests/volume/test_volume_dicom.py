"""DICOM series: sorted by position, scaled slice by slice, and refused with a remedy if they are not one grid."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.uid import BasicTextSRStorage, CTImageStorage, EnhancedMRImageStorage, RLELossless, generate_uid
from scipy.spatial.transform import Rotation

from medclipad.volume import list_series, read_volume
from tests.volume.volume_cases import TO_RAS, fault, save, series, slice_header, world

SHUFFLED = [4.0, 0.0, 8.0, 2.0, 6.0]
OBLIQUE = tuple(np.round(Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()[:2].ravel(), 12))


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0, 1, 0, 0, 0, -1), (1, 0, 0, 0, 0, -1), OBLIQUE])
def test_slices_are_sorted_by_position_and_agree_with_itk(tmp_path, orientation):
    values = series(tmp_path / "case", SHUFFLED, orientation)
    read = read_volume(tmp_path / "case")
    assert read.name == "case"
    assert read.modality == "MR"
    assert read.notes == ()
    assert read.array.dtype == np.uint16
    assert np.array_equal(read.array, values[np.argsort(SHUFFLED)].T)
    np.testing.assert_allclose(read.spacing, (0.75, 0.5, 2.0))
    ordered = [str(tmp_path / "case" / f"{n}.dcm") for n in np.argsort(SHUFFLED)]
    image = SimpleITK.ReadImage(ordered)
    indices = np.random.default_rng(0).integers(0, read.shape, (1000, 3))
    theirs = np.array([image.TransformIndexToPhysicalPoint(i.tolist()) for i in indices]) * TO_RAS
    np.testing.assert_allclose(world(read.affine, indices), theirs, atol=1e-6)
    assert np.array_equal(read.array, SimpleITK.GetArrayFromImage(image).T)


def test_a_list_of_files_in_any_order(tmp_path):
    series(tmp_path, SHUFFLED)
    files = sorted(tmp_path.iterdir())
    whole = read_volume(tmp_path)
    for chosen in (files, files[::-1], [str(f) for f in files], [*files, files[0]]):
        read = read_volume(chosen)
        assert np.array_equal(read.array, whole.array)
        assert np.array_equal(read.affine, whole.affine)
        assert read.name == tmp_path.name


def test_file_names_nested_folders_and_other_files_do_not_matter(tmp_path):
    values = series(tmp_path / "flat", SHUFFLED)
    folder = tmp_path / "case"
    for n, (file, name) in enumerate(
        zip(sorted((tmp_path / "flat").iterdir()), ("IM1", "b.ima", "x y", "z.1", "é"), strict=True)
    ):
        (folder / f"part{n % 2}").mkdir(parents=True, exist_ok=True)
        file.rename(folder / f"part{n % 2}" / name)
    (folder / "README.txt").write_text("not an image")
    (folder / "empty").touch()
    tags = {"SOPClassUID": BasicTextSRStorage, "Modality": "SR", "SeriesInstanceUID": "1.2.3.9"}
    report = slice_header(Rows=None, Columns=None, PixelData=None, **tags)
    save(report, folder / "report.dcm")
    assert np.array_equal(read_volume(folder).array, values[np.argsort(SHUFFLED)].T)


def test_files_without_preamble(tmp_path):
    values = series(tmp_path, [0.0, 2.0])
    whole = (tmp_path / "0.dcm").read_bytes()
    (tmp_path / "0.dcm").write_bytes(whole[132:])  # its first tag is of group 0002
    dataset = pydicom.dcmread(tmp_path / "1.dcm")
    del dataset.file_meta, dataset.preamble
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset.save_as(tmp_path / "1.dcm", implicit_vr=True, little_endian=True)  # of group 0008
    assert all(b"DICM" not in file.read_bytes() for file in tmp_path.iterdir())
    assert np.array_equal(read_volume(tmp_path).array, values.T)


def test_a_single_slice(tmp_path):
    values = series(tmp_path, [0.0])
    for source in (tmp_path, tmp_path / "0.dcm", [tmp_path / "0.dcm"]):
        read = read_volume(source)
        assert np.array_equal(read.array, values.T)
        assert read.spacing == (0.75, 0.5, 2.0)
        assert read.notes == ()
    series(tmp_path, [0.0], SliceThickness=None)
    assert read_volume(tmp_path).notes == ("the single slice has no thickness; 1 mm is assumed",)


def test_each_slice_has_its_own_rescale(tmp_path):
    slopes, intercepts = np.array([0.5, 1.5, 2.5]), np.array([0, -10, -20])
    values = series(tmp_path, [0, 2, 4], each=lambda n: {"RescaleSlope": slopes[n], "RescaleIntercept": intercepts[n]})
    read = read_volume(tmp_path)
    assert read.array.dtype == np.float32
    np.testing.assert_allclose(read.array, values.T * slopes + intercepts)


def test_signed_ct_numbers(tmp_path):
    stored = np.array([-2000, -1000, 0, 32767] * 5, dtype=np.int16)
    tags = {"PixelRepresentation": 1, "PixelData": stored.tobytes(), "Modality": "CT", "SOPClassUID": CTImageStorage}
    series(tmp_path, [0, 2], RescaleSlope=1, RescaleIntercept=-24, **tags)
    read = read_volume(tmp_path)
    assert read.modality == "CT"
    assert np.array_equal(read.array[..., 0], stored.reshape(4, 5).T - 24.0)
    series(tmp_path, [0, 2], RescaleSlope=1, RescaleIntercept=0, **tags)
    assert read_volume(tmp_path).array.dtype == np.int16


def test_signed_and_unsigned_slices_together(tmp_path):
    stored = np.full(20, -5, dtype=np.int16)
    series(tmp_path, [0, 2], each=lambda n: {"PixelRepresentation": 1, "PixelData": stored.tobytes()} if n else {})
    read = read_volume(tmp_path)
    assert (read.array[..., 1] == -5).all()
    assert (read.array[..., 0] >= 0).all()


def test_monochrome1_keeps_its_values_with_a_note(tmp_path):
    values = series(tmp_path, [0, 2], PhotometricInterpretation="MONOCHROME1")
    read = read_volume(tmp_path)
    assert np.array_equal(read.array, values.T)
    assert "a viewer shows their low values bright" in read.notes[0]


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("side", [3, 64])
def test_compressed_pixels_are_scaled_once(tmp_path, photometric, side):
    """GDCM would rescale them and invert MONOCHROME1 itself; it refuses a side of 3 pixels, which pydicom reads."""
    stored = np.random.default_rng(0).integers(0, 900, (side, side)).astype(np.uint16)
    tags = {"Rows": side, "Columns": side, "PixelData": stored.tobytes()}
    series(tmp_path, [0, 2], PhotometricInterpretation=photometric, RescaleSlope=3, RescaleIntercept=-1, **tags)
    for file in tmp_path.iterdir():
        dataset = pydicom.dcmread(file)
        dataset.compress(RLELossless)
        dataset.save_as(file)
        if side == 64:
            SimpleITK.ReadImage(str(file))
    assert np.array_equal(read_volume(tmp_path).array, np.stack([stored.T * 3.0 - 1] * 2, axis=-1))


def test_metadata_has_the_references_of_a_derived_object_and_no_patient(tmp_path):
    series(tmp_path, SHUFFLED, each=lambda n: {"SOPInstanceUID": f"1.2.{n}"})
    kept = read_volume(tmp_path).metadata["dicom"]
    assert kept["SeriesInstanceUID"] == "1.2.3.4"
    assert kept["instances"] == [(f"1.2.{n}", 1) for n in np.argsort(SHUFFLED)]
    assert "somebody" not in str(kept)


# --- several series, several images at one position -----------------------------------------------------------------


def test_several_series_are_listed(tmp_path):
    one = series(tmp_path / "a", [0, 2])
    two = series(tmp_path / "b", [0, 2, 4], SeriesInstanceUID="1.2.3.5", SeriesDescription="T2 axial")
    text = fault(tmp_path)
    assert "it holds 2 series, T1 axial (2 slices, 1.2.3.4), T2 axial (3 slices, 1.2.3.5); choose one with" in text
    assert np.array_equal(read_volume(tmp_path, series="1.2.3.4").array, one.T)
    assert np.array_equal(read_volume(tmp_path, series="1.2.3.5").array, two.T)
    assert "series 1.2 was not found; choose one of T1 axial (2 slices, 1.2.3.4)" in fault(tmp_path, series="1.2")


def test_localisers_are_left_out_with_a_note(tmp_path):
    values = series(tmp_path / "a", [0, 2])
    scout = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.3.5"}
    series(tmp_path / "b", [0, 50], orientation=(0, 1, 0, 0, 0, -1), **scout)
    read = read_volume(tmp_path)
    assert np.array_equal(read.array, values.T)
    assert read.notes == ("2 localiser images were left out",)
    assert read_volume(tmp_path / "b").shape == (5, 4, 2)  # a localiser on its own is read


def test_images_at_the_same_position_are_chosen_by_the_tag_that_distinguishes_them(tmp_path):
    heights = [0, 2, 4] * 2
    values = series(tmp_path, heights, each=lambda n: {"EchoTime": 10.5 if n < 3 else 8.5, "AcquisitionNumber": n // 3})
    assert "it has 2 volumes (0: echo=8.5; 1: echo=10.5); choose one with component=0 to 1 (--component)." in fault(
        tmp_path
    )
    assert np.array_equal(read_volume(tmp_path, component=0).array, values[3:].T)
    assert np.array_equal(read_volume(tmp_path, component=1).array, values[:3].T)
    assert "component 2 does not exist" in fault(tmp_path, component=2)


def test_duplicates(tmp_path):
    series(tmp_path, [0, 2, 4, 2])
    assert "1.dcm and 3.dcm have the same position, and other positions have fewer images; move the" in fault(tmp_path)
    series(tmp_path, [0, 2, 0, 2], each=lambda n: {"InstanceNumber": 1})
    assert "have the same position and nothing in their headers tells them apart; move all but one" in fault(tmp_path)
    (tmp_path / "2.dcm").unlink()
    (tmp_path / "3.dcm").unlink()
    assert "component 1 does not exist; the image has a single component" in fault(tmp_path, component=1)


# --- not a regular grid ---------------------------------------------------------------------------------------------


def test_missing_slices(tmp_path):
    series(tmp_path, [0, 2, 4, 8, 10])
    assert "1 slice is missing (4 instead of 2 mm between 2.dcm and 3.dcm); export the whole series" in fault(tmp_path)
    series(tmp_path, [0, 2, 4, 10, 14])
    assert "3 slices are missing (6 instead of 2 mm between 2.dcm and 3.dcm)" in fault(tmp_path)


def test_uneven_spacing(tmp_path):
    series(tmp_path, [0, 2, 4, 7, 10])
    assert "its slices are unevenly spaced (2 to 3 mm); resample it to even spacing first" in fault(tmp_path)
    series(tmp_path, [0, 1, 2.3, 3, 4])
    assert "unevenly spaced (0.7 to 1.3 mm)" in fault(tmp_path)


def test_positions_rounded_in_the_header_count_as_even(tmp_path):
    series(tmp_path, [round(n * 0.625, 1) for n in range(9)])
    read = read_volume(tmp_path)
    np.testing.assert_allclose(read.spacing[2], 0.625)


@pytest.mark.parametrize("degrees", [1.0, -18.5])
def test_gantry_tilt(tmp_path, degrees):
    def shifted(n):
        return {"ImagePositionPatient": [0, round(float(n * 5 * np.tan(np.radians(degrees))), 6), n * 5]}

    series(tmp_path, [0] * 12, each=shifted)
    text = fault(tmp_path)
    assert f"its slices are shifted sideways by a gantry tilt of {abs(degrees)} degrees; resample it" in text


@pytest.mark.parametrize(
    ("tags", "first", "second"),
    [
        ({"Rows": 2, "Columns": 10}, "stack=0 axial 10 x 2", "stack=1 axial 5 x 4"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, 1]}, "stack=0 sagittal 5 x 4", "stack=1 axial 5 x 4"),
        ({"PixelSpacing": [0.5, 0.5]}, "stack=0 axial 5 x 4", "stack=1 axial 5 x 4"),
    ],
)
def test_a_stack_of_several_is_chosen(tmp_path, tags, first, second):
    own = [{}, {}, {}]
    if "ImageOrientationPatient" in tags:
        own = [{}, {"ImagePositionPatient": [3, 0, 0]}, {"ImagePositionPatient": [5, 0, 0]}]
    values = series(tmp_path, [0, 2, 4], each=lambda n: {**tags, **own[n]} if n else {})
    assert f"it has 2 volumes (0: {first}; 1: {second}); choose one with component=0 to 1" in fault(tmp_path)
    assert read_volume(tmp_path, component=0).shape[2] == 2
    assert np.array_equal(read_volume(tmp_path, component="stack=1").array, values[:1].T)
    (found,) = list_series(tmp_path)
    assert [volume.label for volume in found.volumes] == [first, second]


@pytest.mark.parametrize(
    ("tags", "why"),
    [
        ({"ImagePositionPatient": None}, "does not say where in the patient its pixels lie; export the original"),
        ({"ImageOrientationPatient": None}, "does not say where in the patient its pixels lie"),
        ({"PixelSpacing": None}, "does not say where in the patient its pixels lie"),
        ({"PixelSpacing": [0, 1]}, "does not say where in the patient its pixels lie"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "column directions are not perpendicular unit vectors"),
        ({"RescaleSlope": 0, "RescaleIntercept": 1}, "its rescale slope 0.0 and intercept 1.0 are not usable"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a colour image has no single scale of values"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "a colour image has no single scale of values"),
        ({"NumberOfFrames": 3}, "it holds 3 frames without their positions in the patient"),
        ({"ModalityLUTSequence": [Dataset()]}, "its values need a modality lookup table, which is not supported"),
        ({"PixelData": bytes(10)}, r"its pixels (Explicit VR Little Endian) cannot be decoded"),
        ({"PixelData": None}, r"its pixels (Explicit VR Little Endian) cannot be decoded"),
    ],
)
def test_unusable_images(tmp_path, tags, why):
    save(slice_header(**tags), tmp_path / "image.dcm")
    assert re.match("image.dcm: .*" + re.escape(why), fault(tmp_path))


def test_lists_that_are_not_a_series_are_refused(tmp_path):
    series(tmp_path, [0, 2])
    (tmp_path / "notes.txt").write_text("not an image" * 50)
    assert "the list of DICOM files is empty; pass at least one" in fault([])
    assert "notes.txt: not a DICOM image; pass the image files" in fault([tmp_path / "0.dcm", tmp_path / "notes.txt"])
    assert "none.dcm: there is no such file; check the list" in fault([tmp_path / "none.dcm"])


def test_damaged_files(tmp_path):
    series(tmp_path, [0, 2, 4])
    whole = (tmp_path / "1.dcm").read_bytes()
    (tmp_path / "1.dcm").write_bytes(whole[: len(whole) - 15])
    assert "1.dcm: its pixels (Explicit VR Little Endian) cannot be decoded" in fault(tmp_path)
    dataset = pydicom.dcmread(tmp_path / "2.dcm")
    dataset.compress(RLELossless)
    dataset.PixelData = dataset.PixelData[:-30]
    dataset.save_as(tmp_path / "2.dcm")
    (tmp_path / "1.dcm").write_bytes(whole)
    assert "2.dcm: its pixels (RLE Lossless) cannot be decoded" in fault(tmp_path)


# --- enhanced multi-frame ----------------------------------------------------------------------------------------


def enhanced(path, heights, times=None, slopes=None, frames=None):
    """Write an enhanced MR file with a frame at each height, shared orientation and spacing, one slope per frame."""
    values = np.arange(len(heights) * 20, dtype=np.uint16).reshape(-1, 4, 5)

    def item(sequence, **tags):
        dataset, inner = Dataset(), Dataset()
        for keyword, value in tags.items():
            setattr(inner, keyword, value)
        setattr(dataset, sequence, [inner])
        return dataset

    shared = item("PixelMeasuresSequence", PixelSpacing=[0.5, 0.75], SliceThickness=2)
    shared.update(item("PlaneOrientationSequence", ImageOrientationPatient=[1, 0, 0, 0, 1, 0]))
    each = []
    for n, height in enumerate(heights):
        groups = item("PlanePositionSequence", ImagePositionPatient=[-11, 7, height])
        slope = slopes[n] if slopes else 1
        groups.update(item("PixelValueTransformationSequence", RescaleSlope=slope, RescaleIntercept=0))
        if times:
            groups.update(item("FrameContentSequence", TemporalPositionIndex=times[n]))
        each.append(groups)
    save(
        slice_header(
            SOPClassUID=EnhancedMRImageStorage,
            SOPInstanceUID=generate_uid(),
            NumberOfFrames=frames or len(heights),
            SharedFunctionalGroupsSequence=[shared],
            PerFrameFunctionalGroupsSequence=each,
            PixelData=values.tobytes(),
            ImagePositionPatient=None,
            ImageOrientationPatient=None,
            PixelSpacing=None,
            SliceThickness=None,
        ),
        path,
    )
    return values


def test_enhanced_frames_are_sorted_and_scaled_each(tmp_path):
    values = enhanced(tmp_path / "e.dcm", SHUFFLED, slopes=[1, 2, 3, 4, 5])
    read = read_volume(tmp_path / "e.dcm")
    scaled = values * np.reshape([1, 2, 3, 4, 5], (5, 1, 1))
    assert np.array_equal(read.array, scaled[np.argsort(SHUFFLED)].T)
    assert np.array_equal(read.affine, [[-0.75, 0, 0, 11], [0, -0.5, 0, -7], [0, 0, 2, 0], [0, 0, 0, 1]])
    assert [frame for _, frame in read.metadata["dicom"]["instances"]] == [2, 4, 1, 5, 3]


def test_enhanced_time_points(tmp_path):
    values = enhanced(tmp_path / "e.dcm", [0, 2, 0, 2], times=[2, 2, 1, 1])
    assert "it has 2 volumes (0: time=1; 1: time=2); choose one" in fault(tmp_path / "e.dcm")
    assert np.array_equal(read_volume(tmp_path / "e.dcm", component=0).array, values[2:].T)


def test_enhanced_compressed(tmp_path):
    values = enhanced(tmp_path / "e.dcm", [0, 2, 4], slopes=[1, 2, 3])
    dataset = pydicom.dcmread(tmp_path / "e.dcm")
    dataset.compress(RLELossless)
    dataset.save_as(tmp_path / "e.dcm")
    assert np.array_equal(read_volume(tmp_path / "e.dcm").array, (values * np.reshape([1, 2, 3], (3, 1, 1))).T)


def test_enhanced_faults(tmp_path):
    enhanced(tmp_path / "e.dcm", [0, 2, 6, 8])
    assert "1 slice is missing (4 instead of 2 mm between e.dcm frame 2 and e.dcm frame 3)" in fault(tmp_path / "e.dcm")
    enhanced(tmp_path / "e.dcm", [0, 2], frames=3)
    assert "it describes 2 frames but announces 3; export the series again" in fault(tmp_path / "e.dcm")


@pytest.mark.parametrize("enhance", [False, True])
def test_damaged_header_values(tmp_path, enhance):
    """Pydicom detects such a value only when it is accessed, in a multi-frame file deep inside."""
    path = tmp_path / "e.dcm"
    if enhance:
        enhanced(path, [0, 2], slopes=[1.625, 1.625])
    else:
        save(slice_header(RescaleSlope=1.625), path)
    whole = path.read_bytes()
    assert b"1.625" in whole
    path.write_bytes(whole.replace(b"1.625", b"1.6x5"))
    assert "e.dcm: the file is damaged or not what its name says" in fault(path)
