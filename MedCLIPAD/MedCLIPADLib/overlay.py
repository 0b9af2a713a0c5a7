"""The map over its volume in the slice views, two maps side by side, and the views as they were before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import slicer
import vtk

from MedCLIPADLib.results import Result


def composites() -> list[Any]:
    """Return the vtkMRMLSliceCompositeNode of each slice view."""
    return list(slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode"))


def show(result: Result, opacity: float) -> None:
    """Show a map over its volume in all slice views.

    For a map that the reader has just asked for: afterwards the views are the reader's.

    Parameters
    ----------
    result : Result
        The map.
    opacity : float
        Opacity of the map, 0 to 1.
    """
    volume = result.volume
    for composite in composites():
        if volume is not None and composite.GetBackgroundVolumeID() != volume.GetID():
            composite.SetBackgroundVolumeID(volume.GetID())
        set_foreground(composite, result, opacity)


def set_foreground(composite: Any, result: Result, opacity: float) -> None:
    """Show a map in the foreground of one slice view."""
    if composite.GetForegroundVolumeID() != result.node.GetID():
        composite.SetForegroundVolumeID(result.node.GetID())
    composite.SetForegroundOpacity(opacity)


def set_opacity(result: Result, opacity: float) -> None:
    """Set the opacity of a map in the slice views that show it; the other views stay as they are."""
    for composite in composites():
        if composite.GetForegroundVolumeID() == result.node.GetID():
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


@dataclass(frozen=True)
class _Layers:
    """What a slice view shows, and whether it is linked with others."""

    background: str | None
    foreground: str | None
    opacity: float
    linked: bool
    hot_linked: bool


class Snapshot:
    """The slice views and the layout at one moment, to return to them after a comparison."""

    def __init__(self) -> None:
        layout = slicer.app.layoutManager()
        self._layout = layout.layout if layout is not None else None
        self._layers = {
            composite.GetID(): _Layers(
                composite.GetBackgroundVolumeID(),
                composite.GetForegroundVolumeID(),
                composite.GetForegroundOpacity(),
                bool(composite.GetLinkedControl()),
                bool(composite.GetHotLinkedControl()),
            )
            for composite in composites()
        }
        self._geometry = {
            node.GetID(): (_copied(node.GetSliceToRAS()), tuple(node.GetFieldOfView()), tuple(node.GetXYZOrigin()))
            for node in slicer.util.getNodesByClass("vtkMRMLSliceNode")
        }

    def restore_layers(self) -> None:
        """Show the same volumes again, with the same opacity and links; those deleted since are left out."""
        scene = slicer.mrmlScene
        found = [(composite, self._layers.get(composite.GetID())) for composite in composites()]
        known = [(composite, layers) for composite, layers in found if layers is not None]
        for composite, _layers in known:
            composite.SetLinkedControl(False)  # or each view would change all others
            composite.SetHotLinkedControl(False)
        for composite, layers in known:
            composite.SetBackgroundVolumeID(_existing(scene, layers.background))
            composite.SetForegroundVolumeID(_existing(scene, layers.foreground))
            composite.SetForegroundOpacity(layers.opacity)
        for composite, layers in known:
            composite.SetLinkedControl(layers.linked)
            composite.SetHotLinkedControl(layers.hot_linked)

    def restore(self) -> None:
        """Return to everything: layers, links, planes and positions of the views, and the layout."""
        self.restore_layers()
        for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
            if node.GetID() in self._geometry:
                matrix, field_of_view, origin = self._geometry[node.GetID()]
                node.GetSliceToRAS().DeepCopy(matrix)
                node.SetFieldOfView(*field_of_view)
                node.SetXYZOrigin(*origin)
                node.UpdateMatrices()
        layout = slicer.app.layoutManager()
        compared = slicer.vtkMRMLLayoutNode.SlicerLayoutSideBySideView
        if layout is not None and self._layout is not None and layout.layout == compared:  # not the reader's own choice
            layout.setLayout(self._layout)


def _copied(matrix: Any) -> Any:
    copy = vtk.vtkMatrix4x4()
    copy.DeepCopy(matrix)
    return copy


def _existing(scene: Any, node_id: str | None) -> str | None:
    return node_id if node_id and scene.GetNodeByID(node_id) is not None else None
