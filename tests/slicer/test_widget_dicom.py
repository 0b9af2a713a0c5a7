"""What a reader takes to the archive: a snapshot of the shown finding, and the segmentation by Slicer's own plugin."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_cases import PATIENT, make_series, validate
from dicom_database import Database, Exportable, own_plugin
from examples import example
from hands import view
from served import add_volume

from medclipad.volume import read_volume


@pytest.fixture
def finding(medclipad: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The panel with a map of a volume from DICOM, with one spot; `finding.series` is the folder of the series."""
    import slicer
    from harness import user

    series = make_series(tmp_path, "oblique")
    volume = read_volume(series)
    array = np.ascontiguousarray(np.transpose(volume.array))
    node = add_volume("T1", array, volume.affine)
    database = Database(series)
    node.SetAttribute("DICOM.instanceUIDs", " ".join(database.files))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    warm = np.full(array.shape, 0.01, np.float32)
    warm[2:6, 6:12, 8:14] = 0.95
    medclipad.series, medclipad.volume = series, volume
    medclipad.found = example(volume.affine, array=warm, volume=node, region_limits={"1": 0.7})
    slicer.util.mainWindow().show()
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    for name in ("Red", "Green", "Yellow"):  # Slicer draws its views all the time, and a legend only into drawn ones
        view(name).sliceView().pixels()
    medclipad.results.show_new(medclipad.found)
    user.wait_until(lambda: medclipad.results.settled and medclipad.ui.regionsTable.rowCount > 0, 30, "regions")
    return medclipad


def save_as(panel: Any, path: Path) -> str:
    import slicer
    from harness import user

    slicer.app.answers.append(str(path))
    user.click(panel.ui.snapshotButton)
    return panel.ui.messageLabel.text


def coloured(pixels: np.ndarray) -> int:
    return int((np.ptp(pixels.astype(int), axis=-1) > 40).sum())


