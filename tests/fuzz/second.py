"""What other programs see in a file: values, and where they lie."""

from __future__ import annotations

import gzip
import io
import json
import re
import tempfile
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import nrrd
import numpy as np
import pydicom
import SimpleITK
import tifffile
from numpy.typing import NDArray
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, MRImageStorage

from medclipad.volume import Volume

_CLASSES = (CTImageStorage, MRImageStorage)
LPS = np.diag((-1.0, -1.0, 1.0, 1.0))
Seen = tuple[NDArray, NDArray | None]
"""(I, J, K) values and affine, RAS; None where the program gives no place."""


DAMAGE = (zlib.error, EOFError, gzip.BadGzipFile)
"""What a second reader raises over compressed voxels that are cut off or have another checksum: ours must, too."""


class CannotSay(Exception):
    """The second reader does not read this file either, or sees another kind of thing in it."""


def second_view(path: Path) -> Seen:
    """The volume as the second reader of its kind sees it; CannotSay where that fails, but for DAMAGE."""
    kind = "".join(path.suffixes[-2:]) if path.name.endswith(".nii.gz") else path.suffix.lower()
    readers = {
        ".nii": by_nibabel, ".nii.gz": by_nibabel, ".nrrd": by_pynrrd, ".nhdr": by_pynrrd, ".mha": by_own_meta,
        ".mhd": by_own_meta, ".tif": by_tifffile, ".png": picture_by_itk, ".jpg": picture_by_itk,
    }  # fmt: skip
    try:
        array, affine = readers[kind](path)
    except DAMAGE:
        raise
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
    return "" if apart <= 1e-3 + 1e-6 * scale else f"places {apart:.3g} mm apart"


def by_nibabel(path: Path) -> Seen:
    image = nib.load(path)
    return np.asanyarray(image.dataobj), image.affine


def by_itk(path: Path, kind: str = "") -> Seen:
    image = SimpleITK.ReadImage(str(path), imageIO=kind)
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = array[..., 0]
    lps = np.eye(4)
    n = image.GetDimension()
    lps[:n, :n] = np.reshape(image.GetDirection(), (n, n)) * image.GetSpacing()
    lps[:n, 3] = image.GetOrigin()
    return array.T, LPS @ lps


def picture_by_itk(path: Path) -> Seen:
    """Without a place: ITK makes a spacing of the density for printing."""
    return by_itk(path)[0], None


def by_gdcm(path: Path) -> list[Seen]:
    """The image of a DICOM file; of GDCM's only where it shows stored values and spacing as they are."""
    header = pydicom.dcmread(io.BytesIO(path.read_bytes()), force=True, stop_before_pixels=True)
    if header.get("SOPClassUID") not in _CLASSES:
        raise CannotSay("GDCM takes a spacing of 1 mm for kinds of images that it does not know")
    if header.get("PhotometricInterpretation") == "MONOCHROME1":
        raise CannotSay("GDCM inverts MONOCHROME1")
    array, affine = by_itk(path, "GDCMImageIO")
    spacing = np.linalg.norm(affine[:3, 1::-1], axis=0)
    if (spacing == 1).all() and not np.allclose(spacing, np.array(header.PixelSpacing, float)):
        raise CannotSay("GDCM took a spacing of 1 mm: it did not know what the file is")
    if array.ndim != 3:
        raise CannotSay("not slices")
    return [(array, affine)]


def by_pydicom(path: Path) -> list[Seen]:
    """Each frame of a DICOM file by the equation of the standard (PS3.3, C.7.6.2.1.1)."""
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
    """How a DICOM volume differs from its files as GDCM, or pydicom where that fails, reads them one by one; "" where
    all are in it, at their place."""
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
            if np.abs(index - index.round()).max() * max(volume.spacing) > 0.2:  # dicom_grid.OFF_GRID both ways
                return f"{file.name} lies between the voxels"
            index = index.round().astype(int)
            if (index < 0).any() or (volume.shape <= index.T).any():
                return f"{file.name} lies outside"
            ours = volume.array[tuple(index)]
            if not np.allclose(ours.astype(float), array.ravel().astype(float), rtol=1e-4, atol=1e-3):
                return f"{file.name} has other values"
            found += array.shape[2]
    return "" if found == volume.shape[2] else f"{found} slices, not {volume.shape[2]}"


def _frames(file: Path) -> list[Seen]:
    try:
        return by_gdcm(file)
    except Exception:  # readers fail on damage in dozens of ways; the next one is asked
        try:
            return by_pydicom(file)
        except Exception as error:
            raise CannotSay(f"{type(error).__name__}: {error}"[:100]) from error


def in_zip(volume: Volume, archive: Path) -> str:
    """As `missing_slice`, of the files that Python's own zipfile finds in an archive, also of those of one name."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            with zipfile.ZipFile(archive) as opened:
                for number, member in enumerate(opened.infolist()):
                    opened.extract(member, Path(folder) / str(number))
        except Exception as error:
            raise CannotSay(str(error)[:100]) from error
        return missing_slice(volume, Path(folder))


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
    end = re.search(rb"^ElementDataFile *[=:].*\n", data, re.MULTILINE)
    lines = data[: end.end()].decode("latin-1").split("\n")
    fields = {
        "BinaryData": "True",
        "Offset": "0 0 0",
        "ElementSpacing": "1 1 1",
        "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    }
    pairs = (re.split("[=:]", line, maxsplit=1) for line in lines)
    fields |= {key.strip(" \t\r"): value.strip(" \t\r") for key, *rest in pairs for value in rest}
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


def second_checkpoint(path: Path) -> list[bytes]:
    """The bytes of each tensor in a checkpoint, as zipfile, which compares checksums, finds them."""
    with zipfile.ZipFile(path) as opened:
        names = [name for name in opened.namelist() if "/data/" in name.lower()]  # as torch looks for them
        return [opened.read(name) for name in sorted(names, key=lambda name: int(name.rsplit("/", 1)[1]))]
