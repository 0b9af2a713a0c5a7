"""*Detect anomalies* in the context menu of the Data tree."""

from __future__ import annotations

from typing import Any

from examples import example
from hands import AFFINE, results, shown
from served import MODULE, add_volume, head

ACTION = "Detect anomalies"


def menu(node: Any) -> dict[str, Any]:
    """Right-click on a node in the Data tree; return what is offered."""
    import slicer

    handler = slicer.qSlicerSubjectHierarchyPluginHandler.instance()
    hierarchy = handler.subjectHierarchyNode()
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    return handler.menu(item)


def test_the_menu_offers_it_for_volumes_alone(medclipad: Any, scene: Any) -> None:
    import slicer

    handler = slicer.qSlicerSubjectHierarchyPluginHandler.instance()
    result = example()
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "segmentation")
    assert ACTION in menu(result.volume)
    assert [node.GetName() for node in (result.node, labels, segmentation) if ACTION in menu(node)] == []
    hierarchy = handler.subjectHierarchyNode()
    for item in (0, hierarchy.GetSceneItemID(), hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), "folder")):
        assert ACTION not in handler.menu(item)


def test_one_click_in_the_data_module_analyses_the_volume(panel: Any) -> None:
    import slicer
    from harness import user

    add_volume("Other", *reversed([AFFINE, head(AFFINE)[0]]))
    volume = add_volume("Patient", head(AFFINE, seed=940)[0], AFFINE)
    slicer.util.selectModule("Welcome")
    menu(volume)[ACTION].trigger()
    assert slicer.util.selectedModule() == "MedCLIPAD" and panel.parameters.inputVolume is volume
    assert panel.detect.running
    menu(slicer.util.getNode("Other"))[ACTION].trigger()
    assert "An analysis is running" in panel.ui.messageLabel.text and panel.parameters.inputVolume is volume
    user.wait_until(lambda: results() and shown(panel), 90, "detect")
    assert results()[0].volume is volume and len(results()) == 1


def test_without_a_server_it_says_what_to_do(medclipad: Any) -> None:
    volume = add_volume("Patient", head(AFFINE)[0], AFFINE)
    menu(volume)[ACTION].trigger()
    assert medclipad.ui.messageLabel.text.startswith("Connect to a server first")
    assert medclipad.parameters.inputVolume is volume


def test_it_outlives_a_reload_of_the_module(load_module: Any) -> None:
    """Slicer creates the plugin once; Reload replaces the panel and the library below it."""
    load_module(MODULE)
    again = load_module(MODULE)[1]
    volume = add_volume("Patient", head(AFFINE)[0], AFFINE)
    menu(volume)[ACTION].trigger()
    assert again.parameters.inputVolume is volume