def pixels_of(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"))


def test_a_snapshot_shows_the_finding_and_says_what_it_is(finding: Any, tmp_path: Path) -> None:
    from MedCLIPADLib import navigation, snapshot

    path = tmp_path / "finding.png"
    assert save_as(finding, path) == f"Saved as {path}."
    with_map = pixels_of(path)
    assert coloured(with_map) > 300, "the map and its legend"
    text = snapshot.caption(finding.found, finding.results.regions[0], 1)
    assert text.startswith("Region 1: ") and "slices 2-5" in text and "never seen in 24 normal scans" in text
    assert "not for diagnosis" in text and "detector example" in text
    finding.ui.opacitySlider.value, finding.ui.showLegendCheckBox.checked = 0, False
    save_as(finding, tmp_path / "without.PNG")
    without = pixels_of(tmp_path / "without.PNG")
    assert coloured(without) == 0 and without.shape == with_map.shape
    height = with_map.shape[0]
    words = without[navigation.view_of(finding.found, in_layout=True).GetDimensions()[1] :]
    assert len(words) < height and (words > 200).any() and np.ptp(words[:, -3:]) == 0, "words, none of them cut"
    navigation.jump_to_slice(finding.found, 0)
    assert finding.results.shown_row(finding.found) is None, "no region in this slice"
    assert snapshot.caption(finding.found).startswith("Unusual")


def test_a_name_without_a_suffix_gets_one_and_a_bad_folder_a_sentence(finding: Any, tmp_path: Path) -> None:
    save_as(finding, tmp_path / "finding")
    assert (tmp_path / "finding.png").is_file()
    sentence = save_as(finding, tmp_path / "nowhere" / "finding.png")
    assert "cannot be written" in sentence and not (tmp_path / "nowhere").exists()


def test_a_dicom_snapshot_belongs_to_the_patients_study(finding: Any, tmp_path: Path) -> None:
    path, picture = tmp_path / "finding.dcm", tmp_path / "same.png"
    assert save_as(finding, path) == f"Saved as {path}."
    save_as(finding, picture)
    saved, source = pydicom.dcmread(path), pydicom.dcmread(next(finding.series.iterdir()))
    assert np.array_equal(saved.pixel_array, pixels_of(picture))
    for keyword in ("PatientID", "PatientName", "StudyInstanceUID", "AccessionNumber", "StudyDescription"):
        assert saved[keyword].value == source[keyword].value, keyword
    assert str(saved.PatientName) == PATIENT["PatientName"]
    assert saved.SeriesInstanceUID != source.SeriesInstanceUID and saved.BurnedInAnnotation == "YES"
    assert "not for diagnosis" in saved.ImageComments and "not for diagnosis" in saved.SeriesDescription
    if shutil.which("dciodvfy"):
        assert validate(path) == []


def test_a_volume_that_is_not_from_dicom_gets_no_dicom(finding: Any, tmp_path: Path) -> None:
    finding.found.volume.RemoveAttribute("DICOM.instanceUIDs")
    sentence = save_as(finding, tmp_path / "finding.dcm")
    assert "was not loaded from Slicer's DICOM database" in sentence and not (tmp_path / "finding.dcm").exists()


def segmented(panel: Any) -> None:
    from harness import user

    panel.ui.reviewCollapsibleButton.collapsed = False
    user.click(panel.ui.makeSegmentationButton)
    user.wait_until(lambda: panel.ui.editButton.enabled, 30, "segmentation")


def test_without_slicers_plugin_the_button_says_what_is_needed(finding: Any) -> None:
    segmented(finding)
    button = finding.ui.exportDicomButton
    assert not button.enabled and "Slicer 5.12" in button.toolTip


def test_slicers_own_plugin_writes_the_segmentation(
    finding: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the plugin of Slicer 5.12 and dcmqi, which it runs; read back by the library, voxel for voxel."""
    import slicer
    from harness import user

    from medclipad.export.dicom import segmentation_to_mask

    plugin = own_plugin("DICOMSegmentationPlugin")
    if plugin is None:
        pytest.skip("needs MEDCLIPAD_SLICER_SOURCE with Slicer 5.12 or later: its DICOM segmentation plugin")
    monkeypatch.setattr(slicer.modules, "dicomPlugins", {"DICOMSegmentationPlugin": plugin}, raising=False)
    monkeypatch.setattr(slicer, "qSlicerDICOMExportable", Exportable, raising=False)
    terminologies = SimpleNamespace(logic=slicer.vtkSlicerTerminologiesModuleLogic)  # without its files of codes
    monkeypatch.setattr(slicer.modules, "terminologies", terminologies, raising=False)
    segmented(finding)
    out = tmp_path / "out"
    out.mkdir()
    slicer.app.answers.append(str(out))
    user.click(finding.ui.exportDicomButton)
    assert finding.ui.messageLabel.text == f"Saved in {out}, and added to Slicer's DICOM database."
    (path,) = out.iterdir()
    written = pydicom.dcmread(path)
    assert str(path) in slicer.dicomDatabase.files.values() and written.Modality == "SEG"
    assert written.StudyInstanceUID == pydicom.dcmread(next(finding.series.iterdir())).StudyInstanceUID
    segment = written.SegmentSequence[0]
    assert segment.SegmentAlgorithmType == "SEMIAUTOMATIC" and segment.SegmentAlgorithmName == "MedCLIPAD example"
    assert segment.SegmentedPropertyTypeCodeSequence[0].CodeValue == "52988006", "Lesion"
    mask = segmentation_to_mask(written, finding.volume)
    expected = np.transpose(finding.found.array) >= finding.found.threshold
    assert np.array_equal(mask.array.astype(bool), expected) and expected.sum() == 4 * 6 * 6


def test_what_the_plugin_refuses_is_said(finding: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer
    from harness import user

    class Refuses:
        def examineForExport(self, item: int) -> list:
            return [Exportable()] if item else []

        def export(self, exportables: list) -> str:
            return "No non empty segments found."

    monkeypatch.setattr(slicer.modules, "dicomPlugins", {"DICOMSegmentationPlugin": Refuses}, raising=False)
    segmented(finding)
    slicer.app.answers.append(str(tmp_path))
    user.click(finding.ui.exportDicomButton)
    assert finding.ui.messageLabel.text.endswith("was not written: No non empty segments found.")
