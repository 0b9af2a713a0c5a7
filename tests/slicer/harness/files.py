"""The IO manager: slicer-core's own storage nodes and logics, chosen by the file types' names of Slicer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import slicer
from PySide6.QtCore import QObject

_BY_EXTENSION = {
    ".seg.nrrd": "SegmentationFile",
    ".nii": "VolumeFile",
    ".nii.gz": "VolumeFile",
    ".nrrd": "VolumeFile",
    ".nhdr": "VolumeFile",
    ".mha": "VolumeFile",
    ".mhd": "VolumeFile",
    ".csv": "TableFile",
    ".tsv": "TableFile",
    ".vtk": "ModelFile",
    ".vtp": "ModelFile",
    ".stl": "ModelFile",
    ".tfm": "TransformFile",
    ".h5": "TransformFile",
    ".ctbl": "ColorTableFile",
    ".mrml": "SceneFile",
    ".mrb": "SceneFile",
}
_NODES = {
    "SegmentationFile": "vtkMRMLSegmentationNode",
    "TableFile": "vtkMRMLTableNode",
    "ModelFile": "vtkMRMLModelNode",
    "TransformFile": "vtkMRMLTransformNode",
    "ColorTableFile": "vtkMRMLColorTableNode",
    "MarkupsFile": "vtkMRMLMarkupsFiducialNode",
}


def _type_of(name: str) -> str:
    for extension in sorted(_BY_EXTENSION, key=len, reverse=True):
        if name.lower().endswith(extension):
            return _BY_EXTENSION[extension]
    raise ValueError(f"no reader for {name}")


class IOManager(QObject):
    """`loadNodes` and `saveNodes` of qSlicerCoreIOManager for the types above."""

    def fileType(self, path: str) -> str:
        return _type_of(str(path))

    def fileWriterFileType(self, node: Any) -> str:
        return node.GetClassName().removeprefix("vtkMRML")

    def loadNodes(self, kind: str, properties: dict[str, Any], loaded: Any, messages: Any) -> bool:
        path = str(properties["fileName"])
        name = properties.get("name") or Path(path).name.split(".")[0]
        if kind == "SceneFile":
            return self._load_scene(path, messages)
        volume = kind == "VolumeFile"
        node = self._load_volume(path, name, properties) if volume else self._load(kind, path, name)
        if node is None:
            return False
        loaded.AddItem(node)
        return True

    def _load_volume(self, path: str, name: str, properties: dict[str, Any]) -> Any:
        flags = {"labelmap": 1, "center": 2, "singleFile": 4, "autoWindowLevel": 8, "discardOrientation": 16}
        options = sum(bit for key, bit in flags.items() if properties.get(key))
        node = slicer.modules.volumes.logic().AddArchetypeVolume(path, name, options)
        if node is not None and properties.get("show", True):
            self._show(node)
        return node

    @staticmethod
    def _show(node: Any) -> None:
        """Make a loaded volume the active one and the background of the slice views, as Slicer does."""
        logic = slicer.app.applicationLogic()
        selection = logic.GetSelectionNode()
        if node.IsA("vtkMRMLLabelMapVolumeNode"):
            selection.SetActiveLabelVolumeID(node.GetID())
        else:
            selection.SetActiveVolumeID(node.GetID())
        logic.PropagateVolumeSelection()

    def _load(self, kind: str, path: str, name: str) -> Any:
        node = slicer.mrmlScene.AddNewNodeByClass(_NODES[kind], name)
        storage = node.CreateDefaultStorageNode()
        storage.UnRegister(None)
        slicer.mrmlScene.AddNode(storage)
        storage.SetFileName(path)
        node.SetAndObserveStorageNodeID(storage.GetID())
        if storage.ReadData(node):
            return node
        slicer.mrmlScene.RemoveNode(storage)
        slicer.mrmlScene.RemoveNode(node)
        return None

    def _load_scene(self, path: str, messages: Any) -> bool:
        scene = slicer.mrmlScene
        if path.endswith(".mrb"):
            return bool(scene.ReadFromMRB(path, True, messages))
        scene.SetURL(path)
        return bool(scene.Connect(messages))

    def saveNodes(self, kind: str, properties: dict[str, Any], messages: Any) -> bool:
        path = str(properties["fileName"])
        if kind == "SceneFile":
            return self._save_scene(path, messages)
        node = slicer.mrmlScene.GetNodeByID(properties["nodeID"])
        if node.GetStorageNode() is None:
            node.AddDefaultStorageNode(path)
        storage = node.GetStorageNode()
        storage.SetFileName(path)
        if "useCompression" in properties:
            storage.SetUseCompression(int(properties["useCompression"]))
        return bool(storage.WriteData(node))

    def _save_scene(self, path: str, messages: Any) -> bool:
        scene = slicer.mrmlScene
        if path.endswith(".mrb"):
            return bool(scene.WriteToMRB(path, None, messages))
        if path.endswith(".mrml"):
            scene.SetURL(path)
            return bool(scene.Commit(path))
        Path(path).mkdir(parents=True, exist_ok=True)
        return bool(scene.SaveSceneToSlicerDataBundleDirectory(path, None, messages))
