"""What other programs read from a file: values and their positions."""

from __future__ import annotations

import gzip
import io
import json
import re
import tempfile
import zipfile
import zlib
from pathlib import Path

import nrrd
import numpy as np
import pydicom
import SimpleITK
import tifffile
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from medclipad.volume import Volume
from tests.volume.volume_cases import load_nifti

_CLASSES = (CTImageStorage, MRImageStorage)
LPS = np.diag((-1.0, -1.0, 1.0, 1.0))
Seen = tuple[NDArray, NDArray | None]
"""(I, J, K) values and affine, RAS; None if the program gives no position."""


DAMAGE = (zlib.error, EOFError, gzip.BadGzipFile)
"""What a second reader raises over compressed voxels that are cut off or have a wrong checksum: ours must, too."""


class CannotSay(Exception):
    """The second reader does not read this file either, or reads something of another kind."""


def second_view(path: Path) -> Seen:
    """Return the volume as the second reader of its format reads it; raise CannotSay if that fails, except DAMAGE."""
    suffix = "".join(path.suffixes[-2:]) if path.name.endswith(".nii.gz") else path.suffix.lower()
    readers = {
        ".nii": by_nibabel, ".nii.gz": by_nibabel, ".nrrd": by_pynrrd, ".nhdr": by_pynrrd, ".mha": by_own_meta,
        ".mhd": by_own_meta, ".tif": by_tifffile, ".png": picture_by_itk, ".jpg": picture_by_itk,
    }  # fmt: skip
    try:
        array, affine = readers[suffix](path)
    except DAMAGE:
        raise
    except Exception as error:
        raise CannotSay(str(error)[:100]) from error
    shape = [*array.shape, 1, 1, 1][: max(3, array.ndim)]
    while len(shape) > 3 and shape[-1] == 1:
        shape.pop()
    return array.reshape(shape), affine


def difference(volume: Volume, seen: Seen) -> str:
    """Return how two views of a file differ by more than rounding and 1e-3 mm; "" if they agree."""
    array, affine = seen
    if array.shape != volume.shape:
        return f"shape {volume.shape} against {array.shape}"
    ours, theirs = volume.array.astype(np.float64), array.astype(np.float64)
    least = 1e-12 * np.abs(theirs[np.isfinite(theirs)]).max(initial=0)
    with np.errstate(all="ignore"):
        same = np.isclose(ours, theirs, rtol=1e-5, atol=least, equal_nan=True)
    if not same.all():
        return f"{np.count_nonzero(~same)} of {same.size} values"
    if affine is None:
        return ""
    corners = np.array(np.meshgrid(*([0, n - 1] for n in volume.shape), [1])).reshape(4, -1)
    apart = np.abs((volume.affine - affine)[:3] @ corners).max()
    scale = np.abs(affine[:3] @ corners).max()
    return "" if apart <= 1e-3 + 1e-6 * scale else f"positions {apart:.3g} mm apart"


def by_nibabel(path: Path) -> Seen:
    """Return a NIfTI file as nibabel reads it."""
    image = load_nifti(path)
    return np.asanyarray(image.dataobj), image.affine


def by_itk(path: Path, image_io: str = "") -> tuple[NDArray, NDArray]:
    """Return any file as ITK reads it, with one of its readers or the one it chooses."""
    image = SimpleITK.ReadImage(str(path), imageIO=image_io)
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = array[..., 0]
    lps = np.eye(4)
    n = image.GetDimension()
    lps[:n, :n] = np.reshape(image.GetDirection(), (n, n)) * image.GetSpacing()
    lps[:n, 3] = image.GetOrigin()
    return array.T, LPS @ lps


def picture_by_itk(path: Path) -> Seen:
    """Return a picture as ITK reads it, without a position: ITK derives a spacing from the resolution for printing."""
    return by_itk(path)[0], None


