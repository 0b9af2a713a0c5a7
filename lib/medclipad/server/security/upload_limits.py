"""Check what an uploaded file would cost before it costs it: disk and memory."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

from medclipad.detection.cases import AS_IS, Reading
from medclipad.server.errors import RequestError
from medclipad.volume import Volume

MAX_BYTES = 2**30  # voxels of one volume, uncompressed: 512 x 512 x 2048 of 16 bits
READ_SLOTS = threading.BoundedSemaphore(2)  # whole volumes that requests read at once: forty would fill the memory
FIRST = Reading(component=0)  # for what all volumes of an image share: whether it can be read, and its grid
RESERVED_BYTES = 64 * 1024**2  # of disk that uploads leave free


def check_free_space(folder: str | os.PathLike[str], size: int) -> None:
    """Raise RequestError 507 if `size` bytes do not fit on the disk of `folder`."""
    if shutil.disk_usage(folder).free - RESERVED_BYTES < size:
        raise RequestError("The server's disk is full: free some space, then send the file again.", 507)


def read_image(
    path: str | os.PathLike[str], reading: Reading = AS_IS, check: Callable[[], None] | None = None
) -> Volume:
    """Return an image of a request or of the studies, read in a child process.

    Parameters
    ----------
    path
        File or DICOM folder.
    reading
        Which of several volumes it is, and the like.
    check
        Called a few times a second while the file is read; what it raises ends the reading.

    Raises
    ------
    VolumeSizeError
        If its voxels take more than `MAX_BYTES`, whatever their number is.
    VolumeError
        As from `read_volume`; or if the file ends the process that reads it.
    """
    return reading.read(Path(path), MAX_BYTES, check)
