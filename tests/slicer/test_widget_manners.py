"""The panel beside the reader's own work: views, keys, layout, memory, and a Slicer without a main window."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import pytest
import vtk
from examples import example
from hands import detect, results
from harness import pythonqt_api
from served import MODULE, add_volume, head


def wait(condition: Any, seconds: float = 30, what: str = "") -> None:
    from harness import user

    user.wait_until(condition, seconds, what)


def composites() -> dict[str, Any]:
    import slicer

    return {node.GetLayoutName(): node for node in slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")}


def state() -> dict[str, tuple]:
    """Return what each slice view shows, where, and how it is linked."""
    import slicer

    nodes = {node.GetLayoutName(): node for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")}
    found = {}
    for name, c in composites().items():
        matrix = slicer.util.arrayFromVTKMatrix(nodes[name].GetSliceToRAS()).round(6)
        layers = (c.GetBackgroundVolumeID(), c.GetForegroundVolumeID(), round(c.GetForegroundOpacity(), 6))
        found[name] = (*layers, c.GetLinkedControl(), c.GetHotLinkedControl(), matrix.tolist())
    return found


@pytest.fixture
def shown(medclipad: Any) -> Any:
    """The panel with a map that is shown in all views."""
    medclipad.shown_result = example()
    medclipad.results.show_new(medclipad.shown_result)
    wait(lambda: medclipad.results.settled and not medclipad.logic.session.jobs.active(), 20)
    return medclipad


# --- what the reader set stays ---


def test_the_parameters_are_connected_whatever_connectgui_returns(medclipad: Any) -> None:
    """It returns None in Slicer 5.8: the panel must not take that for "not connected"."""
    ui, parameters = medclipad.ui, medclipad.parameters
    parameters.opacity = 0.35
    assert ui.opacitySlider.value == pytest.approx(0.35)
    ui.opacitySlider.value = 0.8
    assert parameters.opacity == pytest.approx(0.8)
    medclipad.setParameterNode(None)
    ui.opacitySlider.value = 0.1
    assert parameters.opacity == pytest.approx(0.8), "disconnected"
    medclipad.initializeParameterNode()
    assert ui.opacitySlider.value == pytest.approx(0.8)


def test_views_that_the_reader_changed_stay(shown: Any) -> None:
    import slicer

    other = add_volume("Other", *head_and_grid())
    views, ui = composites(), shown.ui
    views["Red"].SetForegroundOpacity(0.2)
    views["Green"].SetBackgroundVolumeID(other.GetID())
    views["Yellow"].SetForegroundVolumeID(None)
    before = state()
    for name, value in (("component", 1), ("rangeStart", 3), ("plane", "coronal"), ("falseRegions", "2")):
        setattr(shown.parameters, name, value)
        assert state() == before, name
    slicer.util.selectModule("Welcome")
    slicer.util.selectModule("MedCLIPAD")
    assert state() == before, "entering the module"
    shown.update()
    ui.showLegendCheckBox.checked = False
    ui.thresholdSlider.value = 0.7
    shown.results.next_peak()
    assert {name: view[:5] for name, view in state().items()} == {name: view[:5] for name, view in before.items()}

    ui.opacitySlider.value = 0.9
    after = state()
    assert after["Red"][2] == after["Green"][2] == 0.9 and after["Yellow"][:3] == before["Yellow"][:3]
    assert after["Green"][0] == other.GetID(), "the slider changes the map's opacity, and no volume"


def test_threshold_legend_and_3d_that_the_reader_changed_stay(shown: Any) -> None:
    result = shown.shown_result
    shown.ui.show3DCheckBox.checked = True
    result.rendering.SetVisibility(False)
    result.legend.SetVisibility(False)
    result.node.GetScalarVolumeDisplayNode().SetThreshold(0.66, 1.0)
    shown.parameters.component = 2
    assert not result.rendering.GetVisibility() and not result.legend.GetVisibility()
    assert result.threshold == pytest.approx(0.66), "set in the module Volumes"
    assert shown.ui.thresholdSlider.value == pytest.approx(0.66, abs=1e-3), "and the panel follows"


def test_a_loaded_scene_keeps_its_views(shown: Any, tmp_path: Path) -> None:
    import slicer

    composites()["Red"].SetForegroundOpacity(0.15)
    composites()["Yellow"].SetForegroundVolumeID(None)
    before = {name: view[1:3] for name, view in state().items()}
    slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    wait(lambda: shown.ui.resultSelector.currentNode() is not None, 5)
    slicer.app.processEvents()
    after = {name: view[1:3] for name, view in state().items()}
    assert [opacity for _, opacity in after.values()] == [opacity for _, opacity in before.values()]
    assert after["Yellow"][0] is None and after["Red"][0] == shown.ui.resultSelector.currentNode().GetID()


def head_and_grid() -> tuple[Any, Any]:
    from served import grid

    return head(grid())[0], grid()


@pytest.mark.parametrize("layout", ["SlicerLayoutFourUpView", "SlicerLayoutOneUpRedSliceView"])
def test_detect_does_not_switch_the_layout(panel: Any, layout: str) -> None:
    import slicer

    manager, number = slicer.app.layoutManager(), getattr(slicer.vtkMRMLLayoutNode, layout)
    manager.setLayout(number)
    detect(panel, add_volume("Patient", *head_and_grid()))
    assert manager.layout == number
    panel.ui.showPlotButton.click()
    assert manager.layout != number, "Plot asks for it"
    with_plot = manager.layout
    detect_again(panel)
    chart = manager.plotWidget(0).mrmlPlotViewNode().GetPlotChartNode()
    assert manager.layout == with_plot and chart is panel.results.result.reference("MedCLIPAD.chart")


def detect_again(panel: Any) -> None:
    before = len(results())
    panel.ui.detectButton.click()
    wait(lambda: len(results()) > before and not panel.detect.running and panel.logic.session.jobs.idle, 60)


def test_leaving_a_comparison_returns_to_the_views_as_they_were(shown: Any) -> None:
    import slicer
    from harness import user

    second = example(volume=shown.shown_result.volume, detector="other")
    manager, views = slicer.app.layoutManager(), composites()
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    shown.parameters.compare = second.node
    yellow = slicer.mrmlScene.GetSingletonNode("Yellow", "vtkMRMLSliceNode")
    yellow.SetOrientation("Coronal")
    yellow.SetSliceOffset(7)
    for view in views.values():
        view.SetLinkedControl(True)
    views["Green"].SetForegroundOpacity(0.11)
    before, layout = state(), manager.layout
    shown.ui.compareGroupBox.collapsed = False
    for button in (shown.ui.linkButton, shown.ui.flickerButton):
        user.click(button)
        shown.compare.flip() if button is shown.ui.flickerButton else None
        assert state() != before
        user.click(button)
        assert state() == before, button.name
        assert manager.layout == layout
    user.click(shown.ui.linkButton)
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView)
    user.click(shown.ui.linkButton)
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutConventionalView, "the reader's own choice"


# --- keys ---


def test_no_key_is_one_of_slicers_own(medclipad: Any) -> None:
    """Nor may it be one with modifiers that Slicer takes with any: the brackets."""
    own = {"bracketleft": "[", "bracketright": "]", "braceleft": "{", "braceright": "}", "plus": "+", "minus": "-"}
    taken = {own.get(key, key).lower() for key in pythonqt_api.known()["keys"]} | set("0123456789qwzyi")
    keys = {shortcut.key.toString() for shortcut in medclipad.keys.shortcuts}
    assert keys >= {"N", "A"} and not {key for key in keys if key.lower() in taken}


def test_keys_act_in_this_module_only(detected: Any) -> None:
    import slicer
    from harness import user
    from MedCLIPADLib import navigation
    from PySide6.QtCore import Qt

    ui, result, window = detected.ui, detected.results.result, slicer.util.mainWindow()
    user.click(ui.showPlotButton)
    plot = slicer.app.layoutManager().plotWidget(0).plotView()
    navigation.jump_to_slice(result, 4)
    slicer.util.selectModule("Welcome")
    for key in ("N", "A", "X", "M", "Comma", "Period"):
        user.press(window, key)
    user.press(plot, Qt.Key.Key_Right)
    assert navigation.current_slice(result) == 4 and not ui.rangeButton.checked
    assert "no slices marked" in ui.marksLabel.text
    slicer.util.selectModule("MedCLIPAD")
    user.press(window, "N")
    assert "axial slice 4 normal" in ui.marksLabel.text
    user.press(plot, Qt.Key.Key_Right)
    assert navigation.current_slice(result) == 5


# --- memory ---


def weak(thing: Any) -> Any:
    reference = vtk.vtkWeakReference()
    reference.Set(thing)
    return reference


@pytest.mark.parametrize("how", ["close the scene", "delete the volume", "load a scene"])
def test_nodes_and_so_their_voxels_are_released(detected: Any, how: str, tmp_path: Path, problems: Any) -> None:
    """Of the nodes: Slicer's own slice views keep the last image that they showed."""
    import slicer

    scene, result = slicer.mrmlScene, detected.results.result
    volume = result.volume
    held = {"volume": weak(volume)}
    if how == "delete the volume":
        scene.RemoveNode(volume)
    else:
        held["map"] = weak(result.node)
        if how == "load a scene":
            problems.expect("orientation preset name: Reformat")  # MRML's own reader says so of turned views
            slicer.util.saveScene(str(tmp_path / "scene.mrb"))
        scene.Clear(0)
    if how == "load a scene":
        slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    del volume, result
    slicer.app.processEvents()
    gc.collect()
    assert [name for name, reference in held.items() if reference.Get() is not None] == []


