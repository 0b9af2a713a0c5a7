"""Volume nodes of the scene as data that a thread may work on: main thread only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.grid import require_orthogonal

RESULT = "MedCLIPAD.result"  # attribute of a map's node: what the server said, as JSON
IMAGE = "MedCLIPAD.image"  # attributes of a volume node: its id at a server, which server, and the content it had
SERVER = "MedCLIPAD.server"
CONTENT = "MedCLIPAD.sha256"
_HOUNSFIELD = "[hnsf'U]"  # UCUM


@dataclass(frozen=True)
class Source:
    """The voxels of a node, or of one component or time point of it, as they are analysed.

    array: [k, j, i], the node's own memory and not a copy (it stays valid while it is referred to). affine: IJK to RAS
    without any parent transform. image, sha256: what the server `server` was seen to call this content, or "".
    """

    name: str
    array: np.ndarray
    affine: np.ndarray
    image: str = ""
    sha256: str = ""
    server: str = ""


def ijk_to_ras(node: Any) -> np.ndarray:
    """4 x 4 voxel-to-RAS matrix of a volume node, without its parent transform."""
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def components(node: Any) -> int:
    """Number of scalar components; 0 without voxels."""
    image = node.GetImageData() if node is not None else None
    return image.GetNumberOfScalarComponents() if image and image.GetNumberOfPoints() else 0


def sequence_of(node: Any) -> tuple[Any, Any]:
    """(sequence browser, sequence) that the node shows one item of, or (None, None)."""
    module = getattr(slicer.modules, "sequences", None)
    if node is None or module is None:
        return None, None
    browser = module.logic().GetFirstBrowserNodeForProxyNode(node)
    return (browser, browser.GetSequenceNode(node)) if browser else (None, None)


def time_points(node: Any) -> int:
    """Number of time points; 1 for a volume that is not part of a sequence."""
    sequence = sequence_of(node)[1]
    return sequence.GetNumberOfDataNodes() if sequence else 1


def shown_time_point(node: Any) -> int:
    browser = sequence_of(node)[0]
    return max(0, browser.GetSelectedItemNumber()) if browser else 0


def show_time_point(node: Any, number: int) -> None:
    """Let the node's sequence browser show a time point, so that the map lies over what was analysed."""
    browser = sequence_of(node)[0]
    if browser is not None and browser.GetSelectedItemNumber() != number:
        browser.SetSelectedItemNumber(number)


def source(node: Any, component: int = 0, time_point: int = 0) -> Source:
    """What to analyse of a volume node; ModuleError says what is wrong with it."""
    if node is None:
        raise ModuleError(_("Choose the volume to analyse first."))
    name = node.GetName()
    if node.GetAttribute(RESULT):
        raise ModuleError(_("{name} is an anomaly map itself: choose the volume to analyse.").format(name=name))
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        raise ModuleError(_("{name} is a label map: choose the volume to analyse.").format(name=name))
    sequence = sequence_of(node)[1]
    holder = node
    if sequence is not None:
        if not 0 <= time_point < sequence.GetNumberOfDataNodes():
            last = sequence.GetNumberOfDataNodes() - 1
            raise ModuleError(_("{name} has the time points 0 to {last}.").format(name=name, last=last))
        holder = sequence.GetNthDataNode(time_point)
    count = components(holder)
    if count == 0:
        raise ModuleError(_("{name} has no voxels: load it again, or choose another volume.").format(name=name))
    if not 0 <= component < count:
        raise ModuleError(_("{name} has the components 0 to {last}.").format(name=name, last=count - 1))
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
    """The node's own memory as [k, j, i] or [k, j, i, component]."""
    return image_voxels(node.GetImageData())


def image_voxels(image: Any) -> np.ndarray:
    """The memory of a vtkImageData as [k, j, i] or [k, j, i, component]."""
    from vtk.util.numpy_support import vtk_to_numpy

    scalars = image.GetPointData().GetScalars()
    array = vtk_to_numpy(scalars)
    ni, nj, nk = image.GetDimensions()
    return array.reshape((nk, nj, ni) if array.ndim == 1 else (nk, nj, ni, array.shape[1]))


def new_image(array: np.ndarray) -> Any:
    """A vtkImageData with the voxels [k, j, i] of a float32 or uint8 array. No MRML: threads may call it.

    The range of the values is asked for here, so that it is known when the interface wants it.
    """
    kind = {"float32": vtk.VTK_FLOAT, "uint8": vtk.VTK_UNSIGNED_CHAR}[array.dtype.name]
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.AllocateScalars(kind, 1)
    image_voxels(image)[:] = array
    image.GetScalarRange()
    return image


def remember(node: Any, server: str, image: str, sha256: str) -> None:
    """Note on a volume's node what a server calls it; saved with the scene."""
    for key, value in ((SERVER, server), (IMAGE, image), (CONTENT, sha256)):
        node.SetAttribute(key, value)


def image_id(node: Any, server: str) -> str | None:
    """What the server calls this volume, as far as was seen."""
    same = node is not None and node.GetAttribute(SERVER) == server
    return (node.GetAttribute(IMAGE) or None) if same else None


def modality(node: Any) -> str:
    """DICOM modality of a volume ("CT", "MR", ...), or "" if nothing says it."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) if hierarchy and node else 0
    found = hierarchy.GetItemAttribute(item, "DICOM.Modality") if item else ""
    if not found and node is not None:
        units = node.GetVoxelValueUnits()
        found = "CT" if units and units.GetCodeValue() == _HOUNSFIELD else ""
    return found.upper()
