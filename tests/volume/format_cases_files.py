"""NIfTI, Analyze and other files, and the expected result for each; makers of files for other cases."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK

from tests.volume.format_case import Case, shared
from tests.volume.volume_cases import affine_of, ramp

AFFINE = affine_of((1, 2, 0), (1, -1, 1), (0.9, 1.1, 3.3), (11, -23, 5), (-88.7, 31.3, 12.9))
ALL = ("nibabel", "SimpleITK", "Slicer")
ITK = ("SimpleITK", "Slicer")


def values(dtype: Any = np.int16, shape: tuple[int, ...] = (9, 10, 11)) -> np.ndarray:
    return (ramp(shape) % 30011 - (0 if np.dtype(dtype).kind == "u" else 900)).astype(dtype)


def nifti(
    array=None,
    affine: np.ndarray | None = AFFINE,
    name="case.nii.gz",
    image_class=nib.Nifti1Image,
    change=lambda image: None,
    order="<",
):
    """Return a maker of a NIfTI file."""

    def make(folder: Path) -> Path:
        given = values() if array is None else array
        image = image_class(given, affine, image_class.header_class(endianness=order), dtype=given.dtype)
        if affine is not None:
            image.set_qform(affine, code=1)
            image.set_sform(affine, code=1)
        change(image)
        image.to_filename(folder / name)
        return folder / name

    return make


def itk(name, array=None, packed=True, vector=False, change=lambda image: None):
    def make(folder: Path) -> Path:
        given = values() if array is None else array
        image = SimpleITK.GetImageFromArray(given.T if not vector else np.moveaxis(given.T, 0, -1), isVector=vector)
        if image.GetDimension() == 3:
            lps = np.diag((-1, -1, 1, 1)) @ AFFINE
            spacing = np.linalg.norm(lps[:3, :3], axis=0)
            image.SetSpacing(spacing.tolist())
            image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
            image.SetOrigin(lps[:3, 3].tolist())
        change(image)
        SimpleITK.WriteImage(image, str(folder / name), packed)
        return folder / name

    return make


def edited(make, *changes: tuple[bytes, bytes] | Callable[[bytes], bytes]):
    """Return a maker of another case's file with bytes replaced: pairs (old, new), or a function of all bytes."""

    def made(folder: Path) -> Path:
        path = make(folder)
        data = path.read_bytes()
        for change in changes:
            if isinstance(change, tuple):
                old, new = change
                assert old in data
                data = data.replace(old, new)
            else:
                data = change(data)
        path.write_bytes(data)
        return path

    return made


def written(name: str, content: bytes):
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def analyze(folder: Path) -> Path:
    nib.AnalyzeImage(values(), None).to_filename(folder / "case.img")
    return folder / "case.img"


def pair(folder: Path) -> Path:
    nib.Nifti1Pair(values(), AFFINE).to_filename(folder / "case.img")
    return folder / "case.hdr"


