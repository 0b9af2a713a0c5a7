"""An anomaly map in the scene. All that is known of it lives in MRML, so that it survives saving the scene."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedCLIPADLib.colours import colour_node
from MedCLIPADLib.detection import Answer
from MedCLIPADLib.grid import Slicing
from MedCLIPADLib.volumes import RESULT, ijk_to_ras, voxels

VOLUME, REGIONS, TABLE, CHART, SERIES, SEGMENTATION = (
    f"MedCLIPAD.{role}" for role in ("volume", "regions", "table", "chart", "series", "segmentation")
)
_FOLDER = "MedCLIPAD.folder"  # attribute of a folder in the subject hierarchy: the map's node
_RENDERING = "MedCLIPAD.rendering"


class Result:
    """View of a map's volume node; make one whenever it is needed, it keeps nothing itself."""

    def __init__(self, node: Any) -> None:
        self.node = node

    # --- making and finding ---
    @classmethod
    def create(cls, volume: Any, answer: Answer, affine: np.ndarray, time_point: int | None = None) -> Result:
        """Add the map of `volume` (its node) to the scene; `affine` is the grid that was analysed."""
        scores = answer.scores
        scene = slicer.mrmlScene
        name = f"{volume.GetName()} anomaly ({scores['method']} {scores['detector']})"
        display = scene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
        display.AutoWindowLevelOff()  # before it sees voxels: it would look at all of them
        display.AutoThresholdOff()
        display.ApplyThresholdOn()
        display.InterpolateOff()
        node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
        node.UnRegister(None)
        node.SetName(scene.GenerateUniqueName(name))
        about = {**scores, "image": answer.image, "sha256": answer.sha256, "server": answer.server}
        about["highest"] = answer.highest
        node.SetAttribute(RESULT, json.dumps({**about, "time_point": time_point}))  # selectors filter as it is added
        scene.AddNode(node)
        node.SetIJKToRASMatrix(matrix_of(affine))
        node.SetAndObserveDisplayNodeID(display.GetID())
        node.SetAndObserveImageData(answer.map)
        node.SetNodeReferenceID(VOLUME, volume.GetID())
        result = cls(node)
        result.follow_volume()
        result.set_threshold(float(scores["threshold"]))
        result.restore_colours()
        result.add_to_folder(node)
        return result

    @staticmethod
    def all(volume: Any = None) -> list[Result]:
        """All maps of the scene, or of one volume, oldest first."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        found = [Result(node) for node in nodes if node.GetAttribute(RESULT)]
        return [result for result in found if volume is None or result.volume is volume]

    @staticmethod
    def of(node: Any) -> Result | None:
        """The result that a node is the map of, or None."""
        return Result(node) if node is not None and node.GetAttribute(RESULT) else None

    # --- what it says ---
    @property
    def about(self) -> dict:
        """The server's words: method, detector, plane, threshold, slice_scores, volume_score, image, server, ..."""
        return json.loads(self.node.GetAttribute(RESULT))

    @property
    def volume(self) -> Any:
        """The node that was analysed; None if it was deleted."""
        return self.node.GetNodeReference(VOLUME)

    @property
    def array(self) -> np.ndarray:
        """The map's own memory, float32 [k, j, i]."""
        return voxels(self.node)

    @property
    def affine(self) -> np.ndarray:
        return ijk_to_ras(self.node)

    @property
    def slicing(self) -> Slicing:
        return Slicing(self.node.GetImageData().GetDimensions(), self.affine, self.about["plane"])

    @property
    def slice_scores(self) -> np.ndarray:
        """float64 (slices,); nan where a slice was skipped."""
        return np.array([np.nan if score is None else score for score in self.about["slice_scores"]], dtype=float)

    @property
    def title(self) -> str:
        about = self.about
        return f"{about['method']} {about['detector']}, {about['plane']}"

    # --- how it looks ---
    @property
    def threshold(self) -> float:
        return self.node.GetScalarVolumeDisplayNode().GetLowerThreshold()

    def set_threshold(self, value: float, top: float | None = None) -> None:
        """Show only what is at least `value`; colours, legend and 3D run from there to `top` (the map's maximum)."""
        display = self.node.GetScalarVolumeDisplayNode()
        top = max(top or self.about["highest"], value + 1e-3)
        was = display.StartModify()
        display.SetThreshold(value, max(top, 1.0))
        display.SetWindowLevelMinMax(value, top)
        display.EndModify(was)
        if self.rendering is not None:
            self._shade(value, top)

    def restore_colours(self) -> None:
        """Give the map its colour table and legend (again, after a scene was loaded)."""
        display = self.node.GetScalarVolumeDisplayNode()
        colour = colour_node()
        if display.GetColorNodeID() != colour.GetID():
            display.SetAndObserveColorNodeID(colour.GetID())
        colours = slicer.modules.colors.logic()
        if colours.GetColorLegendDisplayNode(self.node) is None:
            legend = colours.AddDefaultColorLegendDisplayNode(self.node)
            legend.SetTitleText(_("Anomaly"))
            legend.SetLabelFormat("%.2f")
            legend.SetSize(0.1, 0.35)
            for text, size in ((legend.GetTitleTextProperty(), 12), (legend.GetLabelTextProperty(), 10)):
                text.SetFontFamilyToArial()
                text.SetFontSize(size)
            legend.SetVisibility(False)  # a legend is drawn only if it is switched on while its map is shown

    @property
    def legend(self) -> Any:
        """The legend's display node, or None."""
        return slicer.modules.colors.logic().GetColorLegendDisplayNode(self.node)

    def follow_volume(self) -> None:
        """Take over the parent transform of the analysed volume: map and segmentation move with it."""
        volume = self.volume
        if volume is None:
            return
        for node in (self.reference(SEGMENTATION), self.node):
            if node is not None and node.GetTransformNodeID() != volume.GetTransformNodeID():
                node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())

    @property
    def rendering(self) -> Any:
        """Display node of the 3D view, or None if it was never shown there."""
        return self.node.GetNodeReference(_RENDERING)

    def show_3d(self, visible: bool) -> None:
        """Show what is above the threshold in 3D, by volume rendering: no mesh to compute, it acts at once."""
        if visible and self.rendering is None:
            scene = slicer.mrmlScene
            method = slicer.modules.volumerendering.logic().GetDefaultRenderingMethod()
            rendering = scene.AddNewNodeByClass(method or "vtkMRMLGPURayCastVolumeRenderingDisplayNode")
            look = scene.AddNewNodeByClass("vtkMRMLVolumePropertyNode", f"{self.node.GetName()} 3D")
            rendering.SetAndObserveVolumePropertyNodeID(look.GetID())
            self.node.SetNodeReferenceID(_RENDERING, rendering.GetID())
            display = self.node.GetScalarVolumeDisplayNode()
            self._shade(self.threshold, display.GetWindowLevelMax())
            self.node.AddAndObserveDisplayNodeID(rendering.GetID())
        if self.rendering is not None:
            self.rendering.SetVisibility(visible)

    def _shade(self, low: float, high: float) -> None:
        """Opacity of the 3D view: nothing below the threshold, a translucent body above it."""
        opacity, colour = vtk.vtkPiecewiseFunction(), vtk.vtkColorTransferFunction()
        for value, share in ((0.0, 0.0), (low - 1e-4, 0.0), (low, 0.25), (high, 0.9)):
            opacity.AddPoint(value, share)
        table = colour_node()
        for step in range(0, 256, 15):
            rgba = [0.0] * 4
            table.GetColor(step, rgba)
            colour.AddRGBPoint(low + (high - low) * step / 255, *rgba[:3])
        look = self.rendering.GetVolumePropertyNode()
        look.SetScalarOpacity(opacity)
        look.SetColor(colour)
        look.GetVolumeProperty().SetInterpolationTypeToLinear()

    # --- what belongs to it ---
    def reference(self, role: str) -> Any:
        """The node that plays a role (REGIONS, TABLE, CHART, SERIES, SEGMENTATION), or None."""
        return self.node.GetNodeReference(role)

    def need(self, role: str, kind: str, name: str) -> Any:
        """The same, made as a `kind` named `name` and put in the folder if it is not there."""
        node = self.reference(role)
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass(kind, f"{self.node.GetName()} {name}")
            self.node.SetNodeReferenceID(role, node.GetID())
            self.add_to_folder(node)
        return node

    def add_to_folder(self, node: Any) -> None:
        """Put a node into this result's folder in the subject hierarchy."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, self._folder(hierarchy))
        else:
            hierarchy.CreateItem(self._folder(hierarchy), node)

    def _folder(self, hierarchy: Any) -> int:
        """The folder that holds the map, beside the volume; made if it is not there."""
        key = self.node.GetID()
        item = hierarchy.GetItemByDataNode(self.node)
        parent = hierarchy.GetItemParent(item) if item else 0
        if parent and hierarchy.GetItemAttribute(parent, _FOLDER):
            return parent
        beside = hierarchy.GetItemByDataNode(self.volume) if self.volume else 0
        above = (hierarchy.GetItemParent(beside) if beside else 0) or hierarchy.GetSceneItemID()
        folder = hierarchy.CreateFolderItem(above, self.node.GetName())
        hierarchy.SetItemAttribute(folder, _FOLDER, key)
        return folder


def mask(array: np.ndarray, threshold: float) -> np.ndarray:
    """uint8 [k, j, i], 1 where a map is at least `threshold`: what the overlay shows."""
    return (array >= np.float32(threshold)).view(np.uint8)


def matrix_of(array: np.ndarray) -> Any:
    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, float(array[row, column]))
    return matrix
