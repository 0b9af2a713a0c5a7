"""The map over its volume in the slice views, and two maps side by side."""

from __future__ import annotations

from typing import Any

import slicer

from MedCLIPADLib.results import Result


def composites() -> list[Any]:
    """Return the vtkMRMLSliceCompositeNode of each slice view."""
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def show(result: Result, opacity: float, visible: bool = True) -> None:
    """Show a map over its volume in all slice views.

    A hidden map stays in the foreground with opacity 0.

    Parameters
    ----------
    result : Result
        The map.
    opacity : float
        Opacity of the map, 0 to 1.
    visible : bool
        Whether the map is visible.
    """
    volume = result.volume
    for composite in composites():
        if volume is not None and composite.GetBackgroundVolumeID() != volume.GetID():
            composite.SetBackgroundVolumeID(volume.GetID())
        set_foreground(composite, result, opacity if visible else 0.0)


def set_foreground(composite: Any, result: Result, opacity: float) -> None:
    """Show a map in the foreground of one slice view."""
    if composite.GetForegroundVolumeID() != result.node.GetID():
        composite.SetForegroundVolumeID(result.node.GetID())
    if composite.GetForegroundOpacity() != opacity:
        composite.SetForegroundOpacity(opacity)


def side_by_side(first: Result, second: Result, opacity: float) -> None:
    """Show two maps in two linked views of the same plane."""
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
        set_foreground(by_view[name], result, opacity)
    for composite in by_view.values():
        composite.SetLinkedControl(True)
        composite.SetHotLinkedControl(True)


def end_side_by_side(layout: int) -> None:
    """Return to a layout, with its views unlinked and in their usual planes."""
    for composite in composites():
        composite.SetLinkedControl(False)
        composite.SetHotLinkedControl(False)
    yellow = slicer.mrmlScene.GetSingletonNode("Yellow", "vtkMRMLSliceNode")
    if yellow is not None:
        yellow.SetOrientation("Sagittal")
    slicer.app.layoutManager().setLayout(layout)
