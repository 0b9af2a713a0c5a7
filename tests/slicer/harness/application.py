"""`slicer.app`, `slicer.modules` and the main window, around slicer-core's own application logic."""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import slicer
import vtk
from PySide6.QtCore import Property, QCoreApplication, QObject, QProcessEnvironment, QSettings, Qt, Signal
from PySide6.QtGui import QIcon
from PySide6.QtWidgets import QApplication, QDockWidget, QMainWindow, QScrollArea, QVBoxLayout, QWidget

from .ctk import kept
from .files import IOManager
from .layout import qSlicerLayoutManager
from .pythonqt import Settings
from .qmrml import qMRMLWidget

# Logics of slicer-core that Slicer has as modules of these names. Colors must be vtkSlicerColorLogic (it makes the
# default tables); without Segmentations there are no converters between a segmentation's representations.
LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Units": "vtkSlicerUnitsLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Models": "vtkSlicerModelsLogic",
    "Cameras": "vtkSlicerCamerasModuleLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Data": "vtkSlicerDataModuleLogic",
}


class qSlicerModule(QObject):
    """A module of the application: its name, logic and widget."""

    title, helpText, acknowledgementText = kept(str, "title", ""), kept(str, "helpText", ""), kept(str, "ack", "")
    categories, dependencies, contributors = (
        kept("QStringList", name, []) for name in ("categories", "dependencies", "contributors")
    )
    hidden, associatedNodeTypes = kept(bool, "hidden", False), kept("QStringList", "nodeTypes", [])
    icon = kept(QIcon, "icon", QIcon())
    index = kept(int, "index", -1)

    def __init__(self, name: str, logic: Any = None, path: str = "") -> None:
        super().__init__()
        self._name, self._logic, self._path, self._widget = name, logic, path, None

    name = Property(str, lambda self: self._name)
    path = Property(str, lambda self: self._path)

    def logic(self) -> Any:
        return self._logic

    def widgetRepresentation(self) -> Any:
        return self._widget


class qSlicerScriptedLoadableModule(qSlicerModule):
    pass


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """The widget around a scripted module's Python widget: calls its setup, enter, exit and cleanup."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._python: Any = None
        self._entered = False
        QVBoxLayout(self)

    def self(self) -> Any:
        return self._python

    isEntered = Property(bool, lambda self: self._entered)

    def enter(self) -> None:
        self._entered = True
        getattr(self._python, "enter", lambda: None)()

    def exit(self) -> None:
        self._entered = False
        getattr(self._python, "exit", lambda: None)()


class qMRMLSegmentEditorWidget(qMRMLWidget):
    """What the Segment Editor was given to edit, kept in its real MRML node. Painting is done on the real
    vtkMRMLSegmentationNode by the tests: the editor's effects are C++ and Qt that slicer-core lacks."""

    def __init__(self) -> None:
        super().__init__()
        self._node = slicer.mrmlScene.AddNode(slicer.vtkMRMLSegmentEditorNode())

    def mrmlSegmentEditorNode(self) -> Any:
        if self._node.GetScene() is None:
            self._node = slicer.mrmlScene.AddNode(slicer.vtkMRMLSegmentEditorNode())
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        self.mrmlSegmentEditorNode().SetAndObserveSegmentationNode(node)

    def setSourceVolumeNode(self, node: Any) -> None:
        self.mrmlSegmentEditorNode().SetAndObserveSourceVolumeNode(node)

    def setCurrentSegmentID(self, segment_id: str) -> None:
        self.mrmlSegmentEditorNode().SetSelectedSegmentID(segment_id)

    def segmentationNode(self) -> Any:
        return self.mrmlSegmentEditorNode().GetSegmentationNode()

    def sourceVolumeNode(self) -> Any:
        return self.mrmlSegmentEditorNode().GetSourceVolumeNode()


class SegmentEditorWidget:
    """The Python widget of the module Segment Editor."""

    def __init__(self) -> None:
        self.editor = qMRMLSegmentEditorWidget()


class ModuleSelector(QWidget):
    moduleSelected = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._selected = ""
        self.__dict__["history"] = []  # all that was selected, for the tests
        self.hide()

    selectedModule = Property(str, lambda self: self._selected)

    def selectModule(self, name: str) -> None:
        """Leave the open module and enter another one."""
        module = slicer.app.moduleManager().module(name)
        if module is None:
            raise ValueError(f"there is no module {name!r}")
        old = slicer.app.moduleManager().module(self._selected)
        for event, which in (("exit", old), ("enter", module)):
            if isinstance(which, qSlicerScriptedLoadableModule) and which.widgetRepresentation() is not None:
                getattr(which.widgetRepresentation(), event)()
        self._selected = name
        self.history.append(name)
        self.moduleSelected.emit(name)


