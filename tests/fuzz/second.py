"""What other programs see in a file: values, and where they lie."""

from __future__ import annotations

import json
import re
import zlib
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import SimpleITK
import tifffile
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, MRImageStorage

from medclipad.volume import Volume

_CLASSES = (CTImageStorage, MRImageStorage)
LPS = np.diag((-1.0, -1.0, 1.0, 1.0))
Seen = tuple[NDArray, NDArray | None]
"""(I, J, K) values and affine, RAS; None where the program gives no place."""


class CannotSay(Exception):
    """The second reader does not read this file either, or sees another kind of thing in it."""


def second_view(path: Path) -> Seen:
    """The volume as the second reader of its kind sees it; CannotSay where that fails."""
    kind = "".join(path.suffixes[-2:]) if path.name.endswith(".nii.gz") else path.suffix.lower()
    readers = {
        ".nii": by_nibabel, ".nii.gz": by_nibabel, ".nrrd": by_pynrrd, ".nhdr": by_pynrrd, ".mha": by_own_meta,
        ".mhd": by_own_meta, ".tif": by_tifffile, ".png": by_itk, ".jpg": by_itk,
    }  # fmt: skip
    try:
        array, affine = readers[kind](path)
    except Exception as error:
        raise CannotSay(str(error)[:100]) from error
    array = array.reshape(array.shape + (1,) * (3 - array.ndim))
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    return array, affine


def difference(volume: Volume, seen: Seen) -> str:
    """How two views of a file differ by more than rounding and 1e-3 mm; "" where they agree."""
    array, affine = seen
    if array.shape != volume.shape:
        return f"shape {volume.shape} against {array.shape}"
    with np.errstate(all="ignore"):
        same = np.isclose(volume.array.astype(np.float64), array.astype(np.float64), rtol=1e-5, atol=0, equal_nan=True)
    if not same.all():
        return f"{np.count_nonzero(~same)} of {same.size} values"
    if affine is None:
        return ""
    corners = np.array(np.meshgrid(*([0, n - 1] for n in volume.shape), [1])).reshape(4, -1)
    apart = np.abs((volume.affine - affine)[:3] @ corners).max()
    scale = np.abs(affine[:3] @ corners).max()
    return "" if apart <= 1e-3 + 1e-6 * scale else f"places {apart:.3g} mm apart"


def by_nibabel(path: Path) -> Seen:
    image = nib.load(path)
    return np.asanyarray(image.dataobj), image.affine


def by_itk(path: Path) -> Seen:
    image = SimpleITK.ReadImage(str(path))
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = array[..., 0]
    lps = np.eye(4)
    n = image.GetDimension()
    lps[:n, :n] = np.reshape(image.GetDirection(), (n, n)) * image.GetSpacing()
    lps[:n, 3] = image.GetOrigin()
    return array.T, LPS @ lps


def _class_of(file: Path) -> str:
    return str(pydicom.dcmread(file, force=True, stop_before_pixels=True).get("SOPClassUID", ""))


def missing_slice(volume: Volume, folder: Path) -> str:
    """How a DICOM volume differs from its files as GDCM reads them one by one; "" where all are in it, at their place.

    A file that GDCM does not read, or shows in another way (MONOCHROME1), cannot be compared.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else [folder]
    found = 0
    for file in files:
        try:
            array, affine = by_itk(file)
        except RuntimeError as error:
            raise CannotSay(str(error)[-100:]) from error
        if _class_of(file) not in _CLASSES:
            raise CannotSay("GDCM takes a spacing of 1 mm for kinds of images that it does not know")
        if b"MONOCHROME1" in file.read_bytes()[:4000] or array.ndim != 3:
            raise CannotSay("GDCM inverts MONOCHROME1")
        corners = np.array(np.meshgrid(*([0, n // 2, n - 1] for n in array.shape), [1])).reshape(4, -1)
        index = np.linalg.solve(volume.affine, affine @ corners)[:3]
        if np.abs(index - index.round()).max() * max(volume.spacing) > 0.2:  # dicom_grid.OFF_GRID both ways
            return f"{file.name} lies between the voxels"
        index = index.round().astype(int)
        if (index < 0).any() or (volume.shape <= index.T).any():
            return f"{file.name} lies outside"
        ours, theirs = volume.array[tuple(index)], array[tuple(corners[:3].astype(int))]
        if not np.allclose(ours.astype(float), theirs.astype(float), rtol=1e-4, atol=1e-3):
            return f"{file.name} has other values"
        found += array.shape[2]
    return "" if found == volume.shape[2] else f"{found} slices, not {volume.shape[2]}"


def by_pynrrd(path: Path) -> Seen:
    array, header = nrrd.read(str(path))
    space = str(header.get("space", "left-posterior-superior")).lower()
    signs = {"left-posterior-superior": (-1, -1, 1), "lps": (-1, -1, 1), "right-anterior-superior": (1, 1, 1),
             "ras": (1, 1, 1), "left-anterior-superior": (-1, 1, 1), "las": (-1, 1, 1)}.get(space)  # fmt: skip
    directions, origin = header.get("space directions"), header.get("space origin")
    if signs is None or directions is None or origin is None or np.shape(directions) != (3, 3):
        return array, None
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = np.transpose(directions), origin
    return array, np.diag((*signs, 1.0)) @ affine


def by_own_meta(path: Path) -> Seen:
    """MetaImage as its documentation says, https://itk.org/Wiki/ITK/MetaIO/Documentation, for what our seeds hold."""
    data = path.read_bytes()
    end = re.search(rb"^ElementDataFile = (.*)\n", data, re.MULTILINE)
    lines = data[: end.end()].decode().splitlines()
    fields = dict(line.split(" = ", 1) for line in lines)
    if len(fields) != len(lines):
        raise CannotSay("a field twice")
    name = fields["ElementDataFile"]
    voxels = data[end.end() :] if name == "LOCAL" else (path.parent / name).read_bytes()
    if fields.get("CompressedData") == "True":
        voxels = zlib.decompress(voxels[: int(fields["CompressedDataSize"])])
    kind = {"MET_SHORT": "i2", "MET_USHORT": "u2", "MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_INT": "i4",
            "MET_FLOAT": "f4"}[fields["ElementType"]]  # fmt: skip
    order = ">" if fields.get("BinaryDataByteOrderMSB", "False") == "True" else "<"
    size = [int(n) for n in fields["DimSize"].split()]
    if fields["BinaryData"] != "True" or fields.get("ElementNumberOfChannels", "1") != "1" or len(size) != 3:
        raise CannotSay("not binary scalars in three dimensions")
    array = np.frombuffer(voxels[: int(np.prod(size)) * int(kind[1])], order + kind).reshape(size, order="F")
    lps = np.eye(4)
    matrix = np.array(fields["TransformMatrix"].split(), float).reshape(3, 3)  # a line for each axis
    lps[:3, :3] = matrix.T * np.array(fields["ElementSpacing"].split(), float)
    lps[:3, 3] = np.array(fields["Offset"].split(), float)
    return array, LPS @ lps


def by_tifffile(path: Path) -> Seen:
    with tifffile.TiffFile(path) as file:
        pages = [page.asarray() for page in file.pages]
    stack = np.stack(pages, axis=-1)
    return (stack.transpose(1, 0, 2) if stack.ndim == 3 else stack[..., 0, :].transpose(1, 0, 2)), None


def second_detector(folder: Path) -> tuple[dict, dict[str, NDArray]]:
    from safetensors.numpy import load_file

    text = (folder / "detector.json").read_text()
    return json.loads(text, parse_int=float), load_file(folder / "weights.safetensors")
