"""An anomaly map in the scene.

Everything about it is stored in MRML, and so saved with the scene.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedCLIPADLib.colours import COUNT, HIGH, LOW, WINDOW, colour_node, value_of
from MedCLIPADLib.detection import Answer
from MedCLIPADLib.grid import PLANES, Slicing
from MedCLIPADLib.legend import legend_of, require_legend
from MedCLIPADLib.nodes import matrix_of
from MedCLIPADLib.rarity import UNCALIBRATED, rarity
from MedCLIPADLib.volumes import RESULT, ijk_to_ras, voxels

_ROLES = (
    "volume",
    "regions",
    "table",
    "chart",
    "series",
    "segmentation",
    "lines",
    "limit",
    "current",
    "points",
    "head",
)
VOLUME, REGIONS, TABLE, CHART, SERIES, SEGMENTATION, LINES, LIMIT, CURRENT, POINTS, HEAD = (
    f"MedCLIPAD.{role}" for role in _ROLES
)
_FOLDER = "MedCLIPAD.folder"  # attribute of a folder in the subject hierarchy: id of the map's node
_RENDERING = "MedCLIPAD.rendering"
_OPACITY_3D = (0.25, 0.9)  # of the first and the last colour


class Result:
    """A map, as a stateless view of its volume node.

    Create one whenever it is needed.

    Parameters
    ----------
    node : vtkMRMLScalarVolumeNode
        The map's node; also an attribute.
    """

    def __init__(self, node: Any) -> None:
        self.node = node

    # --- create and find ---
    @classmethod
    def create(cls, volume: Any, answer: Answer, affine: np.ndarray, time_point: int | None = None) -> Result:
        """Add a map to the scene and return its result.

        Parameters
        ----------
        volume : vtkMRMLScalarVolumeNode
            The analysed volume.
        answer : Answer
            The outcome of the analysis.
        affine : (4, 4) array
            Voxel-to-RAS matrix of the analysed grid.
        time_point : int or None
            The analysed time point of a sequence.
        """
        scores = answer.scores
        scene = slicer.mrmlScene
        name = f"{volume.GetName()} anomaly ({scores['method']} {scores['detector']})"
        display = scene.AddNewNodeByClass("vtkMRMLScalarVolumeDisplayNode")
        display.AutoWindowLevelOff()  # before there are voxels: otherwise all of them would be examined
        display.AutoThresholdOff()
        display.ApplyThresholdOn()
        display.InterpolateOn()  # smooth edges: the threshold acts on the interpolated values
        node = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
        node.UnRegister(None)
        node.SetName(scene.GenerateUniqueName(name))
        about = {**scores, "image": answer.image, "sha256": answer.sha256, "server": answer.server}
        about.pop("regions", None)  # listed by `regions.py`, for the reader's own threshold and limit
        about["highest"] = answer.highest
        node.SetAttribute(RESULT, json.dumps({**about, "time_point": time_point}))  # before node selectors see it
        scene.AddNode(node)
        node.SetIJKToRASMatrix(matrix_of(affine))
        node.SetAndObserveDisplayNodeID(display.GetID())
        node.SetAndObserveImageData(answer.map)
        node.SetNodeReferenceID(VOLUME, volume.GetID())
        result = cls(node)
        result.follow_volume()
        result.set_threshold(result.outline())
        result.restore_colours()
        result.add_to_folder(node)
        return result

    @staticmethod
    def all(volume: Any = None) -> list[Result]:
        """Return all maps in the scene, or those of one volume, oldest first."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        found = [Result.of(node) for node in nodes]
        return [result for result in found if result is not None and (volume is None or result.volume is volume)]

    @staticmethod
    def of(node: Any) -> Result | None:
        """Return the result of a map's node; None for any other node, and for a map that this version cannot read."""
        if node is None:
            return None
        text = node.GetAttribute(RESULT)
        return Result(node) if text and _is_readable(text) and node.GetImageData() is not None else None

    # --- contents ---
    @property
    def about(self) -> dict:
        """The server's answer, with image, server and time point.

        Its keys are method, detector, plane, threshold, slice_scores, volume_score and more. The properties below read
        those that a scene saved by an earlier version may lack.
        """
        return json.loads(self.node.GetAttribute(RESULT))

    @property
    def volume(self) -> Any:
        """The analysed volume's node; None if it was deleted."""
        return self.node.GetNodeReference(VOLUME)

    @property
    def array(self) -> np.ndarray:
        """The values of the map, float32 [k, j, i]: the node's own memory."""
        return voxels(self.node)

    @property
    def affine(self) -> np.ndarray:
        """Voxel-to-RAS matrix (4, 4), without parent transforms."""
        return ijk_to_ras(self.node)

    @property
    def slicing(self) -> Slicing:
        """The analysed slices."""
        return Slicing(self.node.GetImageData().GetDimensions(), self.affine, self.about["plane"])

    @property
    def slice_scores(self) -> np.ndarray:
        """Score of each slice, float64; nan for skipped slices."""
        return np.array([np.nan if score is None else score for score in self.about["slice_scores"]], dtype=float)

    @property
    def title(self) -> str:
        """Method, detector and plane as text."""
        about = self.about
        return f"{about['method']} {about['detector']}, {about['plane']}"

    # --- compared with normal scans ---
    @property
    def verdict(self) -> str:
        """What a reader should know first, in sentences."""
        about = self.about
        verdict, warnings = about.get("verdict", ""), " ".join(self.warnings)
        if not verdict:
            return _("No verdict: analysed by an earlier version. Research software: not for diagnosis.")
        if warnings and verdict.startswith(warnings):  # they are shown beside the verdict
            rest = verdict[len(warnings) :].strip()
            return _("No verdict: this volume is unlike those that the detector learned from. {rest}").format(rest=rest)
        return verdict

    @property
    def warnings(self) -> list[str]:
        """Why the volume is unlike those that the detector learned from, in sentences."""
        return list(self.about.get("warnings") or [])

    @property
    def promise(self) -> str:
        """What the number of normal scans can promise, in a sentence."""
        return self.about.get("promise") or _("The detector was not compared with normal scans.")

    @property
    def slice_limit(self) -> float | None:
        """Score that few slices of normal scans exceed; None if not known."""
        return self.about.get("slice_limit")

    @property
    def scale_top(self) -> float:
        """Map value above which nothing occurs in normal scans; 1 if the detector was not compared with any."""
        return float(self.about.get("scale_top", UNCALIBRATED))

    def in_words(self, value: float) -> str:
        """Return how rare a map value is in normal scans, in words."""
        return rarity(value, self.scale_top, int(self.about.get("normal_scans", 0)))

    @property
    def region_limits(self) -> dict[str, float]:
        """Limits of the peaks of regions, by the number of false regions in a normal scan; the lowest number first.

        The keys are numbers as text. It is empty if there were too few normal scans.
        """
        limits = self.about.get("region_limits") or {}
        return {rate: float(limits[rate]) for rate in sorted(limits, key=float)}

    def rate(self, chosen: str = "") -> str:
        """Return a number of false regions in a normal scan, as text.

        Parameters
        ----------
        chosen : str
            A key of `region_limits`.

        Returns
        -------
        str
            The chosen one, or else the detector's default; "" if there is none.
        """
        limits = self.region_limits
        default = self.about.get("false_regions_per_scan")
        offered = [chosen, "" if default is None else f"{default:g}", *limits]
        return next((rate for rate in offered if rate in limits), "")

    def limit(self, chosen: str = "") -> float | None:
        """Return the map value that the peak of a region must exceed; None if there is no limit.

        `chosen` is as in `rate`.
        """
        return self.region_limits.get(self.rate(chosen))

    def outline(self, chosen: str = "") -> float:
        """Return the standard threshold: that of the server, or the limit of the peaks where that is lower.

        `chosen` is as in `rate`.
        """
        limit, threshold = self.limit(chosen), float(self.about["threshold"])
        return threshold if limit is None else min(threshold, limit)

    # --- display ---
    @property
    def threshold(self) -> float:
        """Lowest value of the map that is shown."""
        return self.node.GetScalarVolumeDisplayNode().GetLowerThreshold()

    def set_threshold(self, value: float) -> None:
        """Hide the map below a value, in 2D and 3D; the colours stay."""
        display = self.node.GetScalarVolumeDisplayNode()
        was = display.StartModify()
        display.SetThreshold(value, max(value, HIGH))
        display.SetWindowLevelMinMax(*WINDOW)
        display.EndModify(was)
        if self.rendering is not None:
            self._shade(value)

    def restore_colours(self) -> None:
        """Set the map's colour table, its range and the legend.

        Needed for a new map, and after a scene was loaded.
        """
        display, top = self.node.GetScalarVolumeDisplayNode(), self.scale_top
        colour = colour_node(top)
        if display.GetColorNodeID() != colour.GetID():
            display.SetAndObserveColorNodeID(colour.GetID())
        if not np.allclose((display.GetWindowLevelMin(), display.GetWindowLevelMax()), WINDOW):
            display.SetWindowLevelMinMax(*WINDOW)
        require_legend(self.node, compared=top < UNCALIBRATED)

    @property
    def legend(self) -> Any:
        """The legend's display node, or None."""
        return legend_of(self.node)

    def follow_volume(self) -> None:
        """Put the map and what belongs to it under the parent transform of the analysed volume."""
        volume = self.volume
        if volume is None:
            return
        for node in (self.reference(SEGMENTATION), self.reference(POINTS), self.reference(HEAD), self.node):
            if node is not None and node.GetTransformNodeID() != volume.GetTransformNodeID():
                node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())

    @property
    def rendering(self) -> Any:
        """Display node of the 3D views, or None if the map was never shown there."""
        return self.node.GetNodeReference(_RENDERING)

    def show_3d(self, visible: bool) -> None:
        """Show or hide the map above the threshold in 3D.

        Volume rendering needs no mesh and so acts at once.
        """
        if visible and self.rendering is None:
            scene = slicer.mrmlScene
            method = slicer.modules.volumerendering.logic().GetDefaultRenderingMethod()
            rendering = scene.AddNewNodeByClass(method or "vtkMRMLGPURayCastVolumeRenderingDisplayNode")
            look = scene.AddNewNodeByClass("vtkMRMLVolumePropertyNode", f"{self.node.GetName()} 3D")
            rendering.SetAndObserveVolumePropertyNodeID(look.GetID())
            self.node.SetNodeReferenceID(_RENDERING, rendering.GetID())
            self._shade(self.threshold)
            self.node.AddAndObserveDisplayNodeID(rendering.GetID())
        if self.rendering is not None:
            self.rendering.SetVisibility(visible)
        head = self.reference(HEAD)
        if head is not None:
            head.GetDisplayNode().SetVisibility(visible)

    def _shade(self, threshold: float) -> None:
        """Set colours and opacity in 3D: the same for all maps, but transparent below the threshold."""
        opacity, colour = vtk.vtkPiecewiseFunction(), vtk.vtkColorTransferFunction()
        shown = float(np.interp(threshold, (LOW, HIGH), _OPACITY_3D))
        for value, alpha in ((0.0, 0.0), (threshold - 1e-4, 0.0), (threshold, shown)):
            opacity.AddPoint(value, alpha)
        for value, alpha in zip((LOW, HIGH), _OPACITY_3D):
            if value > threshold:
                opacity.AddPoint(value, alpha)
        table = colour_node(self.scale_top)
        for number in range(COUNT):
            rgba = [0.0] * 4
            table.GetColor(number, rgba)
            colour.AddRGBPoint(value_of(number), *rgba[:3])
        look = self.rendering.GetVolumePropertyNode()
        look.SetScalarOpacity(opacity)
        look.SetColor(colour)
        look.GetVolumeProperty().SetInterpolationTypeToLinear()

    # --- nodes that belong to the map ---
    def reference(self, role: str) -> Any:
        """Return the node with a role, or None.

        Roles are REGIONS, TABLE, CHART, SERIES, SEGMENTATION, LINES, LIMIT, CURRENT, POINTS and HEAD.
        """
        return self.node.GetNodeReference(role)

    def require_reference(self, role: str, class_name: str, name: str) -> Any:
        """Return the node with a role; create it in the map's folder if there is none.

        Parameters
        ----------
        role : str
            One of those of `reference`.
        class_name : str
            Class of a new node.
        name : str
            Name of a new node, after the map's name.
        """
        node = self.reference(role)
        if node is None:
            node = slicer.mrmlScene.AddNewNodeByClass(class_name, f"{self.node.GetName()} {name}")
            self.node.SetNodeReferenceID(role, node.GetID())
            self.add_to_folder(node)
        return node

    def add_to_folder(self, node: Any) -> None:
        """Move a node to the map's folder in the subject hierarchy."""
        hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, self._folder(hierarchy))
        else:
            hierarchy.CreateItem(self._folder(hierarchy), node)

    def _folder(self, hierarchy: Any) -> int:
        """Return the map's folder, beside the volume; create it if there is none."""
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


def _is_readable(text: str) -> bool:
    """Return whether a stored answer has what a map is shown with, on a plane that this version knows."""
    try:
        about = json.loads(text)
        return about["plane"] in PLANES and {"method", "detector", "threshold", "slice_scores"} <= set(about)
    except (ValueError, TypeError, KeyError):
        return False


def mask(array: np.ndarray, threshold: float) -> np.ndarray:
    """Return where a map is at or above a threshold, as uint8 [k, j, i].

    This is what the overlay shows.
    """
    return (array >= np.float32(threshold)).view(np.uint8)
