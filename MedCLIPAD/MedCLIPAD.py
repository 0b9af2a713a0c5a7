"""Slicer module for anomaly maps of MRI and CT volumes from a MedCLIPAD server."""

# No `from __future__ import annotations` here: the parameter node wrapper evaluates the annotations.
import sys
from pathlib import Path
from typing import Annotated, Any

import qt
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import (
    Choice,
    Minimum,
    SlicerParameterNamePropertyName,
    WithinRange,
    parameterNodeWrapper,
)
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin

# Slicer's Reload runs this file again, and only this one: so the parts that it imports are forgotten first.
for _name in [name for name in sys.modules if name.partition(".")[0] == "MedCLIPADLib"]:
    del sys.modules[_name]

from MedCLIPADLib import sampledata, stored
from MedCLIPADLib.analysis import Analysis
from MedCLIPADLib.grid import PLANES
from MedCLIPADLib.keys import Keys
from MedCLIPADLib.labelling import Labelling
from MedCLIPADLib.panels.batch import BatchPanel
from MedCLIPADLib.panels.compare import ComparePanel
from MedCLIPADLib.panels.connection import ConnectionPanel
from MedCLIPADLib.panels.detect import DetectPanel
from MedCLIPADLib.panels.guide import GuidePanel
from MedCLIPADLib.panels.help import HelpPanel
from MedCLIPADLib.panels.results import ResultsPanel
from MedCLIPADLib.panels.review import ReviewPanel
from MedCLIPADLib.panels.training import TrainingPanel
from MedCLIPADLib.results import Result
from MedCLIPADLib.sampling import Sampling
from MedCLIPADLib.session import Session
from MedCLIPADLib.settings import Settings
from MedCLIPADLib.tones import ERROR, style
from MedCLIPADLib.training import Training
from MedCLIPADLib.watch import Watch

SECTIONS = ("MedCLIPAD", "Connection", "Detect", "Results", "Review", "Training", "Help")  # one .ui file each
DRAIN_INTERVAL = 30  # ms between two calls of `Jobs.drain`


class MedCLIPAD(ScriptedLoadableModule):
    """The module's entry in Slicer's lists of modules."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("MedCLIPAD")
        self.parent.categories = [
            translate("qSlicerAbstractCoreModule", "Segmentation"),
            translate("qSlicerAbstractCoreModule", "Active Learning"),
        ]
        self.parent.dependencies = ["SubjectHierarchy"]
        self.parent.contributors = ["MedCLIPAD contributors"]
        self.parent.helpText = _(
            "Anomaly maps of MRI and CT volumes: where does this scan differ from normal ones? The maps come from a "
            "MedCLIPAD server (MONAI Label), on this computer or another one. Research software: not for diagnosis."
        )
        self.parent.acknowledgementText = _(
            "The methods are MVFA (Huang et al., CVPR 2024) and MediCLIP (Zhang et al., MICCAI 2024)."
        )
        slicer.app.connect("startupCompleted()", sampledata.register)

    def setup(self) -> None:
        """Add *Detect anomalies* to the Data tree's context menu; called once by Slicer."""
        plugin = slicer.qSlicerSubjectHierarchyScriptedPlugin(None)
        plugin.setPythonSource(str(Path(__file__).parent / "MedCLIPADLib" / "MedCLIPADSubjectHierarchyPlugin.py"))


