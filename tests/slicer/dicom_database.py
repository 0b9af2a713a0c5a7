"""Slicer's DICOM database, over real files, and its own DICOM plugins from a checkout of its source."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import pydicom
from harness import slicer_source

PLUGINS = Path("Modules") / "Scripted" / "DICOMPlugins"
LIBRARY = Path("Modules") / "Scripted" / "DICOMLib" / "DICOMPlugin.py"


class Database:
    """What the plugins ask of `slicer.dicomDatabase`."""

    def __init__(self, folder: Path) -> None:
        self.files: dict[str, str] = {}
        for path in folder.iterdir():
            self.insert(str(path))

    def insert(self, path: str) -> None:
        self.files[str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = path

    def fileForInstance(self, uid: str) -> str:
        return self.files.get(uid, "")

    def fileValue(self, path: str, tag: str) -> str:
        element = pydicom.dcmread(path, stop_before_pixels=True).get(tuple(int(part, 16) for part in tag.split(",")))
        return "" if element is None else str(element.value)


class Exportable:
    """qSlicerDICOMExportable: attributes, and tags by name."""

    def __init__(self) -> None:
        self._tags: dict[str, str] = {}

    def setTag(self, name: str, value: str) -> None:
        self._tags[name] = value

    def tag(self, name: str) -> str:
        return self._tags.get(name, "")


def own_plugin(name: str) -> Any:
    """Return the class of one of Slicer's own DICOM plugins; None if the checkout has no such plugin."""
    root = slicer_source.folder()
    path = None if root is None else root / PLUGINS / f"{name}.py"
    if root is None or path is None or not path.is_file():
        return None
    import slicer_core.vtkSegmentationCore as core

    sys.modules["vtkSegmentationCorePython"] = core
    plugin = _module("DICOMLib.DICOMPlugin", root / LIBRARY)
    library = types.ModuleType("DICOMLib")  # the package itself needs the database's widgets
    library.DICOMLoadable, library.DICOMPlugin = plugin.DICOMLoadable, plugin.DICOMPlugin
    sys.modules["DICOMLib"] = library
    return getattr(_module(name, path), f"{name}Class")


def _module(name: str, path: Path) -> Any:
    spec: Any = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
