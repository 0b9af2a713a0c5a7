"""Volumes as files, and their content hash. Needs no MRML.

Both work block by block, so that they can be cancelled.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import numpy as np
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError

BLOCK_SIZE = 4 * 1024**2  # bytes between two checks for Cancel
_NRRD_TYPES = {
    "|i1": "int8", "|u1": "uint8", "<i2": "int16", "<u2": "uint16", "<i4": "int32", "<u4": "uint32",
    "<i8": "int64", "<u8": "uint64", "<f4": "float", "<f8": "double",
}  # fmt: skip
Report = Callable[[int, int], None]  # (bytes done, bytes in total)


def little_endian(array: np.ndarray) -> np.ndarray:
    """Return an array as contiguous and little-endian, copied only if needed."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def content_hash(array: np.ndarray, affine: np.ndarray, report: Report | None = None) -> str:
    """Return the SHA-256 of a volume's voxels and geometry.

    It does not depend on the file format, and is the server's.

    Parameters
    ----------
    array : (K, J, I) array
        The voxels.
    affine : (4, 4) array
        Voxel-to-RAS matrix.
    report : callable, optional
        Called after each block; an exception that it raises stops the work.
    """
    array = little_endian(array)
    nk, nj, ni = array.shape
    digest = hashlib.sha256(f"{ni}x{nj}x{nk} {array.dtype.str}\n".encode())
    numbers = " ".join(f"{round(float(v), 4) + 0.0:.4f}" for v in np.asarray(affine)[:3].ravel())
    digest.update(f"{numbers}\n".encode())
    for block in _blocks(array, report):
        digest.update(block)
    return digest.hexdigest()


def write_nrrd(path: Path, array: np.ndarray, affine: np.ndarray, report: Report | None = None) -> None:
    """Write a volume as gzip-compressed NRRD; the geometry is kept to the last bit.

    SimpleITK's writer can neither be cancelled nor report its progress.

    Parameters
    ----------
    path : Path
        The file to write.
    array : (K, J, I) array
        The voxels.
    affine : (4, 4) array
        Voxel-to-RAS matrix.
    report : callable, optional
        Called after each block; an exception that it raises stops the work.

    Raises
    ------
    ModuleError
        If NRRD has no voxel type for the array.
    """
    array = little_endian(array)
    if array.dtype.str not in _NRRD_TYPES:
        raise ModuleError(
            _("Voxels of type {type} cannot be sent: convert the volume with the module Cast Scalar Volume.").format(
                type=array.dtype
            )
        )
    vector = lambda column: "(" + ",".join(repr(float(v)) for v in np.asarray(affine)[:3, column]) + ")"  # noqa: E731
    header = [
        "NRRD0004",
        f"type: {_NRRD_TYPES[array.dtype.str]}",
        "dimension: 3",
        "space: right-anterior-superior",
        "sizes: " + " ".join(str(n) for n in array.shape[::-1]),
        "space directions: " + " ".join(vector(axis) for axis in range(3)),
        "kinds: domain domain domain",
        "endian: little",
        "encoding: gzip",
        f"space origin: {vector(3)}",
    ]
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)  # 31: with the gzip header; level 1 is fast and nearly as small
    with open(path, "wb") as stream:
        stream.write(("\n".join(header) + "\n\n").encode())
        for block in _blocks(array, report):
            stream.write(packer.compress(block))
        stream.write(packer.flush())


def read_volume(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a volume file.

    Returns
    -------
    array : (K, J, I) or (K, J, I, components) array
        The voxels.
    affine : (4, 4) array
        Voxel-to-RAS matrix.

    Raises
    ------
    ModuleError
        If the file cannot be read, or is not a volume.
    """
    import SimpleITK as sitk  # here, because it takes a second to import; it releases the interpreter while it reads

    try:
        image = sitk.ReadImage(str(path))
    except RuntimeError as error:
        raise ModuleError(_("This computer's SimpleITK cannot read the volume that the server sent.")) from error
    if image.GetDimension() == 2:
        image = sitk.JoinSeries(image)
    if image.GetDimension() != 3:
        raise ModuleError(
            _("The volume that the server sent has {count} dimensions; 3 are expected.").format(
                count=image.GetDimension()
            )
        )
    direction = np.reshape(image.GetDirection(), (3, 3))
    affine = np.eye(4)
    affine[:3, :3] = direction * np.asarray(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return sitk.GetArrayFromImage(image), np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine  # LPS, as ITK has it, to RAS


def _blocks(array: np.ndarray, report: Report | None) -> Iterator[memoryview]:
    """Yield the bytes of a contiguous array, block by block."""
    content = array.data.cast("B") if array.size else memoryview(b"")
    for start in range(0, len(content), BLOCK_SIZE):
        if report:
            report(start, len(content))
        yield content[start : start + BLOCK_SIZE]
    if report:
        report(len(content), len(content))
