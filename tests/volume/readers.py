"""What other programs read from the same files: the value that each puts at a position in the patient."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset

from tests.volume.volume_cases import load_nifti

LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
Grid = tuple[np.ndarray, np.ndarray]
"""(I, J, K) values and their (4, 4) affine, voxel to RAS mm."""


def grids(reader: str, source: Any) -> Iterator[Grid]:
    """Yield what `reader` sees: one grid, or one per DICOM image (pydicom)."""
    yield from READERS[reader](source)


def dicom_files(source: Path) -> list[Path]:
    """Return the image files of a DICOM case, sorted by position."""
    files = (
        [file for file in source.rglob("*") if file.suffix != ".txt" and file.is_file()]
        if source.is_dir()
        else [source]
    )

    def depth(file: Path) -> float:
        header = pydicom.dcmread(file, stop_before_pixels=True)
        if "ImagePositionPatient" not in header:
            return 0.0
        along_row, along_column = np.reshape(header.ImageOrientationPatient, (2, 3))
        return float(np.cross(along_row, along_column) @ header.ImagePositionPatient)

    return sorted(files, key=depth)


def _nibabel(source: Path) -> Iterator[Grid]:
    image = load_nifti(source)
    array = np.asanyarray(image.dataobj)
    array = array.reshape(array.shape + (1,) * (3 - array.ndim))
    yield array[(..., *[0] * (array.ndim - 3))], np.asarray(image.affine)


def _simpleitk(source: Path) -> Iterator[Grid]:
    is_dicom = source.is_dir() or _is_dicom(source)
    files = [str(file) for file in dicom_files(source)] if is_dicom else [str(source)]
    image = SimpleITK.ReadImage(files if len(files) > 1 else files[0])
    array = SimpleITK.GetArrayFromImage(image).T
    n = image.GetDimension()
    lps = np.eye(4)
    lps[:n, :n] = np.reshape(image.GetDirection(), (n, n)) * image.GetSpacing()
    lps[:n, 3] = image.GetOrigin()
    yield array.reshape(array.shape + (1,) * (3 - n)), LPS_TO_RAS @ lps


def _slicer(source: Path) -> Iterator[Grid]:
    slicer: Any = importlib.import_module("slicer")  # VTK's and Slicer's modules have no types
    vtk: Any = importlib.import_module("vtk")
    vtk_to_numpy = importlib.import_module("vtk.util.numpy_support").vtk_to_numpy

    scene = slicer.vtkMRMLScene()
    node, storage = slicer.vtkMRMLScalarVolumeNode(), slicer.vtkMRMLVolumeArchetypeStorageNode()
    scene.AddNode(node)
    scene.AddNode(storage)
    is_dicom = source.is_dir() or _is_dicom(source)
    first, *others = dicom_files(source) if is_dicom else [source]
    storage.SetFileName(str(first))
    for file in (first, *others) if others else ():
        storage.AddFileName(str(file))
    storage.SetSingleFile(not others)
    assert storage.ReadData(node) == 1, "Slicer does not read it"
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    image = node.GetImageData()
    array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(image.GetDimensions()[::-1]).T
    yield array.copy(), np.array([[matrix.GetElement(i, j) for j in range(4)] for i in range(4)])


def _pydicom(source: Path) -> Iterator[Grid]:
    """Each image by the standard's own equation (PS3.3, C.7.6.2.1.1)."""
    for file in dicom_files(source):
        dataset = pydicom.dcmread(file)
        frames = dataset.get("PerFrameFunctionalGroupsSequence")
        pixels = (
            dataset.pixel_array if "JPEG Lossless" not in dataset.file_meta.TransferSyntaxUID.name else _by_itk(file)
        )
        for n, image in enumerate(pixels.reshape(-1, dataset.Rows, dataset.Columns)):
            groups = [dataset] if frames is None else [frames[n], dataset.SharedFunctionalGroupsSequence[0]]

            def find(keyword: str, default: Any = None, groups: Sequence[Dataset] = groups) -> Any:
                found = (item[keyword].value for group in groups for item in _all(group) if keyword in item)
                return next(found, default)

            values = image.astype(np.float64) * float(find("RescaleSlope", 1)) + float(find("RescaleIntercept", 0))
            between_rows, between_columns = find("PixelSpacing")
            along_row, along_column = np.reshape(find("ImageOrientationPatient"), (2, 3)).astype(float)
            lps = np.eye(4)
            lps[:3, 0], lps[:3, 1] = along_row * float(between_columns), along_column * float(between_rows)
            lps[:3, 2], lps[:3, 3] = np.cross(along_row, along_column), find("ImagePositionPatient")
            yield values.T[..., None], LPS_TO_RAS @ lps


def _all(group: Dataset) -> Iterator[Dataset]:
    yield group
    for element in group:
        if element.VR == "SQ" and element.keyword not in ("PerFrameFunctionalGroupsSequence",):
            for item in element.value:
                yield from _all(item)


def _by_itk(file: Path) -> np.ndarray:
    """Return the stored values of an encoding that pydicom cannot decode, if nothing is rescaled."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(file)))


def _is_dicom(file: Path) -> bool:
    return not re.search(r"\.(nii|nii\.gz|nrrd|nhdr|mha|mhd|png|jpg|tif)$", file.name.lower())


READERS: dict[str, Callable[[Path], Iterator[Grid]]] = {
    "nibabel": _nibabel,
    "SimpleITK": _simpleitk,
    "Slicer": _slicer,
    "pydicom": _pydicom,
}
