"""What a sent file may cost, looked at before it costs anything: disk, memory, and the time to inflate it."""

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

from medclipad.errors import VolumeError
from medclipad.server.errors import RequestError

VOXELS = 2**29  # of one volume: 512 x 512 x 2048
READING = threading.BoundedSemaphore(2)  # for whole volumes that requests read: forty at once would fill the memory
SPARE = 64 * 1024**2  # bytes of disk that are left alone
_BLOCK = 1024**2
_HEADER = 4096  # bytes before the voxels of a NIfTI file, extensions included, that nobody minds


def check_room(folder: str | os.PathLike, size: int) -> None:
    """RequestError 507 if `size` bytes do not fit on the disk of `folder`."""
    if shutil.disk_usage(folder).free - SPARE < size:
        raise RequestError("The server's disk is full: make room on it, then send the file again.", 507)


def check_size(path: Path) -> None:
    """RequestError 413 if a NIfTI, NRRD or MetaImage file holds, or inflates to, more than a volume may.

    Only headers are read, and gzip is inflated block by block and thrown away, no further than its header promises.
    What is damaged is left to the reader, which says so.
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
    packed = path.name.lower().endswith(".gz")
    try:
        with (gzip.open if packed else open)(path, "rb") as stream:
            start = stream.read(540)
            kind = nibabel.Nifti2Header if start[:4] in (b"\x1c\x02\0\0", b"\0\0\x02\x1c") else nibabel.Nifti1Header
            header = kind(start[: kind.sizeof_hdr], check=False)
            voxels = float(np.prod([max(1, int(n)) for n in header.get_data_shape()], dtype=float))
            _check_voxels(voxels)
            if not packed:
                return
            promised = voxels * header.get_data_dtype().itemsize + max(float(header["vox_offset"]), 352) + _HEADER
            inflated = len(start)
            while block := stream.read(_BLOCK):
                inflated += len(block)
                if inflated > promised:
                    raise RequestError("The file inflates to more than its header promises: export it again.", 413)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError, nibabel.spatialimages.HeaderDataError):
        return
    except (nibabel.wrapstruct.WrapStructError, VolumeError):
        return


def _check_voxels(voxels: float) -> None:
    if voxels > VOXELS:
        raise RequestError(
            f"The volume has {voxels:.3g} voxels, more than the {VOXELS:.3g} that are taken: crop or resample it.", 413
        )
