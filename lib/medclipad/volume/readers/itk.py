"""NRRD and MetaImage by SimpleITK, whose LPS millimetres become RAS."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import SimpleITK

from medclipad.errors import VolumeError
from medclipad.volume.components import one_component
from medclipad.volume.memory_budget import in_words, require_memory
from medclipad.volume.read_errors import damage_named, itk_name, require_enough_bytes
from medclipad.volume.readers.itk_checks import check_header, check_text, check_voxels
from medclipad.volume.volume import LPS_TO_RAS, Volume, check_affine

READERS = {".nrrd": "NrrdImageIO", ".nhdr": "NrrdImageIO", ".mha": "MetaImageIO", ".mhd": "MetaImageIO"}


def read_itk(path: Path, component: int | None, name: str) -> Volume:
    """A .nrrd, .nhdr, .mha or .mhd file; see `read_volume`."""
    suffix = path.suffix.lower()
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(itk_name(path))
    reader.SetImageIO(READERS[suffix])
    with damage_named(path):
        notes = check_header(path)
        reader.ReadImageInformation()
        shape = (*reader.GetSize(), reader.GetNumberOfComponents())
        wanted = np.prod(shape, dtype=float) * _bytes_each(reader)
        if suffix in (".nrrd", ".mha"):
            require_enough_bytes(path, wanted)
        check_voxels(path, int(wanted))
        # Twice: ITK's image and our copy of it, or while ITK reads the compressed voxels and the image.
        require_memory(2 * wanted, path.name, f"reading {in_words(reader.GetSize())}")
        image = reader.Execute()
        components = image.GetNumberOfComponentsPerPixel()
        keys = {
            key: image.GetMetaData(key) for key in ("NRRD_space", "modality", "Modality") if image.HasMetaDataKey(key)
        }
    if "complex" in image.GetPixelIDTypeAsString():
        raise VolumeError(f"{path.name}: its voxels are complex numbers; save their magnitude as a real image.")
    dimension = image.GetDimension()
    # ITK's array is (K, J, I) with components last.
    array = SimpleITK.GetArrayFromImage(image)
    array = array.transpose(*reversed(range(dimension)), *range(dimension, array.ndim))
    if components == 1 and READERS[suffix] == "NrrdImageIO":
        with damage_named(path):
            check_text(path, array)
    array = np.expand_dims(array, 2) if dimension == 2 else array
    n = min(dimension, 3)
    lps = np.eye(4)
    lps[:n, :n] = (np.reshape(image.GetDirection(), (dimension, dimension)) * image.GetSpacing())[:n, :n]
    lps[:n, 3] = image.GetOrigin()[:n]
    check_affine(lps, path.name)
    if dimension == 2:
        notes.append("a 2D image has no slice thickness; 1 mm is assumed")
    if (
        READERS[suffix] == "NrrdImageIO" and keys.get("NRRD_space") != "left-posterior-superior"
    ):  # as ITK names all it knows
        notes.append(
            "the file does not say how it lies in the patient; its axes are taken as left, posterior, superior"
        )
    chosen = one_component(array, component, path.name)
    return Volume(
        chosen if chosen.size == array.size else chosen.copy(order="K"),
        LPS_TO_RAS @ lps + 0.0,  # no negative zeros
        name=name,
        modality=_modality(keys.get("modality") or keys.get("Modality", "")),
        metadata={"format": READERS[suffix].removesuffix("ImageIO"), "notes": notes},
    )


def itk_image(array: np.ndarray, affine: np.ndarray) -> SimpleITK.Image:
    """(I, J, K) on a RAS affine as an ITK image."""
    lps = LPS_TO_RAS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image = SimpleITK.GetImageFromArray(array.transpose(2, 1, 0))
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _bytes_each(reader: SimpleITK.ImageFileReader) -> int:
    """Bytes of one component of a voxel, from a text such as "vector of 16-bit signed integer"."""
    text = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    bits = re.search(r"(\d+)-bit", text)
    return (int(bits[1]) if bits else 64) // 8 * (2 if "complex" in text else 1)


def _modality(text: str) -> str | None:
    text = text.upper().removeprefix("MET_MOD_").replace("DWMRI", "MR")
    return text if text in ("CT", "MR", "PT", "NM", "US") else None
