"""Tests of the objects' content: valid by dciodvfy, references, patient and study of the source, scores."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_cases import PATIENT, make_result, make_series, validate
from pydicom.datadict import dictionary_VR
from pydicom.uid import UID

from medclipad.errors import VolumeError
from medclipad.export.dicom import KINDS, read_source, segmentation, segmentation_to_mask, write_dicom
from medclipad.volume import read_volume, write_volume
from medclipad.volume.volume import LPS_TO_RAS


def test_dciodvfy_finds_no_error(dciodvfy, written):
    assert {name.partition("_")[0] for name in written.files} == set(KINDS)
    for file in written.files.values():
        assert validate(file) == [], file.name


def sources(series: Path) -> dict[str, pydicom.Dataset]:
    return {image.SOPInstanceUID: image for image in map(pydicom.dcmread, series.iterdir())}


def test_patient_and_study_are_those_of_the_source(written):
    image = next(iter(sources(written.series).values()))
    seen = set()
    for file in written.files.values():
        made = pydicom.dcmread(file)
        for keyword in PATIENT:
            if keyword != "BodyPartExamined":
                assert made[keyword].value == image[keyword].value, keyword
        assert made.StudyInstanceUID == image.StudyInstanceUID
        assert made.SeriesInstanceUID != image.SeriesInstanceUID
        assert UID(made.SOPInstanceUID).is_valid
        assert not any(element.tag.is_private for element in made.iterall())
        seen.add(made.SOPInstanceUID)
        if file.stem.endswith(("map", "segmentation")):
            assert made.FrameOfReferenceUID == image.FrameOfReferenceUID
            assert made.BodyPartExamined == "BRAIN"
    assert len(seen) == len(written.files) == 8


def test_each_frame_refers_to_the_image_at_its_position(written):
    images = sources(written.series)
    for kind in ("map", "segmentation"):
        made = pydicom.dcmread(written.files[kind])
        for groups in made.PerFrameFunctionalGroupsSequence:
            (reference,) = groups.DerivationImageSequence[0].SourceImageSequence
            image = images[reference.ReferencedSOPInstanceUID]
            assert reference.ReferencedSOPClassUID == image.SOPClassUID
            if "NumberOfFrames" in image:
                own = image.PerFrameFunctionalGroupsSequence[reference.ReferencedFrameNumber - 1]
                position = own.PlanePositionSequence[0].ImagePositionPatient
            else:
                assert "ReferencedFrameNumber" not in reference
                position = image.ImagePositionPatient
            np.testing.assert_allclose(groups.PlanePositionSequence[0].ImagePositionPatient, position, atol=1e-6)
        for references in (made.SourceImageSequence, made.ReferencedSeriesSequence[0].ReferencedInstanceSequence):
            assert sorted(reference.ReferencedSOPInstanceUID for reference in references) == sorted(images)
            assert {reference.ReferencedSOPClassUID for reference in references} == {
                image.SOPClassUID for image in images.values()
            }


def test_the_map_declares_what_its_values_are(written):
    made = pydicom.dcmread(written.files["map"])
    (mapping,) = made.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    assert (mapping.RealWorldValueSlope, mapping.RealWorldValueIntercept) == (1, 0)
    assert mapping.MeasurementUnitsCodeSequence[0].CodeValue == "1"
    assert mapping.QuantityDefinitionSequence[0].ConceptCodeSequence[0].CodeMeaning == "Anomaly score"


def test_the_report_holds_every_score_and_its_position(written):
    report = highdicom.sr.srread(written.files["report"])
    result, slicing = written.result, written.result.slicing
    lps = LPS_TO_RAS @ written.volume.affine
    found = {}
    for group in report.content.get_planar_roi_measurement_groups():
        name = group.tracking_identifier
        (measurement,) = group.get_measurements()
        found[name] = measurement.value
        n = int(name.split()[-1])
        corners = np.array(group.roi.value)
        middle = corners[:4].mean(axis=0)
        np.testing.assert_allclose(middle, slicing.position(n) * (-1, -1, 1), atol=1e-3)
        index = (corners - lps[:3, 3]) @ np.linalg.inv(lps[:3, :3]).T
        edges = [-0.5, written.volume.shape[0] - 0.5]
        if slicing.axis == 2:
            np.testing.assert_allclose(np.unique(index[:, 0].round(3)), edges)
            (image,) = measurement.referenced_images
            assert image.referenced_sop_instance_uid in sources(written.series)
    expected = {f"{slicing.plane} slice {n}": s for n, s in enumerate(result.slice_scores) if np.isfinite(s)}
    assert found == pytest.approx(expected)
    assert len(found) == len(slicing) - 1
    (whole,) = report.content.get_image_measurement_groups()
    values = {measurement.name.meaning: measurement.value for measurement in whole.get_measurements()}
    assert values == pytest.approx({"Anomaly score of volume": result.volume_score, "Anomaly threshold": 0.5})


def test_the_key_slices_show_the_highest_scores_first(written):
    result, slicing = written.result, written.result.slicing
    order = np.argsort(-np.nan_to_num(result.slice_scores, nan=-1))
    pictures = [pydicom.dcmread(written.files[f"key-slices_{rank}"]) for rank in range(1, 6)]
    assert len({picture.SeriesInstanceUID for picture in pictures}) == 1
    for n, picture in zip(order, pictures, strict=False):
        assert picture.DerivationDescription.startswith(f"{slicing.plane} slice {n}, anomaly score")
        assert tuple(picture.PixelSpacing) == pytest.approx(slicing.pixel_spacing)
        pixels = picture.pixel_array
        line = (pixels == (255, 210, 0)).all(axis=-1)
        beyond = slicing.slice(result.anomaly_map.array, n) > result.threshold
        assert line.any()
        assert not (line & beyond).any()
        grey = np.round(slicing.slice(written.volume.array, n) / 900 * 255).clip(0, 255)
        assert np.array_equal(pixels[~line], np.repeat(grey[~line][:, None], 3, axis=1))


# De-identified objects.


@pytest.mark.parametrize("kind", ["axial", "enhanced"])
def test_deidentified_objects_hold_nothing_of_the_source(tmp_path, kind):
    series = make_series(tmp_path, kind)
    volume = read_volume(series)
    files = write_dicom(tmp_path, series, volume, make_result(volume), deidentify=True)
    secrets = {str(value) for keyword, value in PATIENT.items() if keyword not in ("PatientSex", "BodyPartExamined")}
    for image in sources(series).values():
        secrets |= {image.SOPInstanceUID, image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID}
    studies = set()
    for file in files:
        content = file.read_bytes()
        for secret in secrets:
            assert secret.encode() not in content, (file.name, secret)
        made = pydicom.dcmread(file)
        dates = {str(element.value) for element in made.iterall() if element.VR == "DA" and element.value}
        assert dates <= {"20000101"}
        assert made.PatientIdentityRemoved == "YES"
        assert made.DeidentificationMethodCodeSequence[0].CodeValue == "113100"
        assert made.PatientSex == ""
        studies.add(made.StudyInstanceUID)
    assert len(studies) == 1, "the results of one image belong together"
    again = write_dicom(tmp_path, series, volume, make_result(volume), kinds=["map"], deidentify=True)
    assert pydicom.dcmread(again[0]).StudyInstanceUID not in studies, "two exports cannot be linked"


def test_deidentified_objects_are_valid(dciodvfy, tmp_path):
    series = make_series(tmp_path, "oblique")
    volume = read_volume(series)
    for file in write_dicom(tmp_path, series, volume, make_result(volume), deidentify=True):
        assert validate(file) == [], file.name


def test_pictures_with_burned_in_text_are_not_deidentified(tmp_path):
    series = change(make_series(tmp_path, "axial"), BurnedInAnnotation="YES")
    volume = read_volume(series)
    with pytest.raises(VolumeError, match="text burned into their pixels, which cannot be removed; leave out"):
        write_dicom(tmp_path, series, volume, make_result(volume), deidentify=True)
    (picture, *_) = write_dicom(tmp_path, series, volume, make_result(volume), kinds=["key-slices"])
    assert pydicom.dcmread(picture).BurnedInAnnotation == "YES"


# Unusual sources.


def change(series: Path, **tags: object) -> Path:
    """Set elements of all files of a series; None deletes one."""
    for file in series.iterdir():
        image = pydicom.dcmread(file)
        for keyword, value in tags.items():
            if value is None:
                delattr(image, keyword)
            else:
                image.add_new(keyword, dictionary_VR(keyword), value)
        image.save_as(file)
    return series


def test_missing_and_invalid_elements_of_the_source_are_empty(dciodvfy, tmp_path):
    with pydicom.config.disable_value_validation():
        series = change(
            make_series(tmp_path, "axial"),
            FrameOfReferenceUID=None, AccessionNumber=None, StudyTime=None, PatientSex="FEMALE", StudyDate="05.09.2024",
            PatientAge="63", BodyPartExamined=None, PatientName="X", PatientIdentityRemoved="YES",
        )  # fmt: skip
    volume = read_volume(series)
    files = write_dicom(tmp_path, series, volume, make_result(volume))
    frames = set()
    for file in files:
        made = pydicom.dcmread(file)
        assert (made.StudyDate, made.StudyTime, made.PatientSex, made.AccessionNumber) == ("", "", "", "")
        assert "PatientAge" not in made
        assert validate(file) == [], file.name
        frames |= {made.FrameOfReferenceUID} if "FrameOfReferenceUID" in made else set()
    assert len(frames) == 1, "one frame of reference, derived from the UID of the series"


def test_an_empty_mask_and_several_labels(dciodvfy, tmp_path):
    series = make_series(tmp_path, "oblique")
    volume = read_volume(series)
    source = read_source(series, volume)
    mask = np.zeros(volume.shape, np.int16)
    for labels in ([], [1], [2, 5]):
        for n, label in enumerate(labels):
            mask[n + 3, 4, n + 2] = label
        made = segmentation(source, volume.with_array(mask), None)
        made.save_as(tmp_path / "seg.dcm")
        assert validate(tmp_path / "seg.dcm") == []
        assert made.SegmentSequence[0].SegmentAlgorithmType == "MANUAL"
        back = segmentation_to_mask(pydicom.dcmread(tmp_path / "seg.dcm"), volume).array
        assert np.array_equal(back > 0, mask > 0)
        assert back.max() == len(labels)
        mask[:] = 0


def test_a_single_slice(dciodvfy, tmp_path):
    image = sorted(make_series(tmp_path, "axial").iterdir())[0]
    volume = read_volume(image)
    for file in write_dicom(tmp_path, image, volume, make_result(volume, "acquisition")):
        assert validate(file) == [], file.name
    read = read_volume(tmp_path / f"{volume.name}_map.dcm")
    assert read.shape == (*volume.shape[:2], 1)
    np.testing.assert_allclose(read.affine, volume.affine, atol=1e-9)


def test_one_time_point_of_a_multi_frame_file(dciodvfy, tmp_path):
    """highdicom alone refers to all frames of a file, in their order, or to none."""
    series = make_series(tmp_path, "enhanced")
    image = pydicom.dcmread(series / "joined.dcm")
    frames = []
    for time in (1, 2):
        for groups in image.PerFrameFunctionalGroupsSequence:
            frame, content = pydicom.Dataset(), pydicom.Dataset()
            content.TemporalPositionIndex = time
            frame.PlanePositionSequence, frame.FrameContentSequence = groups.PlanePositionSequence, [content]
            frames.append(frame)
    image.PerFrameFunctionalGroupsSequence, image.NumberOfFrames = frames, len(frames)
    image.PixelData = image.PixelData * 2
    image.save_as(series / "joined.dcm")
    volume = read_volume(series, component=1)
    (file,) = write_dicom(tmp_path, series, volume, make_result(volume), kinds=["map"])
    assert validate(file) == []
    for groups in pydicom.dcmread(file).PerFrameFunctionalGroupsSequence:
        number = groups.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        assert number > 6
        position = frames[number - 1].PlanePositionSequence[0].ImagePositionPatient
        np.testing.assert_allclose(groups.PlanePositionSequence[0].ImagePositionPatient, position, atol=1e-6)


def test_volumes_without_dicom_or_with_missing_images_are_refused(tmp_path):
    series = make_series(tmp_path, "axial")
    volume = read_volume(series)
    write_volume(volume, tmp_path / "v.nii.gz")
    with pytest.raises(VolumeError, match="does not lie on the images of a DICOM series"):
        read_source(tmp_path / "v.nii.gz", read_volume(tmp_path / "v.nii.gz"))
    next(series.iterdir()).unlink()
    with pytest.raises(VolumeError, match="its images are no longer in"):
        read_source(series, volume)


def test_a_mask_on_another_grid_is_refused(tmp_path):
    axial, oblique = make_series(tmp_path / "a", "axial"), make_series(tmp_path / "b", "oblique")
    volume, other = read_volume(axial), read_volume(oblique)
    made = segmentation(read_source(oblique, other), make_result(other).segmentation(), "x")
    with pytest.raises(VolumeError, match="does not lie on its grid"):
        segmentation_to_mask(made, volume)


def test_objects_beside_their_source_do_not_prevent_reading_it(written):
    together = read_volume([*written.series.iterdir()])
    assert np.array_equal(together.array, written.volume.array)
    case = read_volume(written.series.parent)
    assert np.array_equal(case.array, written.volume.array)
    assert "7 objects made from images were left out" in case.notes
