"""Volume nodes as plain data that a thread may work on.

For the main thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.grid import require_orthogonal
from MedCLIPADLib.nodes import array_of

RESULT = "MedCLIPAD.result"  # attribute of a map's node: the server's answer as JSON
IMAGE = "MedCLIPAD.image"  # attributes of a volume's node: its id on a server, the server, and the content hash
SERVER = "MedCLIPAD.server"
CONTENT = "MedCLIPAD.sha256"
_HOUNSFIELD = "[hnsf'U]"  # UCUM


@dataclass(frozen=True)
class Source:
    """The voxels of a volume, or of one of its components or time points.

    Attributes
    ----------
    name : str
        Name of the volume.
    array : (K, J, I) array
        The voxels: the node's own memory, not a copy. It stays valid as long as it is referenced.
    affine : (4, 4) array
        Voxel-to-RAS matrix, without parent transforms.
    image, sha256, server : str
        The id that the volume had on a server, its content hash then, and the address of the server; or "".
    """

    name: str
    array: np.ndarray
    affine: np.ndarray
    image: str = ""
    sha256: str = ""
    server: str = ""


def ijk_to_ras(node: Any) -> np.ndarray:
    """Return the (4, 4) voxel-to-RAS matrix of a node, without parent transforms."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return array_of(matrix)


def components(node: Any) -> int:
    """Return the number of scalar components of a volume node; 0 if it has no voxels."""
    image = node.GetImageData() if node is not None else None
    return image.GetNumberOfScalarComponents() if image and image.GetNumberOfPoints() else 0


def sequence_of(node: Any) -> tuple[Any, Any]:
    """Return the sequence browser and the sequence of a node, or (None, None).

    The node shows an item of the sequence.
    """
    module = getattr(slicer.modules, "sequences", None)
    if node is None or module is None:
        return None, None
    browser = module.logic().GetFirstBrowserNodeForProxyNode(node)
    return (browser, browser.GetSequenceNode(node)) if browser else (None, None)


def time_points(node: Any) -> int:
    """Return the number of time points; 1 for a node that is not in a sequence."""
    sequence = sequence_of(node)[1]
    return sequence.GetNumberOfDataNodes() if sequence else 1


def show_time_point(node: Any, number: int) -> None:
    """Show a time point in the node's sequence browser.

    The map then lies over what was analysed.
    """
    browser = sequence_of(node)[0]
    if browser is not None and browser.GetSelectedItemNumber() != number:
        browser.SetSelectedItemNumber(number)


def source(node: Any, component: int = 0, time_point: int = 0) -> Source:
    """Return what to analyse of a volume node.

    Parameters
    ----------
    node : vtkMRMLVolumeNode or None
        The volume.
    component : int
        Which of its scalar components.
    time_point : int
        Which item, if it is part of a sequence.

    Raises
    ------
    ModuleError
        If the volume cannot be analysed.
    """
    if node is None:
        raise ModuleError(_("Choose a volume to analyse first."))
    name = node.GetName()
    if node.GetAttribute(RESULT):
        raise ModuleError(_("{name} is itself an anomaly map: choose the volume to analyse.").format(name=name))
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise ModuleError(_("{name} is a label map: choose the volume to analyse.").format(name=name))
    sequence = sequence_of(node)[1]
    holder = node
    if sequence is not None:
        if not 0 <= time_point < sequence.GetNumberOfDataNodes():
            last = sequence.GetNumberOfDataNodes() - 1
            raise ModuleError(_("{name} has time points 0 to {last}: choose one of them.").format(name=name, last=last))
        holder = sequence.GetNthDataNode(time_point)
    count = components(holder)
    if count == 0:
        raise ModuleError(_("{name} has no voxels: load it again, or choose another volume.").format(name=name))
    if not 0 <= component < count:
        raise ModuleError(_("{name} has components 0 to {last}: choose one of them.").format(name=name, last=count - 1))
    affine = ijk_to_ras(holder)
    require_orthogonal(affine)
    array = voxels(holder)
    whole = sequence is None and count == 1
    known = {key: node.GetAttribute(key) or "" for key in (IMAGE, CONTENT, SERVER)} if whole else {}
    return Source(
        name if whole else f"{name} {component if sequence is None else time_point}",
        array if count == 1 else array[..., component],
        affine,
        known.get(IMAGE, ""),
        known.get(CONTENT, ""),
        known.get(SERVER, ""),
    )


def voxels(node: Any) -> np.ndarray:
    """Return the node's own memory as [k, j, i] or [k, j, i, component]."""
    return image_voxels(node.GetImageData())


def image_voxels(image: Any) -> np.ndarray:
    """Return the memory of a vtkImageData as [k, j, i] or [k, j, i, component]."""
    from vtk.util.numpy_support import vtk_to_numpy

    scalars = image.GetPointData().GetScalars()
    array = vtk_to_numpy(scalars)
    ni, nj, nk = image.GetDimensions()
    return array.reshape((nk, nj, ni) if array.ndim == 1 else (nk, nj, ni, array.shape[1]))


def new_image(array: np.ndarray) -> Any:
    """Return a float32 or uint8 array [k, j, i] as vtkImageData.

    For any thread: no MRML.

    The range of the values is computed here, so that the interface does not wait for it later.
    """
    scalar_type = {"float32": vtk.VTK_FLOAT, "uint8": vtk.VTK_UNSIGNED_CHAR}[array.dtype.name]
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.AllocateScalars(scalar_type, 1)
    image_voxels(image)[:] = array
    image.GetScalarRange()
    return image


def remember(node: Any, server: str, image: str, sha256: str) -> None:
    """Store on a volume's node which id a server has given it; saved with the scene."""
    for key, value in ((SERVER, server), (IMAGE, image), (CONTENT, sha256)):
        node.SetAttribute(key, value)


def modality(node: Any) -> str:
    """Return the DICOM modality of a node ("CT", "MR", ...), or "" if not known."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy and node else 0
    found = hierarchy.GetItemAttribute(item, "DICOM.Modality") if item else ""
    if not found and node is not None:
        units = node.GetVoxelValueUnits()
        found = "CT" if units and units.GetCodeValue() == _HOUNSFIELD else ""
    return found.upper()
