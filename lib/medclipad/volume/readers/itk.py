"""Read NRRD and MetaImage with SimpleITK, and convert its LPS millimetres to RAS."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import SimpleITK

from medclipad.errors import VolumeError
from medclipad.volume.components import Component, select_component
from medclipad.volume.memory_budget import in_words, require_allowed, require_memory
from medclipad.volume.read_errors import itk_path, require_enough_bytes, volume_errors
from medclipad.volume.readers.itk_checks import check_header, check_text, check_voxels
from medclipad.volume.volume import LPS_TO_RAS, Volume, check_affine

READERS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}
"""ITK's reader for each suffix."""


def read_itk(path: Path, component: Component, name: str) -> Volume:
    """Read a .nrrd, .nhdr, .mha or .mhd file.

    Parameters
    ----------
    path
        The file, or the header of a detached one.
    component
        Index of the component or time point to read, if there are several.
    name
        Name of the case.

    Raises
    ------
    VolumeError
        If the file cannot be read as one volume at one position, or does not fit into memory.
    """
    suffix = path.suffix.lower()
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(itk_path(path))
    reader.SetImageIO(READERS[suffix])
    with volume_errors(path):
        notes = check_header(path)
        reader.ReadImageInformation()
        shape = (*reader.GetSize(), reader.GetNumberOfComponents())
        size = np.prod(shape, dtype=float) * _component_bytes(reader)
        require_allowed(size, path.name, reader.GetSize())
        if suffix in (".nrrd", ".mha"):
            require_enough_bytes(path, size)
        check_voxels(path, int(size))
        # Twice: ITK's image and our copy of it, or, while ITK reads, the compressed voxels and the image.
        require_memory(2 * size, path.name, f"reading {in_words(reader.GetSize())}")
        image = reader.Execute()
        components = image.GetNumberOfComponentsPerPixel()
        keys = {
            key: image.GetMetaData(key) for key in ("NRRD_space", "modality", "Modality") if image.HasMetaDataKey(key)
        }
        segments = _segments(image)
    if "complex" in image.GetPixelIDTypeAsString():
        raise VolumeError(f"{path.name}: its voxels are complex numbers; save their magnitude as a real image.")
    dimension = image.GetDimension()
    # ITK's array is (K, J, I) with components last.
    array = SimpleITK.GetArrayFromImage(image)
    array = array.transpose(*reversed(range(dimension)), *range(dimension, array.ndim))
    if components == 1 and READERS[suffix] == "NrrdImageIO":
        with volume_errors(path):
            check_text(path, array)
    array = np.expand_dims(array, 2) if dimension == 2 else array
    n = min(dimension, 3)
    lps = np.eye(4)
    lps[:n, :n] = (np.reshape(image.GetDirection(), (dimension, dimension)) * image.GetSpacing())[:n, :n]
    lps[:n, 3] = image.GetOrigin()[:n]
    check_affine(lps, path.name)
    if dimension == 2:
        notes.append("a 2D image has no slice thickness; 1 mm is assumed")
    # ITK converts every space that it knows to this one.
    if READERS[suffix] == "NrrdImageIO" and keys.get("NRRD_space") != "left-posterior-superior":
        notes.append("the file gives no orientation; its axes are assumed to be left, posterior, superior")
    chosen = select_component(array, component, path.name)
    return Volume(
        chosen if chosen.size == array.size else chosen.copy(order="K"),
        LPS_TO_RAS @ lps + 0.0,  # + 0.0: no negative zeros
        name=name,
        modality=_modality(keys.get("modality") or keys.get("Modality", "")),
        metadata={
            "format": READERS[suffix].removesuffix("ImageIO"),
            "notes": notes,
            **({"segments": segments} if segments else {}),
        },
    )


def itk_image(array: np.ndarray, affine: np.ndarray) -> SimpleITK.Image:
    """Return an array on a grid as an ITK image.

    Parameters
    ----------
    array
        (I, J, K) voxels of a type that ITK has.
    affine
        (4, 4), voxel index to RAS+ mm.
    """
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _component_bytes(reader: SimpleITK.ImageFileReader) -> int:
    """Return the bytes of one component of a voxel, from a text such as "vector of 16-bit signed integer"."""
    text = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    bits = re.search(r"(\d+)-bit", text)
    return (int(bits[1]) if bits else 64) // 8 * (2 if "complex" in text else 1)


def _segments(image: SimpleITK.Image) -> dict[str, str]:
    """Return the names of the segments of a .seg.nrrd, which 3D Slicer writes, by their value in the label map."""
    names = {}
    for key in image.GetMetaDataKeys():
        found = re.fullmatch(r"(Segment\d+_)Name", key)
        if found and image.HasMetaDataKey(f"{found[1]}LabelValue"):
            names[image.GetMetaData(f"{found[1]}LabelValue").strip()] = image.GetMetaData(key)
    return names


def _modality(text: str) -> str | None:
    """Return the DICOM modality that a header field names, or None."""
    text = text.upper().removeprefix("MET_MOD_").replace("DWMRI", "MR")
    return text if text in ("CT", "MR", "PT", "NM", "US") else None