def by_gdcm(path: Path) -> list[tuple[NDArray, NDArray]]:
    """Return the image of a DICOM file as GDCM reads it; raise CannotSay if GDCM changes values or spacing."""
    header = pydicom.dcmread(io.BytesIO(path.read_bytes()), force=True, stop_before_pixels=True)
    if header.get("SOPClassUID") not in _CLASSES:
        raise CannotSay("GDCM assumes a spacing of 1 mm for image classes that it does not know")
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        raise CannotSay("GDCM inverts MONOCHROME1")
    array, affine = by_itk(path, "GDCMImageIO")
    spacing = np.linalg.norm(affine[:3, 1::-1], axis=0)
    if (spacing == 1).all() and not np.allclose(spacing, np.array(header.PixelSpacing, float)):
        raise CannotSay("GDCM assumed a spacing of 1 mm: it did not know the image class")
    if array.ndim != 3:
        raise CannotSay("not slices")
    return [(array, affine)]


def by_pydicom(path: Path) -> list[tuple[NDArray, NDArray]]:
    """Return each frame of a DICOM file by the equation of the standard (PS3.3, C.7.6.2.1.1)."""
    dataset = pydicom.dcmread(io.BytesIO(path.read_bytes()), force=True)
    dataset.file_meta.setdefault("TransferSyntaxUID", ExplicitVRLittleEndian)
    shared = dataset.get("SharedFunctionalGroupsSequence") or []
    frames = dataset.get("PerFrameFunctionalGroupsSequence") or [dataset]
    seen = []
    for pixels, frame in zip(dataset.pixel_array.reshape(-1, dataset.Rows, dataset.Columns), frames, strict=True):
        tags = {}
        for group in (*shared, frame):
            tags |= {element.keyword: element.value for element in group.iterall()}
        along_row, along_column = np.reshape(tags["ImageOrientationPatient"], (2, 3)).astype(float)
        between_rows, between_columns = tags["PixelSpacing"]
        lps = np.eye(4)
        lps[:3, 0], lps[:3, 1] = along_row * float(between_columns), along_column * float(between_rows)
        lps[:3, 2], lps[:3, 3] = np.cross(along_row, along_column), tags["ImagePositionPatient"]
        values = pixels * float(tags.get("RescaleSlope") or 1) + float(tags.get("RescaleIntercept") or 0)
        seen.append((values.T[..., None], LPS @ lps))
    return seen


