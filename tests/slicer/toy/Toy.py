"""A small scripted module with one of everything that the harness stands in for; tests break copies of it."""

from typing import Annotated

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class Toy(ScriptedLoadableModule):
    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("Toy")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Testing")]
        self.parent.dependencies = []


@parameterNodeWrapper
class ToyParameterNode:
    volume: vtkMRMLScalarVolumeNode
    above: vtkMRMLScalarVolumeNode
    opacity: Annotated[float, WithinRange(0, 1)] = 0.5
    step: Annotated[int, WithinRange(1, 9)] = 2
    invert: bool = False
    title: str = "above"
    plane: Annotated[str, Choice(["axial", "coronal"])] = "axial"


class ToyWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None):
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.parameters = None
        self.tag = None

    def setup(self):
        ScriptedLoadableModuleWidget.setup(self)
        panel = slicer.util.loadUI(self.resourcePath("UI/Toy.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = ToyLogic()
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.ui.opacitySlider.connect("valueChanged(double)", self.onOpacity)
        self.ui.resetButton.clicked.connect(self.onReset)
        shortcut = qt.QShortcut(qt.QKeySequence("n"), panel)
        shortcut.connect("activated()", self.onReset)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.connectParameters()

    def connectParameters(self):
        if self.parameters is not None:
            self.parameters.disconnectGui(self.tag)
            self.removeObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self.parameters = self.logic.getParameterNode()
        self.tag = self.parameters.connectGui(self.ui)
        self.addObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self.onParameters()

    def onSceneEndClose(self, caller, event):
        self.connectParameters()

    def onParameters(self, caller=None, event=None):
        self.ui.applyButton.enabled = self.parameters.volume is not None
        self.ui.applyButton.toolTip = _("Show what is bright") if self.parameters.volume else _("Choose a volume")

    def onApply(self):
        self.logic.apply(self.parameters)
        self.ui.statusLabel.text = self.ui.titleEdit.text + " " + str(self.ui.stepBox.value)

    def onOpacity(self, value):
        slicer.util.setSliceViewerLayers(foregroundOpacity=value)

    def onReset(self):
        self.ui.statusLabel.text = ""

    def cleanup(self):
        self.removeObservers()


class ToyLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return ToyParameterNode(super().getParameterNode())

    def apply(self, parameters):
        array = slicer.util.arrayFromVolume(parameters.volume)
        bright = (array > array.mean()).astype("u1")
        node = slicer.util.addVolumeFromArray(bright, name=parameters.title)
        node.CopyOrientation(parameters.volume)
        node.SetAndObserveTransformNodeID(parameters.volume.GetTransformNodeID())
        display = node.GetScalarVolumeDisplayNode()
        display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeRed")
        display.AutoWindowLevelOff()
        display.SetWindowLevelMinMax(0, 1)
        display.SetThreshold(1, 1)
        display.ApplyThresholdOn()
        parameters.above = node
        slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=parameters.opacity)


class ToyTest(ScriptedLoadableModuleTest):
    def setUp(self):
        slicer.mrmlScene.Clear()

    def runTest(self):
        self.setUp()
        self.test_apply()

    def test_apply(self):
        import numpy

        volume = slicer.util.addVolumeFromArray(numpy.arange(24, dtype="f4").reshape(2, 3, 4))
        logic = ToyLogic()
        parameters = logic.getParameterNode()
        parameters.volume = volume
        logic.apply(parameters)
        self.assertEqual(int(slicer.util.arrayFromVolume(parameters.above).sum()), 12)
        self.delayDisplay("passed")
