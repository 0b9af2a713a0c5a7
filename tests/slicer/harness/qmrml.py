"""The qMRML widgets that the module uses, on Qt's widgets and slicer-core's real MRML scene."""

from __future__ import annotations

from typing import Any, ClassVar

import slicer
import vtk
from PySide6.QtCore import Property, Signal
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QWidget

from . import ctk
from .ctk import kept
from .pythonqt import UiLoader
from .pythonqt_api import hidden


class WithScene:
    """`mrmlScene`, `setMRMLScene` and its signal, which all qMRML widgets have."""

    cpp_signals: ClassVar[dict[str, str]] = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    cpp_slots: ClassVar[tuple[str, ...]] = ("setMRMLScene(vtkMRMLScene*)",)

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._mrml_scene:
            self._scene = scene
            self._scene_changed()
            if not hidden(type(self), "mrmlSceneChanged"):
                self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._mrml_scene

    @property
    def _mrml_scene(self) -> Any:
        return self.__dict__.get("_scene")

    def _scene_changed(self) -> None:
        """Read the nodes of the new scene, in a widget that shows nodes."""


class qMRMLWidget(WithScene, QWidget):
    mrmlSceneChanged = Signal(object)


class qSlicerWidget(qMRMLWidget):
    pass


class qMRMLNodeComboBox(WithScene, QWidget):
    """Selects a node of the scene. As in Slicer, the first suitable node is selected unless None is offered."""

    for_tests = ("comboBox",)
    mrmlSceneChanged = Signal(object)
    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    _currentNodeValid = Signal(bool)
    cpp_signals: ClassVar[dict[str, str]] = WithScene.cpp_signals | {
        "currentNodeChanged(vtkMRMLNode*)": "currentNodeChanged",
        "currentNodeChanged(bool)": "_currentNodeValid",
        "nodeActivated(vtkMRMLNode*)": "nodeActivated",
        "nodeAdded(vtkMRMLNode*)": "nodeAdded",
        "nodeAddedByUser(vtkMRMLNode*)": "nodeAddedByUser",
    }
    cpp_slots: ClassVar[tuple[str, ...]] = (*WithScene.cpp_slots, "setCurrentNode(vtkMRMLNode*)")

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._types: tuple[str, ...] = ()
        self._none = False
        self._ids: list[str | None] = []
        self._hidden: list[str] = []
        self._attributes: list[tuple[str, str, str | None]] = []
        self._told: str | None = None
        self._observed: list[tuple[Any, int]] = []  # the scene
        self._named: list[tuple[Any, int]] = []  # the nodes that are offered
        self.destroyed.connect(lambda _, both=(self._observed, self._named): [_forget(observed) for observed in both])
        self._box = QComboBox(self)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._box)
        self._box.currentIndexChanged.connect(lambda _: self._tell())
        self._box.activated.connect(lambda _: self.nodeActivated.emit(self.currentNode()))

    # nodes of the scene
    def _scene_changed(self) -> None:
        _forget(self._observed)
        scene = self._mrml_scene
        events = () if scene is None else (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent)
        self._observed += [(scene, scene.AddObserver(event, lambda *_: self._refresh())) for event in events]
        self._refresh()

    def _fits(self, node: Any) -> bool:
        shown = node.IsA if self.showChildNodeTypes else lambda kind: node.GetClassName() == kind
        return (
            any(shown(kind) for kind in self._types)
            and (not node.GetHideFromEditors() or self.showHidden)
            and not any(node.IsA(kind) for kind in self._hidden)
            and all(_has(node, name, value) for kind, name, value in self._attributes if node.IsA(kind))
        )

    def _nodes(self) -> list[Any]:
        scene = self._mrml_scene
        if scene is None:
            return []
        every = (scene.GetNthNode(index) for index in range(scene.GetNumberOfNodes()))
        return [node for node in every if self._fits(node)]

    def _refresh(self) -> None:
        if self._mrml_scene is not None and self._mrml_scene.IsBatchProcessing():
            return
        nodes, before = self._nodes(), self._told
        _forget(self._named)
        self._named += [
            (node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._rename())) for node in nodes
        ]
        self._ids = [None] * self._none + [node.GetID() for node in nodes]
        self._box.blockSignals(True)
        self._box.clear()
        self._box.addItems([self.noneDisplay] * self._none + [node.GetName() for node in nodes])
        self._box.currentIndex = self._ids.index(before) if before in self._ids else min(len(self._ids), 1) - 1
        self._box.blockSignals(False)
        self._tell()

    def _rename(self) -> None:
        for index, node_id in enumerate(self._ids):
            node = node_id and self._mrml_scene.GetNodeByID(node_id)
            if node and self._box.itemText(index) != node.GetName():
                self._box.setItemText(index, node.GetName())

    def _tell(self) -> None:
        node = self.currentNode()
        node_id = node.GetID() if node else None
        if node_id != self._told:
            self._told = node_id
            self.currentNodeChanged.emit(node)
            self._currentNodeValid.emit(node is not None)
            self.currentNodeIDChanged.emit(node_id or "")

    def currentNode(self) -> Any:
        index = self._box.currentIndex
        node_id = self._ids[index] if 0 <= index < len(self._ids) else None
        return self._mrml_scene.GetNodeByID(node_id) if node_id else None

    def setCurrentNode(self, node: Any) -> None:
        node_id = node if isinstance(node, str) else node.GetID() if node is not None else None
        if node_id and node_id not in self._ids:
            return  # a node that does not fit cannot be chosen
        self._box.currentIndex = self._ids.index(node_id) if node_id in self._ids else -1

    def setCurrentNodeID(self, node_id: str) -> None:
        self.setCurrentNode(node_id or None)

    def setCurrentNodeIndex(self, index: int) -> None:
        self._box.currentIndex = index + self._none

    def nodeCount(self) -> int:
        return len(self._ids) - self._none

    def nodeFromIndex(self, index: int) -> Any:
        return self._mrml_scene.GetNodeByID(self._ids[index + self._none])

    def addNode(self, kind: str | None = None) -> Any:
        node = self._mrml_scene.AddNewNodeByClass(kind or self._types[0], self.baseName)
        self.setCurrentNode(node)
        self.nodeAdded.emit(node)
        self.nodeAddedByUser.emit(node)
        return node

    def addAttribute(self, kind: str, name: str, value: str | None = None) -> None:
        self._attributes.append((kind, name, value))
        self._refresh()

    def _set_types(self, types: list[str]) -> None:
        self._types = tuple(types)
        if self._mrml_scene is not None:
            self._refresh()

    def _hide_types(self, types: list[str]) -> None:
        self._hidden = list(types)
        if self._mrml_scene is not None:
            self._refresh()

    def _set_none(self, enabled: bool) -> None:
        self._none = enabled
        if self._mrml_scene is not None:
            self._refresh()

    def comboBox(self) -> QComboBox:
        """Return the combo box itself, for a test's mouse and keys."""
        return self._box

    nodeTypes = Property("QStringList", lambda self: list(self._types), _set_types)
    hideChildNodeTypes = Property("QStringList", lambda self: self._hidden, _hide_types)
    noneEnabled = Property(bool, lambda self: self._none, _set_none)
    currentNodeID = Property(str, lambda self: self._told or "", setCurrentNodeID)
    noneDisplay = kept(str, "noneDisplay", "None")
    addEnabled = kept(bool, "addEnabled", True)
    removeEnabled = kept(bool, "removeEnabled", True)
    editEnabled = kept(bool, "editEnabled", False)
    renameEnabled = kept(bool, "renameEnabled", False)
    showHidden = kept(bool, "showHidden", False)
    showChildNodeTypes = kept(bool, "showChildNodeTypes", True)
    selectNodeUponCreation = kept(bool, "selectNodeUponCreation", True)
    baseName = kept(str, "baseName", "")
    interactionNodeSingletonTag = kept(str, "interactionNodeSingletonTag", "")


def _forget(observed: list[tuple[Any, int]]) -> None:
    """Remove the observers (object, tag)."""
    while observed:
        node, tag = observed.pop()
        node.RemoveObserver(tag)


def _has(node: Any, name: str, value: str | None) -> bool:
    """Return whether a node has an attribute, with this value unless `value` is None."""
    found = node.GetAttribute(name)
    return found is not None and value in (None, "", found)


class qMRMLSliderWidget(WithScene, ctk.ctkSliderWidget):
    mrmlSceneChanged = Signal(object)
    quantity = kept(str, "quantity", "")
    unitAwareProperties = kept(int, "unitAwareProperties", 0)


def install() -> None:
    """Add the widgets to `slicer`, and register them for .ui files."""
    widgets = {name: value for name, value in globals().items() if name.startswith(("qMRML", "qSlicer"))}
    vars(slicer).update(widgets)
    UiLoader.custom.update(widgets)
