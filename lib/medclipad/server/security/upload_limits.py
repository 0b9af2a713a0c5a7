"""Check what an uploaded file would cost before it costs it: disk, memory, and time to decompress."""

from __future__ import annotations

import gzip
import os
import shutil
import threading
import zlib
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from medclipad.errors import VolumeError
from medclipad.server.errors import RequestError

MAX_VOXELS = 2**29  # of one volume: 512 x 512 x 2048
READ_SLOTS = threading.BoundedSemaphore(2)  # whole volumes that requests read at once: forty would fill the memory
RESERVED_BYTES = 64 * 1024**2  # of disk that uploads leave free
_BLOCK = 1024**2
_HEADER_BYTES = 4096  # before the voxels of a NIfTI file, extensions included: more than any honest file has


def check_free_space(folder: str | os.PathLike[str], size: int) -> None:
    """Raise RequestError 507 if `size` bytes do not fit on the disk of `folder`."""
    if shutil.disk_usage(folder).free - RESERVED_BYTES < size:
        raise RequestError("The server's disk is full: free some space, then send the file again.", 507)


def check_volume_size(path: Path) -> None:
    """Refuse a NIfTI, NRRD or MetaImage file that holds, or decompresses to, more voxels than the limit.

    Only headers are read. Gzip is decompressed block by block without being stored, no further than its header
    declares. Damaged files pass: the reader reports what is wrong with them.

    Raises
    ------
    RequestError
        413 if the volume is too large.
    """
    if path.name.lower().endswith((".nii", ".nii.gz")):
        _check_nifti(path)
        return
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return
    _check_voxels(float(np.prod(reader.GetSize(), dtype=float)) * reader.GetNumberOfComponents())


def _check_nifti(path: Path) -> None:
    compressed = path.name.lower().endswith(".gz")
    try:
        with (gzip.open if compressed else open)(path, "rb") as stream:
            start = stream.read(540)
            is_nifti2 = start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c")
            header_class = nibabel.Nifti2Header if is_nifti2 else nibabel.Nifti1Header
            header = header_class(start[: header_class.sizeof_hdr], check=False)
            voxels = float(np.prod([max(1, int(n)) for n in header.get_data_shape()], dtype=float))
            _check_voxels(voxels)
            if not compressed:
                return
            voxel_bytes = voxels * header.get_data_dtype().itemsize
            declared = voxel_bytes + max(float(header["vox_offset"]), 352) + _HEADER_BYTES
            decompressed = len(start)
            while block := stream.read(_BLOCK):
                decompressed += len(block)
                if decompressed > declared:
                    raise RequestError("The file decompresses to more than its header declares: export it again.", 413)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError, HeaderDataError, WrapStructError, VolumeError):
        return


def _check_voxels(voxels: float) -> None:
    if voxels > MAX_VOXELS:
        raise RequestError(
            f"The volume has {voxels:.3g} voxels; the limit is {MAX_VOXELS:.3g}: crop or resample it.", 413
        )