class MainWindow(QMainWindow):
    """The module panel on the left, the views on the right."""

    _SIZE, _PANEL = (1400, 900), 440  # pixels
    for_tests = ("panel",)

    def __init__(self) -> None:
        super().__init__()
        self.objectName = "qSlicerMainWindow"
        self._selector = ModuleSelector()
        self._panel, self._scroll = QDockWidget(), QScrollArea()
        self._scroll.widgetResizable = True
        self._scroll.horizontalScrollBarPolicy = Qt.ScrollBarPolicy.ScrollBarAlwaysOff
        self._panel.objectName = "PanelDockWidget"
        self._panel.setWidget(self._scroll)
        self._panel.minimumWidth = self._PANEL
        self.addDockWidget(Qt.DockWidgetArea.LeftDockWidgetArea, self._panel)
        self.resize(*self._SIZE)

    def moduleSelector(self) -> ModuleSelector:
        return self._selector

    def panel(self) -> QScrollArea:
        """The scroll area that shows the open module."""
        return self._scroll


class ModuleManager(QObject):
    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)

    def __init__(self) -> None:
        super().__init__()
        self._modules: dict[str, Any] = {}

    def _add(self, module: Any) -> None:
        self._modules[module.name.lower()] = module
        setattr(slicer.modules, module.name.lower(), module)

    def module(self, name: str) -> Any:
        return self._modules.get(name.lower())

    def modulesNames(self) -> tuple[str, ...]:
        return tuple(module.name for module in self._modules.values())

    def factoryManager(self) -> ModuleManager:
        return self

    loadedModuleNames = modulesNames

    def isLoaded(self, name: str) -> bool:
        return name.lower() in self._modules


class qSlicerApplication(QObject):
    """`slicer.app`. Message boxes are not shown, but kept in `messages` and answered from `answers`."""

    startupCompleted = Signal()
    aboutToQuit = Signal()
    lastWindowClosed = Signal()
    mrmlSceneChanged = Signal(object)

    def __init__(self, application: QApplication, version: str) -> None:
        super().__init__()
        self._version, self._windowless = version, False
        self._folder = tempfile.TemporaryDirectory(prefix="slicer-harness-")
        self._qt = application
        application.setOrganizationName("MedCLIPAD-tests")
        application.setApplicationName("Slicer")
        QSettings.setDefaultFormat(QSettings.Format.IniFormat)
        QSettings.setPath(QSettings.Format.IniFormat, QSettings.Scope.UserScope, self._folder.name)
        self._settings = Settings()
        self._scene, self._logic, self._remote = _scene_and_logic(self._folder.name)
        self._modules, self._io = ModuleManager(), IOManager()
        self.__dict__["messages"], self.__dict__["answers"] = [], []

    def _start(self) -> None:
        """Start what needs `slicer.app` and `slicer.mrmlScene`."""
        for name, class_name in LOGICS.items():
            logic = getattr(slicer, class_name)()
            logic.SetMRMLApplicationLogic(self._logic)
            if name == "VolumeRendering":
                logic.SetModuleShareDirectory(self._folder.name)
            logic.SetMRMLScene(self._scene)
            self._logic.SetModuleLogic(name, logic)
            self._modules._add(qSlicerModule(name, logic))
        slicer.modules.colors.logic().AddDefaultColorNodes()
        for factory in (
            slicer.vtkMRMLSliceViewDisplayableManagerFactory,
            slicer.vtkMRMLThreeDViewDisplayableManagerFactory,
        ):
            factory.GetInstance().SetMRMLApplicationLogic(self._logic)
        editor = qSlicerModule("SegmentEditor")
        editor._widget = qSlicerScriptedLoadableModuleWidget()
        editor._widget._python = SegmentEditorWidget()
        self._modules._add(editor)
        self._modules._add(qSlicerModule("Welcome"))
        self._layout = qSlicerLayoutManager(self._logic, self._scene)
        self._window = MainWindow()
        self._window.setCentralWidget(self._layout.viewport())

    # state
    temporaryPath = Property(str, lambda self: self._folder.name)
    slicerHome = Property(str, lambda self: os.path.dirname(slicer.__file__))
    applicationName = Property(str, lambda self: "Slicer")
    applicationVersion = Property(str, lambda self: self._version)
    majorVersion = Property(int, lambda self: int(self._version.split(".")[0]))
    minorVersion = Property(int, lambda self: int(self._version.split(".")[1]))
    revision = Property(str, lambda self: "harness")
    slicerUserSettingsFilePath = Property(str, lambda self: self._settings.fileName())
    os = Property(str, lambda self: "linux")

    def applicationLogic(self) -> Any:
        return self._logic

    def mrmlScene(self) -> Any:
        return self._scene

    def layoutManager(self) -> qSlicerLayoutManager | None:
        return None if self._windowless else self._layout

    def moduleManager(self) -> ModuleManager:
        return self._modules

    def coreIOManager(self) -> IOManager:
        return self._io

    def ioManager(self) -> IOManager:
        return self._io

    def userSettings(self) -> QSettings:
        return self._settings

    def settings(self) -> QSettings:
        return self._settings

    def revisionUserSettings(self) -> QSettings:
        return self._settings

    def testingEnabled(self) -> bool:
        return False  # so that message boxes are really asked for, and recorded

    def startupEnvironment(self) -> QProcessEnvironment:
        return QProcessEnvironment.systemEnvironment()

    def processEvents(self) -> None:
        self._qt.processEvents()

    def topLevelWidgets(self) -> list[QWidget]:
        return self._qt.topLevelWidgets()

    def setOverrideCursor(self, cursor: Any) -> None:
        self._qt.setOverrideCursor(cursor)

    def restoreOverrideCursor(self) -> None:
        self._qt.restoreOverrideCursor()

    def pauseRender(self) -> None:
        """Do nothing: views are only drawn when a test reads them."""

    def resumeRender(self) -> None:
        """Do nothing; see pauseRender."""

    def translate(self, context: str, text: str) -> str:
        return QCoreApplication.translate(context, text)

    def style(self) -> Any:
        return self._qt.style()

    def clipboard(self) -> Any:
        return self._qt.clipboard()

    def palette(self) -> Any:
        return self._qt.palette()