def bit_flipped(data: bytes) -> bytes:
    """Return bytes with a wrong bit in the middle."""
    broken = bytearray(data)
    broken[len(data) // 2] ^= 0x10
    return bytes(broken)


def _torn(image: nib.Nifti1Image) -> None:
    image.set_qform(affine_of(origin=(0, 0, 25)), code=1)
    image.set_sform(AFFINE, code=2)


def _scaled(image: nib.Nifti1Image) -> None:
    image.header.set_slope_inter(0.25, -7)


_CHANNELS = np.ascontiguousarray(np.moveaxis(values(np.uint8, (3, 9, 10, 11)), 0, -1))
_RGB = _CHANNELS.view(np.dtype([(channel, "u1") for channel in "RGB"]))[..., 0]
THREE_COMPONENTS = "it has 3 components or time points; choose one with component=0 to 2"
_BOMB = nib.Nifti1Header()
_BOMB.set_data_shape((30000, 30000, 30000))
_BOMB.set_data_dtype(np.float64)
_BOMB["vox_offset"], _BOMB["magic"] = 352, b"n+1"


def header(header_class: type = nib.Nifti1Header, /, **fields: Any):
    """Return a change of the header fields of a little-endian `.nii`, to values that no library would write."""

    def change(data: bytes) -> bytes:
        dtype = header_class.template_dtype.newbyteorder("<")
        record: Any = np.frombuffer(data, dtype, count=1).copy()  # a structured array, whose fields have no types
        for field, value in fields.items():
            record[field][0] = value
        return record.tobytes() + data[dtype.itemsize :]

    return change


NIFTI = [
    Case("NIfTI-1, `.nii.gz`, oblique", nifti(), readers=ALL),
    Case("NIfTI-1, `.nii`", nifti(name="case.nii"), readers=ALL),
    Case("NIfTI-1, big-endian", nifti(order=">"), readers=ALL),
    Case(
        "NIfTI-2",
        nifti(image_class=nib.Nifti2Image),
        readers=("nibabel",),
        remark="ITK and Slicer do not read it: maps are NIfTI-1 where that holds the affine",
        misplaced=ITK,
    ),
    *(
        Case(f"NIfTI of {np.dtype(t).name}", nifti(values(t) % 120), readers=ALL)
        for t in ("u1", "i1", "u2", "u4", "i4", "f4", "f8")
    ),
    Case("NIfTI with slope and intercept", nifti(change=_scaled), readers=ALL, remark="as float32"),
    Case("NIfTI with qform only", nifti(change=lambda i: i.set_sform(None, code=0)), readers=ALL),
    Case("NIfTI with sform only", nifti(change=lambda i: i.set_qform(None, code=0)), readers=ALL),
    Case(
        "NIfTI, sform and qform disagree",
        nifti(change=_torn),
        note="its sform and qform lie up to",
        readers=("nibabel",),
        remark="the sform wins, as in nibabel; ITK, and Slicer with it, may take the qform",
        misplaced=ITK,
    ),
    Case(
        "NIfTI with neither",
        nifti(affine=None),
        note="the file gives no orientation; its axes are assumed",
        readers=("nibabel",),
        remark="taken as by nibabel; ITK, and Slicer with it, guess another way",
        misplaced=ITK,
    ),
    Case(
        "NIfTI in micrometres",
        nifti(change=lambda i: i.header.set_xyzt_units("micron")),
        refused="its spacing is in units of micron; convert it to millimetres",
    ),
    Case(
        "NIfTI with qform only, its third axis reversed (qfac −1)",
        edited(nifti(name="case.nii"), header(sform_code=0, pixdim=[-1, 0.9, 1.1, 3.3, 1, 1, 1, 1])),
        readers=ALL,
    ),
    Case(
        "NIfTI with a spacing of 0",
        edited(nifti(name="case.nii"), header(sform_code=0, pixdim=[1, 0, 1.1, 3.3, 1, 1, 1, 1])),
        note="the file gives no spacing along an axis; 1 mm is assumed",
    ),
    Case(
        "NIfTI with a slope that float32 does not hold",
        edited(
            nifti(image_class=nib.Nifti2Image, name="case.nii"), header(nib.Nifti2Header, scl_slope=1e-300, scl_inter=0)
        ),
        readers=("nibabel",),
        remark="as float64",
        misplaced=ITK,
    ),
    Case(
        "NIfTI of slope 0.001 and intercept 100,000",
        edited(nifti(name="case.nii"), header(scl_slope=0.001, scl_inter=1e5)),
        readers=("nibabel",),
        remark="as float64: in float32, as ITK takes it, neighbouring values would become one",
    ),
    Case(
        "NIfTI with more slices than its header says",
        edited(nifti(name="case.nii"), header(dim=[3, 9, 10, 10, 1, 1, 1, 1])),
        refused="the file is damaged or not what its name says (it holds 180 more bytes of voxels than its header says",
    ),
    Case(
        "NIfTI whose voxels start within its header",
        edited(nifti(name="case.nii"), header(vox_offset=0)),
        refused="the file is damaged or not what its name says (its header says that its voxels start at byte 0, "
        "inside the header",
    ),
    Case(
        "NIfTI extension of gigabytes",
        edited(nifti(name="case.nii"), header(vox_offset=2e9), lambda d: d[:348] + b"\1\0\0\0\0\0\0\x70" + d[356:]),
        refused="the file is damaged or not what its name says (",
    ),
    Case("NIfTI with RGB voxels", nifti(_RGB), refused=THREE_COMPONENTS),
    Case("NIfTI with RGB voxels, a channel chosen", nifti(_RGB), options={"component": 1}),
    Case("NIfTI of complex numbers", nifti(values(np.complex64)), refused="its voxels are complex numbers"),
    Case("NIfTI, 4D", nifti(values(np.int16, (4, 5, 6, 3))), refused=THREE_COMPONENTS),
    Case("NIfTI, 4D, a time point chosen", nifti(values(np.int16, (4, 5, 6, 3))), options={"component": 2}),
    Case("NIfTI, 4D of one time point", nifti(values(np.int16, (4, 5, 6, 1))), readers=("nibabel",)),
    Case("NIfTI, 5D", nifti(values(np.int16, (4, 5, 2, 3, 2))), refused="it has 5 dimensions (4 x 5 x 2 x 3 x 2)"),
    Case("NIfTI, 2D", nifti(values(np.int16, (9, 10))), readers=("nibabel",)),
    Case(
        "NIfTI whose matrix is singular",
        edited(nifti(name="case.nii"), lambda d: d[:296] + bytes(16) + d[312:]),
        refused="its orientation matrix is singular, two axes point the same way",
    ),
    Case(
        "`.nii.gz` broken in the middle",
        edited(nifti(), bit_flipped),
        refused="the file is damaged or not what its name",
    ),
    Case("`.nii.gz` cut off", edited(nifti(), lambda d: d[:-40]), refused="the file is damaged or not what its name"),
    Case(
        "NIfTI header that promises terabytes",
        written("bomb.nii.gz", gzip.compress(_BOMB.binaryblock + bytes(100))),
        refused="the file is damaged or not what its name says (its header promises",
    ),
    Case("NIfTI pair, `.hdr` and `.img`", pair, refused="a NIfTI pair of .hdr and .img is not supported"),
    Case("Analyze 7.5", analyze, refused="Analyze files do not say which side is left"),
    Case("real: 0.88 mm head, uint8", shared("healthy_brain/chris_t1_head.nii.gz"), readers=ALL),
]

OTHER = [
    Case("an empty file", written("case.nii.gz", b""), refused="the file is empty; copy or export it again"),
    Case(
        "text named `.nii`", written("case.nii", b"not an image\n" * 50), refused="the file is damaged or not what its"
    ),
    Case("any other file", written("case.docx", b"some text" * 99), refused="not a known volume format; pass .nii,"),
    Case("a file that is not there", lambda folder: folder / "none.nii", refused="there is no such file or folder"),
]
