"""Program that prints the grid and voxels that 3D Slicer's own reader finds in files, as JSON."""

from __future__ import annotations

import json
import sys

import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

found = {}
for name in sys.argv[1:]:
    scene = slicer.vtkMRMLScene()
    node, storage = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLVolumeArchetypeStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    storage.SetFileName(name)
    storage.SetSingleFile(1)
    assert storage.ReadData(node), name
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    values = vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())
    found[name] = {
        "affine": [[matrix.GetElement(row, column) for column in range(4)] for row in range(4)],
        "shape": node.GetImageData().GetDimensions(),
        "values": values.astype(float).tolist(),
    }
json.dump(found, sys.stdout)