def _scene_and_logic(folder: str) -> tuple[Any, Any, Any]:
    """Return the scene, the application logic (the first to get the scene) and the logic of remote files."""
    scene, logic = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
    slicer.mrmlScene = scene
    (Path(folder) / "share" / "ColorFiles").mkdir(parents=True)
    (Path(folder) / "cache").mkdir()
    (Path(folder) / "presets.xml").write_text("<MRML></MRML>")  # of volume rendering: slicer-core ships none
    logic.SetHomeDirectory(folder)
    logic.SetShareDirectory("share")
    logic.SetTemporaryPath(folder)
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    logic.SetMRMLScene(scene)
    remote = slicer.vtkMRMLRemoteIOLogic()  # a scene bundle is unpacked through its cache manager
    remote.SetMRMLApplicationLogic(logic)
    remote.SetMRMLScene(scene)
    remote.AddDataIOToScene()
    scene.GetDataIOManager().SetCacheManager(scene.GetCacheManager())
    scene.GetCacheManager().SetRemoteCacheDirectory(str(Path(folder) / "cache"))
    scene.AddNode(slicer.vtkMRMLCrosshairNode())
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    return scene, logic, remote


def load_file(name: str, path: Path) -> types.ModuleType:
    """Import a Python file under a name, as Slicer does with a scripted module."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def import_scripted_module(path: Path) -> types.ModuleType:
    """Import a scripted module as Slicer does at its start, and create its module object."""
    name, folder = path.stem, str(path.parent.resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    parent = qSlicerScriptedLoadableModule(name, slicer.vtkSlicerScriptedLoadableModuleLogic(), str(path.resolve()))
    slicer.app.moduleManager()._add(parent)
    module = load_file(name, path)
    instance = getattr(module, name)(parent)
    setattr(slicer.modules, f"{name}Instance", instance)
    getattr(instance, "setup", lambda: None)()
    return module


def make_widget(module: types.ModuleType) -> Any:
    """Return the module's widget as it is when first opened, before its setup."""
    name = module.__name__
    holder = qSlicerScriptedLoadableModuleWidget()
    holder.setMRMLScene(slicer.mrmlScene)
    holder.objectName = f"{name}ModuleWidget"
    slicer.app.moduleManager().module(name)._widget = holder
    widget = getattr(module, f"{name}Widget")(holder)
    holder._python = widget
    setattr(slicer.modules, f"{name}Widget", widget)
    return widget