def missing_slice(volume: Volume, folder: Path) -> str:
    """Return how a DICOM volume differs from its files as GDCM, or else pydicom, reads them one by one.

    "" means that all of them are in it, at their positions.
    """
    if folder.name == "DICOMDIR":
        folder = folder.parent
    files = sorted(file for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else [folder]
    found = 0
    for file in files:
        if file.name == "DICOMDIR":
            continue
        for array, affine in _frames(file):
            voxels = np.vstack([np.indices(array.shape).reshape(3, -1), np.ones(array.size)])
            index = np.linalg.solve(volume.affine, affine @ voxels)[:3]
            if np.abs(index - index.round()).max() * max(volume.spacing) > 0.2:  # OFF_GRID of dicom.grid, both ways
                return f"{file.name} lies between the voxels"
            index = index.round().astype(int)
            if (index < 0).any() or (volume.shape <= index.T).any():
                return f"{file.name} lies outside"
            ours = volume.array[tuple(index)]
            if not np.allclose(ours.astype(float), array.ravel().astype(float), rtol=1e-4, atol=1e-3):
                return f"{file.name} has other values"
            found += array.shape[2]
    return "" if found == volume.shape[2] else f"{found} slices, not {volume.shape[2]}"


def _frames(file: Path) -> list[tuple[NDArray, NDArray]]:
    """Return the frames of a DICOM file by the first reader that reads it."""
    try:
        return by_gdcm(file)
    except Exception:  # readers fail on damage in dozens of ways; try the next one
        try:
            return by_pydicom(file)
        except Exception as error:
            raise CannotSay(f"{type(error).__name__}: {error}"[:100]) from error


def in_zip(volume: Volume, archive: Path) -> str:
    """Do as `missing_slice` for the files in a zip archive, by Python's zipfile, also for those of the same name."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(archive) as opened:
                for number, member in enumerate(opened.infolist()):
                    opened.extract(member, Path(folder) / str(number))
        except Exception as error:
            raise CannotSay(str(error)[:100]) from error
        return missing_slice(volume, Path(folder))


def by_pynrrd(path: Path) -> Seen:
    """Return an NRRD file as pynrrd reads it."""
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
    """Return a MetaImage file by its documentation, https://itk.org/Wiki/ITK/MetaIO/Documentation, as far as needed."""
    data = path.read_bytes()
    last = re.search(rb"^ElementDataFile *[=:].*\n", data, re.MULTILINE)
    if last is None:
        raise CannotSay("no ElementDataFile")
    lines = data[: last.end()].decode("latin-1").split("\n")
    fields = {
        "BinaryData": "True",
        "Offset": "0 0 0",
        "ElementSpacing": "1 1 1",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    }
    pairs = (re.split("[=:]", line, maxsplit=1) for line in lines)
    fields |= {key.strip(" \t\r"): value.strip(" \t\r") for key, *rest in pairs for value in rest}
    name = fields["ElementDataFile"]
    voxels = data[last.end() :] if name == "LOCAL" else (path.parent / name).read_bytes()
    if fields.get("CompressedData") == "True":
        voxels = zlib.decompress(voxels[: int(fields["CompressedDataSize"])])
    dtype = {"MET_SHORT": "i2", "MET_USHORT": "u2", "MET_UCHAR": "u1", "MET_CHAR": "i1", "MET_INT": "i4",
            "MET_FLOAT": "f4"}[fields["ElementType"]]  # fmt: skip
    order = ">" if fields.get("BinaryDataByteOrderMSB", "False") == "True" else "<"
    size = [int(n) for n in fields["DimSize"].split()]
    if fields["BinaryData"] != "True" or fields.get("ElementNumberOfChannels", "1") != "1" or len(size) != 3:
        raise CannotSay("not binary scalars in three dimensions")
    array = np.frombuffer(voxels[: int(np.prod(size)) * int(dtype[1])], order + dtype).reshape(size, order="F")
    lps = np.eye(4)
    matrix = np.array(fields["TransformMatrix"].split(), float).reshape(3, 3)  # one row per axis
    lps[:3, :3] = matrix.T * np.array(fields["ElementSpacing"].split(), float)
    lps[:3, 3] = np.array(fields["Offset"].split(), float)
    return array, LPS @ lps


def by_tifffile(path: Path) -> Seen:
    """Return the pages of a TIFF as tifffile reads them."""
    with tifffile.TiffFile(path) as file:
        pages = [np.asarray(page.asarray()) for page in file.pages]
    stack = np.stack(pages, axis=-1)
    return (stack.transpose(1, 0, 2) if stack.ndim == 3 else stack[..., 0, :].transpose(1, 0, 2)), None


def second_detector(folder: Path) -> tuple[dict, dict[str, NDArray]]:
    """Return detector.json and the weights of a detector folder, by json and safetensors alone."""
    from safetensors.numpy import load_file

    text = (folder / "detector.json").read_text()
    return json.loads(text, parse_int=float), load_file(folder / "weights.safetensors")


def second_checkpoint(path: Path) -> list[bytes]:
    """Return the bytes of each tensor in a checkpoint by zipfile, which compares checksums."""
    with zipfile.ZipFile(path) as opened:
        names = [name for name in opened.namelist() if "/data/" in name.lower()]  # as torch finds them
        return [opened.read(name) for name in sorted(names, key=lambda name: int(name.rsplit("/", 1)[1]))]
