"""The harness runs a module as Slicer would, and reports every way in which it would fail there."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

TOY = Path(__file__).parent / "toy" / "Toy.py"


def volume(slicer, shape=(12, 16, 20)):
    """A volume whose upper half along i is bright, seen in the slice views."""
    array = np.zeros(shape, np.float32)
    array[..., shape[2] // 2 :] = 100
    node = slicer.util.addVolumeFromArray(array, name="head")
    node.SetSpacing(2, 3, 4)
    slicer.util.setSliceViewerLayers(background=node, fit=True)
    return node


def drive(load, path: Path) -> None:
    """Use everything in the toy module, and check what a user would see."""
    import slicer
    from harness import user

    _, widget = load(path)
    ui = widget.ui
    assert not ui.applyButton.enabled
    assert ui.applyButton.toolTip == "Choose a volume"
    head = volume(slicer)
    assert ui.volumeSelector.currentNode() is head
    assert ui.applyButton.enabled
    assert (ui.stepBox.minimum, ui.stepBox.maximum, ui.opacitySlider.maximum) == (1, 9, 1)
    user.write(ui.titleEdit, "bright")
    ui.stepBox.value = 5
    assert widget.parameters.title == "bright"
    assert widget.parameters.step == 5
    user.click(ui.applyButton)
    assert ui.statusLabel.text == "bright 5"
    view = slicer.app.layoutManager().sliceWidget("Red").sliceView()
    red = view.pixels(200, 200).astype(int)
    mixed = (red[..., 0] - red[..., 1] > 60).mean()
    ui.opacitySlider.value = 0
    plain = view.pixels(200, 200).astype(int)
    assert mixed > 0.1
    assert (plain[..., 0] == plain[..., 1]).all()
    user.press(ui.invertBox, "N")
    assert ui.statusLabel.text == ""
    user.click(ui.applyButton)
    user.click(ui.resetButton)
    assert ui.statusLabel.text == ""
    slicer.mrmlScene.Clear(0)
    assert widget.parameters.volume is None
    assert not ui.applyButton.enabled


def test_a_module_without_faults_runs(load_module):
    drive(load_module, TOY)


def test_the_toys_self_test_runs(load_module):
    import slicer

    load_module(TOY)
    slicer.selfTests["Toy"](msec=1)


FAULTS = {
    "signal misspelt": ("Toy.py", '"clicked(bool)"', '"click(bool)"'),
    "signal with wrong arguments": ("Toy.py", '"valueChanged(double)"', '"valueChanged(int)"'),
    "signal attribute misspelt": ("Toy.py", "resetButton.clicked", "resetButton.click_ed"),
    "signal never connected": ("Toy.py", 'self.ui.applyButton.connect("clicked(bool)", self.onApply)', "pass"),
    "property called as a method": ("Toy.py", "titleEdit.text +", "titleEdit.text() +"),
    "property misspelt, read": ("Toy.py", "stepBox.value", "stepBox.values"),
    "property misspelt, written": ("Toy.py", "applyButton.enabled =", "applyButton.enable ="),
    "property of the wrong type": ("Toy.py", 'statusLabel.text = ""', "statusLabel.text = None"),
    "widget of another name": ("Toy.py", "self.ui.statusLabel.text = self", "self.ui.status.text = self"),
    "observer forgotten": (
        "Toy.py",
        "self.addObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)",
        "pass",
    ),
    "slot that raises": ("Toy.py", "foregroundOpacity=value", "foregroundOpacity=1 / 0"),
    "observer that raises": ("Toy.py", "self.parameters.volume is not None", "self.parameters.nothing is not None"),
    "parameter out of its range": ("Toy.py", "= 0.5", "= 1.5"),
    "parameter without a serializer": ("Toy.py", "invert: bool", "invert: complex"),
    "parameter named differently in the .ui": ("Toy.ui", ">opacity<", ">opaque<"),
    "parameter of a type the widget cannot show": ("Toy.py", "step: Annotated[int, WithinRange(1, 9)]", "step: str"),
    ".ui widget unknown": ("Toy.ui", '"ctkSliderWidget" name', '"ctkSlider" name'),
    ".ui property unknown": ("Toy.ui", '"addEnabled"', '"addEnable"'),
    ".ui signal unknown": ("Toy.ui", "mrmlSceneChanged(", "mrmlSceneChange("),
    ".ui slot unknown": ("Toy.ui", "setMRMLScene(", "setScene("),
    ".ui connection missing": ("Toy.ui", "<receiver>volumeSelector", "<receiver>Toy"),
    "scene not given to the panel": ("Toy.py", "panel.setMRMLScene(slicer.mrmlScene)", "pass"),
    "geometry not copied": ("Toy.py", "node.CopyOrientation(parameters.volume)", "pass"),
    "resource path wrong": ("Toy.py", "UI/Toy.ui", "Ui/Toy.ui"),
    "function that slicer.util lacks": (
        "Toy.py",
        "slicer.util.setSliceViewerLayers(foreground=",
        "slicer.util.showLayers(a=",
    ),
    "method that the MRML node lacks": ("Toy.py", "display.ApplyThresholdOn()", "display.ThresholdOn()"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_reported(fault, load_module, problems, tmp_path):
    copy = shutil.copytree(TOY.parent, tmp_path / "toy", ignore=shutil.ignore_patterns("__pycache__"))
    name, old, new = FAULTS[fault]
    path = next(copy.rglob(name))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    problems.forgive()
    raised = None
    try:
        drive(load_module, copy / "Toy.py")
    except Exception as error:  # whatever it is: the fault was told
        raised = error
    assert raised or problems.found, f"{fault}: nothing noticed"