# --- life ---


def test_without_a_main_window(scene: Any) -> None:
    """Slicer's generic test of a module: set up, entered, a scene closed, cleaned up."""
    import harness
    import slicer

    with harness.without_main_window():
        assert slicer.util.mainWindow() is None and slicer.app.layoutManager() is None
        _, widget = harness.load(MODULE)
        widget.enter()
        result = example()
        widget.results.show_new(result)
        widget.results.show_plot()
        scene.Clear(0)
        widget.exit()
        harness.unload(widget)


def test_reload_reloads_the_library(load_module: Any) -> None:
    load_module(MODULE)
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "MedCLIPADLib"}
    assert "MedCLIPADLib.panels.detect" in before
    load_module(MODULE)
    kept = [name for name, module in before.items() if sys.modules.get(name) is module]
    assert kept == []


@pytest.mark.parametrize(
    ("name", "stored", "default"),
    [("plane", "oblique", "default"), ("opacity", "7", 0.6), ("threshold", "nan", 0.5), ("component", "-3", 0)],
)
def test_a_stored_parameter_of_another_version_has_its_default(
    medclipad: Any, tmp_path: Path, name: str, stored: str, default: Any
) -> None:
    import slicer

    node = medclipad.logic.scriptedNode()
    node.SetParameter(name, stored)  # while the panel is connected, as by a scene that is imported
    assert getattr(medclipad.parameters, name) == default
    medclipad.setParameterNode(None)
    node.SetParameter(name, stored)
    path = str(tmp_path / "scene.mrml")
    slicer.mrmlScene.SetURL(path)
    slicer.mrmlScene.Commit(path)
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(path)
    slicer.app.processEvents()
    assert getattr(medclipad.parameters, name) == default


