"""From the map to a segmentation that the reader corrects, and from it to a mask on the volume's grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.results import SEGMENTATION, Result, mask
from MedCLIPADLib.volumes import ijk_to_ras, new_image, voxels

NAME = "anomaly"
_COLOUR = (0.0, 0.8, 0.9)  # cyan: nothing in the map's colours or in an MR image looks like it
_FILL = 0.1  # opacity inside the outline: the map must stay visible


def cut_out(array: np.ndarray, threshold: float) -> tuple[Any, tuple[int, int, int]]:
    """(vtkImageData, first voxel i, j, k) of the smallest box that holds the map above the threshold. For threads."""
    above = mask(array, threshold)
    start, stop = [], []
    for axis in range(3):
        hits = np.flatnonzero(above.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(hits):
            raise ModuleError(_("Nothing of the map is above the threshold: lower it, or start an empty segmentation."))
        start.append(int(hits[0]))
        stop.append(int(hits[-1]) + 1)
    box = tuple(slice(a, b) for a, b in zip(start, stop))
    return new_image(np.ascontiguousarray(above[box])), (start[2], start[1], start[0])


def make_segmentation(result: Result, image: Any, first: tuple[int, int, int]) -> Any:
    """A segmentation node with what `cut_out` gave as its segment; a new one each time, to lose no edits."""
    result.node.RemoveNodeReferenceIDs(SEGMENTATION)
    node = empty_segmentation(result)
    node.GetSegmentation().RemoveAllSegments()
    oriented = slicer.vtkOrientedImageData()
    oriented.ShallowCopy(image)
    ni, nj, nk = image.GetDimensions()
    i, j, k = first
    oriented.SetExtent(i, i + ni - 1, j, j + nj - 1, k, k + nk - 1)
    matrix = vtk.vtkMatrix4x4()
    result.node.GetIJKToRASMatrix(matrix)
    oriented.SetGeometryFromImageToWorldMatrix(matrix)
    node.AddSegmentFromBinaryLabelmapRepresentation(oriented, NAME, _COLOUR)
    return node


def empty_segmentation(result: Result) -> Any:
    """The result's segmentation node, made with one empty segment if there is none."""
    node = result.reference(SEGMENTATION)
    if node is not None:
        return node
    node = result.need(SEGMENTATION, "vtkMRMLSegmentationNode", "segmentation")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetOpacity2DFill(_FILL)
    node.SetReferenceImageGeometryParameterFromVolumeNode(result.volume or result.node)
    node.SetAndObserveTransformNodeID(result.node.GetTransformNodeID())
    node.GetSegmentation().AddEmptySegment("", NAME, _COLOUR)
    return node


def label_of(node: Any, result: Result) -> np.ndarray:
    """uint8 [k, j, i] on the grid of the result: 1 where any segment is. ModuleError if it reaches nowhere."""
    segments = node.GetSegmentation()
    if segments.GetNumberOfSegments() == 0:
        raise ModuleError(
            _("{name} has no segments: paint the lesion in the Segment Editor first.").format(name=node.GetName())
        )
    label = _same_grid(segments, result) if _together(node, result) else None
    return _resampled(node, result) if label is None else label


def _together(node: Any, result: Result) -> bool:
    return node.GetTransformNodeID() == result.node.GetTransformNodeID()


def _same_grid(segments: Any, result: Result) -> Any:
    """The label, read directly if all segments lie on the result's grid (a fraction of the time); None otherwise."""
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    shape = result.node.GetImageData().GetDimensions()
    label = np.zeros(shape[::-1], np.uint8)
    for number in range(segments.GetNumberOfSegments()):
        segment = segments.GetNthSegment(number)
        part = segment.GetRepresentation(name)
        if part is None:
            return None
        extent = part.GetExtent()
        if any(extent[2 * axis] > extent[2 * axis + 1] for axis in range(3)):
            continue  # nothing painted
        matrix = vtk.vtkMatrix4x4()
        part.GetImageToWorldMatrix(matrix)
        affine = np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])
        inside = all(extent[2 * axis] >= 0 and extent[2 * axis + 1] < shape[axis] for axis in range(3))
        if not inside or not np.allclose(affine, ijk_to_ras(result.node), rtol=0, atol=1e-4):
            return None
        i0, i1, j0, j1, k0, k1 = extent
        box = label[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1]
        scalars = _voxels_of(part)
        box[scalars == segment.GetLabelValue()] = 1
    return label


def _resampled(node: Any, result: Result) -> np.ndarray:
    """The label, brought to the result's grid by Slicer."""
    scene = slicer.mrmlScene
    target = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "MedCLIPAD temporary")
    try:
        segments = vtk.vtkStringArray()
        node.GetSegmentation().GetSegmentIDs(segments)
        logic = slicer.modules.segmentations.logic()
        if not logic.ExportSegmentsToLabelmapNode(node, segments, target, result.node):
            raise _unfit(node)
        if (
            target.GetImageData() is None
            or target.GetImageData().GetDimensions() != result.node.GetImageData().GetDimensions()
        ):
            raise _unfit(node)
        return (voxels(target) > 0).astype(np.uint8)
    finally:
        scene.RemoveNode(target)


def _unfit(node: Any) -> ModuleError:
    return ModuleError(_("{name} cannot be brought to the volume's grid.").format(name=node.GetName()))


def _voxels_of(part: Any) -> np.ndarray:
    """A vtkOrientedImageData's memory as [k, j, i] of its own extent."""
    from vtk.util.numpy_support import vtk_to_numpy

    i0, i1, j0, j1, k0, k1 = part.GetExtent()
    return vtk_to_numpy(part.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
