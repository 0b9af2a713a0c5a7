"""The surface of the body, translucent, so that the map in 3D can be seen where it lies."""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk

from MedCLIPADLib.nodes import matrix_of
from MedCLIPADLib.results import HEAD, Result
from MedCLIPADLib.volumes import new_image

_MAX_SIZE = 96  # voxels per axis: enough for an outline, and made in less than half a second
_SMOOTHING = 25  # iterations of the low-pass filter
_PASS_BAND = 0.02
_OPACITY = 0.15
_COLOUR = (0.85, 0.8, 0.75)


def body_surface(array: np.ndarray, affine: np.ndarray) -> Any:
    """Return the surface of the body as vtkPolyData in RAS. For any thread: no MRML.

    Parameters
    ----------
    array : (K, J, I) float32 array
        The map, which is 0 outside of the body.
    affine : (4, 4) array
        Voxel-to-RAS matrix.
    """
    step = max(1, -(-max(array.shape) // _MAX_SIZE))
    body = np.pad((array[::step, ::step, ::step] > 0).astype(np.uint8), 1)  # closed at the borders
    surface = vtk.vtkFlyingEdges3D()
    surface.SetInputData(new_image(np.ascontiguousarray(body)))
    surface.SetValue(0, 0.5)
    largest = vtk.vtkPolyDataConnectivityFilter()
    largest.SetInputConnection(surface.GetOutputPort())
    largest.SetExtractionModeToLargestRegion()
    smooth = vtk.vtkWindowedSincPolyDataFilter()
    smooth.SetInputConnection(largest.GetOutputPort())
    smooth.SetNumberOfIterations(_SMOOTHING)
    smooth.SetPassBand(_PASS_BAND)
    to_ras = vtk.vtkTransform()
    to_ras.SetMatrix(matrix_of(affine @ np.diag([step, step, step, 1.0]) @ _shifted(-1.0)))
    placed = vtk.vtkTransformPolyDataFilter()
    placed.SetInputConnection(smooth.GetOutputPort())
    placed.SetTransform(to_ras)
    placed.Update()
    return placed.GetOutput()


def _shifted(by: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = by
    return matrix


def show_head(result: Result, surface: Any) -> Any:
    """Show the surface of the body of a map in 3D, and in no slice view; return its model node."""
    node = result.require_reference(HEAD, "vtkMRMLModelNode", "body")
    node.SetAndObserveMesh(surface)
    if node.GetDisplayNode() is None:
        node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetColor(*_COLOUR)
    display.SetOpacity(_OPACITY)
    display.SetVisibility2D(False)
    node.SetAndObserveTransformNodeID(result.node.GetTransformNodeID())
    node.SetSelectable(False)
    return node