@pytest.mark.parametrize("answer", ['{"plane": "oblique"}', "damaged", "[]", '{"plane": "axial"}'])
def test_a_map_of_another_version_gets_a_sentence(shown: Any, answer: str) -> None:
    import slicer
    from MedCLIPADLib.volumes import RESULT

    shown.parameters.result = None
    shown.shown_result.node.SetAttribute(RESULT, answer)
    shown.parameters.result = shown.shown_result.node
    assert "was stored by another version" in shown.ui.messageLabel.text
    assert not shown.ui.nextPeakButton.enabled
    slicer.mrmlScene.GetSingletonNode("Red", "vtkMRMLSliceNode").SetSliceOffset(3)


@pytest.mark.parametrize("points", [0, 1, 2])
def test_a_plot_of_few_points_is_drawn(scene: Any, points: int) -> None:
    """A loss curve after the first epoch, and a volume of one slice."""
    import slicer
    from MedCLIPADLib.plots import loss_chart, show_chart, store_scores

    result = example(skipped=tuple(range(points, 20)))
    slicer.util.mainWindow().show()
    for chart in (loss_chart([[n, 0.5 / (n + 1)] for n in range(points)]), store_scores(result)):
        show_chart(chart)
        view = slicer.app.layoutManager().plotWidget(0).plotView()
        red, green = view.pixels(400, 300)[..., :2].astype(int).transpose(2, 0, 1)
        assert (red - green > 80).any() == bool(points)
    loss_chart([[0, 0.5], [1, 0.4], [2, 0.3]])
    show_chart(loss_chart([[0, 0.5], [1, 0.4], [2, 0.3]]))
    view.pixels(400, 300)


def test_a_mark_is_undone_and_points_and_the_body_are_shown_without_a_server(medclipad: Any) -> None:
    import slicer
    from harness import user
    from MedCLIPADLib import navigation

    result = example()
    medclipad.results.show_new(result)
    ui = medclipad.ui
    ui.reviewCollapsibleButton.collapsed = False
    assert not ui.undoMarkButton.enabled
    navigation.jump_to_slice(result, 4)
    user.click(ui.markNormalButton)
    assert "4 normal" in ui.marksLabel.text and ui.undoMarkButton.enabled
    user.click(ui.undoMarkButton)
    assert "no slices marked" in ui.marksLabel.text and not ui.undoMarkButton.enabled
    ui.show3DCheckBox.checked = True
    user.wait_until(lambda: result.reference("MedCLIPAD.head") is not None, 30)
    user.wait_until(lambda: ui.pointsButton.enabled, 30, "the regions")
    user.click(ui.pointsButton)
    assert result.reference("MedCLIPAD.points").GetNumberOfControlPoints() == 2
    assert slicer.app.layoutManager().threeDWidget(0).threeDView().pixels(200, 200).size
