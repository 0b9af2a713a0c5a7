"""Volumes, tables, segmentations and scenes are saved and loaded through slicer-core's own storage."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def filled(scene):
    """A moved oblique volume under a transform, a table, a segmentation and a parameter node."""
    import slicer
    import vtk

    array = np.arange(2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    volume = slicer.util.addVolumeFromArray(array, name="volume")
    volume.SetIJKToRASDirections(0.8, -0.6, 0, 0.6, 0.8, 0, 0, 0, 1)
    volume.SetSpacing(1, 2, 3)
    volume.SetOrigin(-7, 8, 9)
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "moved")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 50)
    transform.SetMatrixTransformToParent(matrix)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "scores")
    slicer.util.updateTableFromArray(table, [np.array([0.25, 0.5])], ["score"])
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lesion")
    node.SetAndObserveTransformNodeID(transform.GetID())
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    segment = node.GetSegmentation().AddEmptySegment("lesion")
    slicer.util.updateSegmentBinaryLabelmapFromArray((array > 20).astype(np.uint8), node, segment, volume)
    return array


def check(array: np.ndarray) -> None:
    import slicer

    volume = slicer.util.getNode("volume")
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(volume), array)
    np.testing.assert_allclose(volume.GetOrigin(), (-7, 8, 9), atol=1e-6)
    np.testing.assert_allclose(volume.GetSpacing(), (1, 2, 3), atol=1e-6)
    assert volume.GetParentTransformNode() is slicer.util.getNode("moved")
    assert slicer.util.getNode("scores").GetTable().GetValue(1, 0).ToDouble() == 0.5
    lesion = slicer.util.getNode("lesion")
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(lesion, lesion.GetSegmentation().GetNthSegmentID(0), volume)
    np.testing.assert_array_equal(mask, array > 20)


@pytest.mark.parametrize("name", ["scene.mrb", "folder"])
def test_a_scene_comes_back(filled, tmp_path, name):
    import slicer

    path = str(tmp_path / name)
    assert slicer.util.saveScene(path, {})
    slicer.mrmlScene.Clear(0)
    assert slicer.mrmlScene.GetFirstNodeByName("volume") is None
    slicer.util.loadScene(path if name.endswith(".mrb") else f"{path}/folder.mrml", {})
    check(filled)


@pytest.mark.parametrize("name", ["volume.nrrd", "volume.nii.gz", "volume.mha"])
def test_a_volume_comes_back_from_a_file(filled, tmp_path, name):
    import slicer

    path = tmp_path / name
    assert slicer.util.saveNode(slicer.util.getNode("volume"), str(path), {})
    loaded = slicer.util.loadVolume(path, {"show": False})
    assert loaded.GetName() == "volume_1"
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(loaded), filled)
    np.testing.assert_allclose(loaded.GetOrigin(), (-7, 8, 9), atol=1e-4)


def test_a_file_that_is_not_a_volume_is_an_error(scene, problems, tmp_path):
    import slicer

    problems.forgive()
    path = tmp_path / "broken.nrrd"
    path.write_text("no volume")
    with pytest.raises(RuntimeError, match="Failed to load node from file"):
        slicer.util.loadVolume(path)


def test_messages_are_kept_and_answered(scene, slicer_app):
    import qt
    import slicer

    slicer.util.errorDisplay("bad")
    slicer_app.answers.append(qt.QMessageBox.No)
    assert not slicer.util.confirmYesNoDisplay("sure?")
    assert slicer.util.confirmOkCancelDisplay("and now?")
    assert slicer_app.messages == ["bad", "sure?", "and now?"]
    with pytest.raises(AssertionError, match="has no answer"):
        qt.QFileDialog.getOpenFileName(None, "Open")


def test_settings_are_of_this_process_only(slicer_app):
    import qt
    import slicer

    qt.QSettings().setValue("MedCLIPAD/url", "http://x")
    assert slicer_app.userSettings().value("MedCLIPAD/url") == "http://x"
    assert slicer.util.settingsValue("MedCLIPAD/none", 3, converter=int) == 3
    assert slicer_app.userSettings().fileName().startswith(slicer_app.temporaryPath)
    with pytest.raises(TypeError):
        slicer_app.userSettings().value("MedCLIPAD/url", "", str)
    qt.QSettings().remove("MedCLIPAD")
