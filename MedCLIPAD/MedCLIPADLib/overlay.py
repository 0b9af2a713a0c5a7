"""The map over its volume in the slice views, and two maps compared."""

from __future__ import annotations

from typing import Any

import slicer

from MedCLIPADLib.results import Result


def composites() -> list[Any]:
    """What the slice views show: one vtkMRMLSliceCompositeNode each."""
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def show(result: Result, opacity: float, visible: bool = True) -> None:
    """Lay the map over its volume in all slice views; hidden, it stays chosen at opacity 0."""
    volume = result.volume
    for composite in composites():
        if volume is not None and composite.GetBackgroundVolumeID() != volume.GetID():
            composite.SetBackgroundVolumeID(volume.GetID())
        put(composite, result, opacity if visible else 0.0)


def put(composite: Any, result: Result, opacity: float) -> None:
    """Let one view show a map in the foreground."""
    if composite.GetForegroundVolumeID() != result.node.GetID():
        composite.SetForegroundVolumeID(result.node.GetID())
    if composite.GetForegroundOpacity() != opacity:
        composite.SetForegroundOpacity(opacity)


def side_by_side(first: Result, second: Result, opacity: float) -> None:
    """Show one map in each of two linked views of the same plane."""
    layout = slicer.app.layoutManager()
    layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView)
    views = {name: slicer.mrmlScene.GetSingletonNode(name, "vtkMRMLSliceNode") for name in ("Red", "Yellow")}
    by_view = {composite.GetLayoutName(): composite for composite in composites()}
    for composite in by_view.values():
        composite.SetLinkedControl(False)  # or the second map would replace the first
    views["Yellow"].GetSliceToRAS().DeepCopy(views["Red"].GetSliceToRAS())
    views["Yellow"].SetFieldOfView(*views["Red"].GetFieldOfView())
    views["Yellow"].UpdateMatrices()
    for name, result in (("Red", first), ("Yellow", second)):
        volume = result.volume
        if volume is not None:
            by_view[name].SetBackgroundVolumeID(volume.GetID())
        put(by_view[name], result, opacity)
    for composite in by_view.values():
        composite.SetLinkedControl(True)
        composite.SetHotLinkedControl(True)


def end_side_by_side(layout: int) -> None:
    """Back to a layout, with its views in their usual planes and not linked."""
    for composite in composites():
        composite.SetLinkedControl(False)
        composite.SetHotLinkedControl(False)
    yellow = slicer.mrmlScene.GetSingletonNode("Yellow", "vtkMRMLSliceNode")
    if yellow is not None:
        yellow.SetOrientation("Sagittal")
    slicer.app.layoutManager().setLayout(layout)