@parameterNodeWrapper
class MedCLIPADParameterNode:
    """The parameters of the panel, saved with the scene.

    Attributes
    ----------
    inputVolume : vtkMRMLScalarVolumeNode
        The volume to analyse.
    component, timePoint : int
        Which component, or time point of a sequence, to analyse.
    method, version : str
        Method and version of the detector.
    intensity : str
        Modality that the detector must suit: "auto", "any" or an intensity preset.
    plane : str
        Plane of the slices, or "default" for the detector's own.
    result, compare : vtkMRMLScalarVolumeNode
        The selected map, and the one that it is compared with.
    opacity, threshold : float
        Opacity of the map, and the lowest value that is shown; 0 to 1.
    falseRegions : str
        Number of false regions in a normal scan that sets the limit of the regions, or "" for the detector's default.
    showMap, showLegend, show3D : bool
        What is shown of the map.
    rangeStart : int
        First slice of a range to mark.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    component: Annotated[int, Minimum(0)] = 0
    timePoint: Annotated[int, Minimum(0)] = 0
    method: str = ""
    version: str = ""
    intensity: str = "auto"
    plane: Annotated[str, Choice(["default", *PLANES])] = "default"
    result: vtkMRMLScalarVolumeNode
    compare: vtkMRMLScalarVolumeNode
    opacity: Annotated[float, WithinRange(0, 1)] = 0.6
    threshold: Annotated[float, WithinRange(0, 1)] = 0.5
    falseRegions: str = ""
    showMap: bool = True
    showLegend: bool = True
    show3D: bool = False
    rangeStart: Annotated[int, Minimum(0)] = 0


class MedCLIPADLogic(ScriptedLoadableModuleLogic):
    """Everything that works without widgets.

    Attributes
    ----------
    session : Session
        The connection and its jobs.
    analysis : Analysis
        Analyses of volumes.
    labelling : Labelling
        Labels and marks.
    training : Training
        Trainings on the server.
    sampling : Sampling
        The volume to label next.
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.session = Session(Settings().folder)
        self.analysis = Analysis(self.session)
        self.labelling = Labelling(self.session, self.scriptedNode)
        self.training = Training(self.session)
        self.sampling = Sampling(self.session)

    def scriptedNode(self) -> Any:
        """Return the MRML node of the parameters."""
        return ScriptedLoadableModuleLogic.getParameterNode(self)

    def getParameterNode(self) -> MedCLIPADParameterNode:
        """Return the parameters; those that this version does not know have their defaults."""
        node = self.scriptedNode()
        stored.forget_unknown(node)
        return MedCLIPADParameterNode(node)


class MedCLIPADWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel of the module.

    It loads the sections and passes events between them, the scene and the threads.

    Attributes
    ----------
    ui : object
        The child widgets by name.
    settings : Settings
        The module's settings.
    logic : MedCLIPADLogic
        The module's logic.
    analysis, labelling, trainer, sampling
        The parts of the logic.
    parameters : MedCLIPADParameterNode
        The parameters.
    connection, detect, results, compare, review, training, help, guide, batch : Panel
        The sections.
    panels : list of Panel
        All sections.
    keys : Keys
        The keyboard shortcuts.
    watch : Watch
        Observers of volumes, slice views and plot views.
    timer : QTimer
        Drains the queue of the jobs.
    """

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self.parameters: Any = None
        self._guiTag = None
        self._updating = False

    # --- life ---
    def setup(self) -> None:
        """Create the sections; called once by Slicer."""
        ScriptedLoadableModuleWidget.setup(self)
        container = qt.QWidget()
        column = qt.QVBoxLayout(container)
        column.setContentsMargins(0, 0, 0, 0)
        for name in SECTIONS:
            section = slicer.util.loadUI(self.resourcePath(f"UI/{name}.ui"))
            section.setMRMLScene(slicer.mrmlScene)
            column.addWidget(section)
        self.layout.addWidget(container)
        self.layout.addStretch(1)
        self.ui = slicer.util.childWidgetVariables(container)
        self.settings = Settings()
        self.logic = MedCLIPADLogic()
        self.analysis, self.labelling = self.logic.analysis, self.logic.labelling
        self.trainer, self.sampling = self.logic.training, self.logic.sampling
        self.parameters = self.logic.getParameterNode()

        self.timer = qt.QTimer()
        self.timer.setInterval(DRAIN_INTERVAL)
        self.timer.connect("timeout()", self._drain)
        self.logic.session.jobs.on_start = self.timer.start
        self.logic.session.on_disconnect = self._onDisconnected
        self.connection, self.detect, self.results = ConnectionPanel(self), DetectPanel(self), ResultsPanel(self)
        self.compare, self.review, self.training = ComparePanel(self), ReviewPanel(self), TrainingPanel(self)
        self.help, self.guide, self.batch = HelpPanel(self), GuidePanel(self), BatchPanel(self)
        self.panels = [
            self.connection,
            self.detect,
            self.results,
            self.compare,
            self.review,
            self.training,
            self.help,
            self.guide,
            self.batch,
        ]
        self.keys = Keys(self)
        self.watch = Watch(self)
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self._onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self._onSceneEndClose)
        self.addObserver(scene, scene.EndImportEvent, self._onSceneImported)
        self.addObserver(scene, scene.NodeAboutToBeRemovedEvent, self._onNodeRemoved)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        """Release everything; called when Slicer quits or the module is reloaded."""
        self.keys.remove()
        self.timer.stop()
        self.compare.stop()
        self.logic.session.jobs.cancel_all()
        self.connection.local.stop_now()
        self.connection.installer.stop_now()
        self.watch.remove()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Enable the keys; called when the module is shown."""
        self.initializeParameterNode()
        self.keys.enable(True)

    def exit(self) -> None:
        """Disable the keys and end a comparison; called when another module is shown."""
        self.keys.enable(False)
        self.compare.stop()

    # --- parameter node ---
    def initializeParameterNode(self) -> None:
        """Connect to the scene's parameters; select a volume if none is selected."""
        node = self.logic.scriptedNode()
        if self._guiTag is None or self.parameters.parameterNode is not node:
            self.setParameterNode(self.logic.getParameterNode())
        else:
            self.update()
        if self.parameters.inputVolume is None:
            volumes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
            images = [node for node in volumes if Result.of(node) is None and not node.IsA("vtkMRMLLabelMapVolumeNode")]
            if images:
                self.parameters.inputVolume = images[0]

    def setParameterNode(self, parameters: Any) -> None:
        """Connect the widgets to parameters, or disconnect them with None."""
        if self._guiTag is not None:
            self.parameters.disconnectGui(self._guiTag)
            self.removeObserver(self.parameters.parameterNode, vtk.vtkCommand.ModifiedEvent, self._onModified)
            self._guiTag = None
        if parameters is None:
            return
        self.parameters = parameters
        node = parameters.parameterNode
        if not self.hasObserver(node, vtk.vtkCommand.ModifiedEvent, stored.forget_unknown):
            # Before the parameters themselves read what a scene brings.
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, stored.forget_unknown, priority=1.0)
        # Not connectGui: it returns no tag in Slicer 5.8.
        self._guiTag = parameters.connectParametersToGui(self._parameterWidgets())
        self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self._onModified)
        self.results.adopt()
        self.update()

    def _parameterWidgets(self) -> dict[str, Any]:
        """Return the widgets of the parameters, by the parameter's name in the .ui files."""
        named = {widget.property(SlicerParameterNamePropertyName): widget for widget in vars(self.ui).values()}
        return {name: widget for name, widget in named.items() if name}

    def _onModified(self, _caller=None, _event=None) -> None:
        self.update()

    def update(self) -> None:
        """Update all sections."""
        if self._updating or self._guiTag is None:
            return
        self._updating = True
        try:
            for panel in self.panels:
                panel.update()
        finally:
            self._updating = False
        self.watch.volumes()

    # --- scene ---
    def _onSceneStartClose(self, _caller, _event) -> None:
        self.compare.stop()
        self.logic.session.cancel_scene_jobs()
        self.setParameterNode(None)
        self.say("")
        for panel in (self.batch, self.detect, self.results, self.review):
            panel.forget()

    def _onSceneEndClose(self, _caller, _event) -> None:
        self.initializeParameterNode()

    def _onSceneImported(self, _caller, _event) -> None:
        for result in Result.all():
            result.restore_colours()
        qt.QTimer.singleShot(0, self._reconnect)  # after the node selectors know the new nodes

    def _reconnect(self) -> None:
        self.setParameterNode(None)
        self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeRemoved(self, _caller, _event, node) -> None:
        self.watch.forget(node)
        if self.compare.active and node in (self.parameters.result, self.parameters.compare):
            self.compare.stop()

    def _onDisconnected(self) -> None:
        for panel in (self.connection, self.training):
            panel.forget()

    # --- threads ---
    def _drain(self) -> None:
        jobs = self.logic.session.jobs
        jobs.drain()
        self.detect.tick()
        if jobs.idle:
            self.timer.stop()

    def say(self, sentence: str, bad: bool = False) -> None:
        """Show a sentence at the top of the panel; `bad` marks it as an error."""
        label = self.ui.messageLabel
        label.text = sentence
        label.setStyleSheet(f"{style(label, ERROR)} font-weight: bold;" if bad else "")


class MedCLIPADTest(ScriptedLoadableModuleTest):
    """Self test of everything that needs no server.

    Run it with Reload and Test in developer mode.
    """

    def setUp(self) -> None:
        """Clear the scene."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run all checks."""
        from MedCLIPADLib.selftest import check_errors, check_grid, check_result

        for check in (check_grid, check_result, check_errors):
            self.setUp()
            self.delayDisplay(check.__doc__)
            check(self)
        self.delayDisplay("The self test of MedCLIPAD passed.")
