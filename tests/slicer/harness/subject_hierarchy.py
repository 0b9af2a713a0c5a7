"""The Data tree's context menu: scripted plugins of the subject hierarchy, and what a right click offers.

The subject hierarchy itself is slicer-core's. Written after qSlicerSubjectHierarchyScriptedPlugin.cxx and
qMRMLSubjectHierarchyTreeView.cxx: a plugin's Python class is found by its file's name, an action is offered if the
plugin shows it for the item, and a folder or several selected items have no node.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from PySide6.QtCore import QObject

from .ctk import kept

_NAME = "SubjectHierarchyPlugin"  # end of the class's name


class qSlicerSubjectHierarchyScriptedPlugin(QObject):
    """A plugin that is written in Python."""

    name = kept(str, "name", "UnnamedScriptedPlugin")

    def __init__(self, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._python: Any = None
        self._path = ""

    def self(self) -> Any:
        return self._python

    def pythonSource(self) -> str:
        return self._path

    def setPythonSource(self, path: str) -> bool:
        """Load the class from a file, and create its object, which registers the plugin."""
        from .application import load_file

        stem = Path(path).stem
        module = load_file(stem, Path(path))
        class_name = stem if stem.endswith(_NAME) else stem + _NAME
        if not hasattr(module, class_name):
            raise RuntimeError(f"class {class_name} was not found in {path}")  # Slicer only prints it
        self._python, self._path = getattr(module, class_name)(self), path
        setattr(slicer, class_name, self._python)
        return True

    def itemContextMenuActions(self) -> list[Any]:
        return getattr(self._python, "itemContextMenuActions", list)()

    def showContextMenuActionsForItem(self, item: int) -> None:
        getattr(self._python, "showContextMenuActionsForItem", lambda _item: None)(item)


class qSlicerSubjectHierarchyPluginHandler(QObject):
    """The only handler: it knows the plugins and the item of the last right click."""

    for_tests = ("menu",)
    _only: Any = None

    @classmethod
    def instance(cls) -> Any:
        if cls._only is None:
            cls._only = cls()
        return cls._only

    def __init__(self) -> None:
        super().__init__()
        self._plugins: dict[str, Any] = {}
        self._item = 0

    def registerPlugin(self, plugin: Any) -> bool:
        """Register a plugin and return whether its name was new, as Slicer does: the first one stays."""
        return self._plugins.setdefault(plugin.name, plugin) is plugin

    def pluginByName(self, name: str) -> Any:
        return self._plugins.get(name)

    def subjectHierarchyNode(self) -> Any:
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)

    def currentItem(self) -> int:
        return self._item

    def setCurrentItem(self, item: int) -> None:
        self._item = item

    def menu(self, item: int) -> dict[str, Any]:
        """Right-click on an item of the Data tree, and return the plugins' actions that are offered, by their text."""
        self.setCurrentItem(item)
        actions = [action for plugin in self._plugins.values() for action in plugin.itemContextMenuActions()]
        for action in actions:
            action.setVisible(False)
        for plugin in self._plugins.values():
            plugin.showContextMenuActionsForItem(item)
        return {action.text: action for action in actions if action.visible}


def install() -> None:
    """Put both classes into `slicer`."""
    slicer.qSlicerSubjectHierarchyPluginHandler = qSlicerSubjectHierarchyPluginHandler
    slicer.qSlicerSubjectHierarchyScriptedPlugin = qSlicerSubjectHierarchyScriptedPlugin
