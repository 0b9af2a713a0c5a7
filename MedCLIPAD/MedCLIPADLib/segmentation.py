"""From the map to a segmentation to correct, and back to a mask on its grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.grid import bounding_box
from MedCLIPADLib.nodes import array_of, matrix_of
from MedCLIPADLib.regions import label_regions
from MedCLIPADLib.results import SEGMENTATION, Result
from MedCLIPADLib.volumes import new_image, voxels

NAME = "anomaly"
_COLOUR = (0.0, 0.8, 0.9)  # cyan, which neither the map's colours nor a grey image contain
# The codes of the server's DICOM segmentations, as Slicer's terminologies write them.
TERMINOLOGY = (
    "Segmentation category and type - DICOM master list"
    "~SCT^49755003^Morphologically Abnormal Structure~SCT^52988006^Lesion~^^"
    "~Anatomic codes - DICOM master list~^^~^^"
)
_FILL = 0.1  # opacity inside the outline, low so that the map stays visible


def crop_regions(array: np.ndarray, threshold: float, limit: float | None = None) -> tuple[Any, tuple[int, int, int]]:
    """Return the smallest mask around the regions of a map.

    For any thread: no MRML.

    Parameters
    ----------
    array : (K, J, I) float32 array
        The map.
    threshold : float
        Lowest value of the mask's voxels.
    limit : float or None
        Value that the peak of a region exceeds.

    Returns
    -------
    image : vtkImageData
        The mask.
    first : tuple of int
        Position (i, j, k) of its first voxel in the map.

    Raises
    ------
    ModuleError
        If there is no region.
    """
    labels, numbers, outer = label_regions(array, threshold, limit)
    if outer is None:
        raise ModuleError(
            _("No part of the map is above the threshold: lower the threshold, or make an empty segmentation.")
        )
    chosen = np.zeros(labels.max() + 1, np.uint8)
    chosen[numbers] = 1
    part = chosen[labels]
    inner = bounding_box(part)
    if inner is None:
        raise ModuleError(
            _("No region exceeds the limit: allow more false regions per scan, or make an empty segmentation.")
        )
    i, j, k = (near.start + far.start for near, far in zip(reversed(inner), reversed(outer)))
    return new_image(np.ascontiguousarray(part[inner])), (i, j, k)


def make_segmentation(result: Result, image: Any, first: tuple[int, int, int]) -> Any:
    """Return a new segmentation node with one segment.

    An older one is kept, so that no edits are lost.

    Parameters
    ----------
    result : Result
        The map.
    image : vtkImageData
        Mask of the segment, from `crop_regions`.
    first : tuple of int
        Position (i, j, k) of the mask's first voxel in the map.
    """
    result.node.RemoveNodeReferenceIDs(SEGMENTATION)
    node = empty_segmentation(result)
    node.GetSegmentation().RemoveAllSegments()
    oriented = slicer.vtkOrientedImageData()
    oriented.ShallowCopy(image)
    ni, nj, nk = image.GetDimensions()
    i, j, k = first
    oriented.SetExtent(i, i + ni - 1, j, j + nj - 1, k, k + nk - 1)
    oriented.SetGeometryFromImageToWorldMatrix(matrix_of(result.affine))
    node.AddSegmentFromBinaryLabelmapRepresentation(oriented, NAME, _COLOUR)
    _describe(node)
    segment = node.GetSegmentation().GetNthSegment(0)
    segment.SetTag("DICOM.SegmentAlgorithmType", "SEMIAUTOMATIC")  # the reader chose the limits, and may correct it
    segment.SetTag("DICOM.SegmentAlgorithmName", f"MedCLIPAD {result.about['detector']}"[:64])
    return node


def empty_segmentation(result: Result) -> Any:
    """Return the result's segmentation node.

    It is created with one empty segment if there is none.
    """
    node = result.reference(SEGMENTATION)
    if node is not None:
        return node
    node = result.require_reference(SEGMENTATION, "vtkMRMLSegmentationNode", "segmentation")
    node.CreateDefaultDisplayNodes()
    node.GetDisplayNode().SetOpacity2DFill(_FILL)
    node.SetReferenceImageGeometryParameterFromVolumeNode(result.volume or result.node)
    node.SetAndObserveTransformNodeID(result.node.GetTransformNodeID())
    node.GetSegmentation().AddEmptySegment("", NAME, _COLOUR)
    _describe(node)
    return node


def _describe(node: Any) -> None:
    """Say in standard codes what the only segment of a segmentation is, for its export."""
    segment = node.GetSegmentation().GetNthSegment(0)
    segment.SetTag(segment.GetTerminologyEntryTagName(), TERMINOLOGY)


def label_of(node: Any, result: Result) -> np.ndarray:
    """Return a segmentation as a mask on the grid of a result.

    Parameters
    ----------
    node : vtkMRMLSegmentationNode
        The segmentation; on any grid, under any parent transform.
    result : Result
        The map.

    Returns
    -------
    (K, J, I) uint8 array
        1 in all segments, 0 elsewhere.

    Raises
    ------
    ModuleError
        If there are no segments, or they cannot be resampled to the grid.
    """
    segments = node.GetSegmentation()
    if segments.GetNumberOfSegments() == 0:
        raise ModuleError(
            _("{name} has no segments: paint the lesion in the Segment Editor first.").format(name=node.GetName())
        )
    same_transform = node.GetTransformNodeID() == result.node.GetTransformNodeID()
    label = _label_on_grid(segments, result) if same_transform else None
    return _resampled_label(node, result) if label is None else label


def _label_on_grid(segments: Any, result: Result) -> np.ndarray | None:
    """Return the mask if all segments lie on the result's grid, else None.

    This is much faster than resampling.
    """
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
            continue  # an empty segment
        matrix = vtk.vtkMatrix4x4()
        part.GetImageToWorldMatrix(matrix)
        inside = all(extent[2 * axis] >= 0 and extent[2 * axis + 1] < shape[axis] for axis in range(3))
        if not inside or not np.allclose(array_of(matrix), result.affine, rtol=0, atol=1e-4):
            return None
        i0, i1, j0, j1, k0, k1 = extent
        box = label[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1]
        scalars = _voxels_of(part)
        box[scalars == segment.GetLabelValue()] = 1
    return label


def _resampled_label(node: Any, result: Result) -> np.ndarray:
    """Return the mask, resampled to the result's grid by Slicer."""
    scene = slicer.mrmlScene
    target = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "MedCLIPAD temporary")
    try:
        segments = vtk.vtkStringArray()
        node.GetSegmentation().GetSegmentIDs(segments)
        logic = slicer.modules.segmentations.logic()
        exported = logic.ExportSegmentsToLabelmapNode(node, segments, target, result.node)
        image = target.GetImageData() if exported else None
        if image is None or image.GetDimensions() != result.node.GetImageData().GetDimensions():
            raise ModuleError(
                _("{name} cannot be resampled to the volume's grid: make a new segmentation of this map.").format(
                    name=node.GetName()
                )
            )
        return (voxels(target) > 0).astype(np.uint8)
    finally:
        scene.RemoveNode(target)


def _voxels_of(part: Any) -> np.ndarray:
    """Return the memory of a vtkOrientedImageData as [k, j, i] of its own extent."""
    from vtk.util.numpy_support import vtk_to_numpy

    i0, i1, j0, j1, k0, k1 = part.GetExtent()
    return vtk_to_numpy(part.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
