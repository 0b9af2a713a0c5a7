"""Helpers for MRML nodes and VTK matrices."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer
import vtk


def array_of(matrix: Any) -> np.ndarray:
    """Return a vtkMatrix4x4 as a (4, 4) array."""
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def matrix_of(array: np.ndarray) -> Any:
    """Return a (4, 4) array as a vtkMatrix4x4."""
    matrix = vtk.vtkMatrix4x4()
    for row in range(4):
        for column in range(4):
            matrix.SetElement(row, column, float(array[row, column]))
    return matrix


def singleton(class_name: str, tag: str, name: str) -> Any:
    """Return the scene's only node of a class with a singleton tag.

    It is created, with a name, if there is none.
    """
    scene = slicer.mrmlScene
    node = scene.GetSingletonNode(tag, class_name)
    if node is None:
        node = scene.CreateNodeByClass(class_name)
        node.UnRegister(None)
        node.SetSingletonTag(tag)
        node.SetName(name)
        node = scene.AddNode(node)
    return node
