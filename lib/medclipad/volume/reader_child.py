"""The child process that reads untrusted files; see `medclipad.volume.untrusted`.

    python -P -m medclipad.volume.reader_child FOLDER

Each line on standard input is a request in JSON. Each answer is a line in JSON and, for a volume, its voxels after it.
FOLDER holds the child's temporary files and is removed when the standard input ends, as it does with the parent.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil

from medclipad.errors import MedCLIPADError, VolumeSizeError
from medclipad.volume.dicom.series import list_series
from medclipad.volume.memory_budget import free_memory, limit_voxels
from medclipad.volume.read import read_volume
from medclipad.volume.read_errors import volume_errors
from medclipad.volume.volume import Volume


def main(folder: str) -> None:
    """Answer requests until the standard input ends."""
    tempfile.tempdir = folder
    answers = _own_output()
    try:
        for line in sys.stdin.buffer:
            request = json.loads(line)
            os.chdir(request["cwd"])
            _set_limits(request["seconds"])
            limit_voxels(request["voxel_bytes"])
            answer, voxels = _answer(request)
            answers.write(json.dumps(answer).encode() + b"\n")
            if voxels is not None:
                answers.write(voxels)
            answers.flush()
            del voxels  # before the next file
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _own_output() -> BinaryIO:
    """Return the standard output, which from now on no library can write to."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _set_limits(seconds: int) -> None:
    """Limit the memory to what is free, and the processor time from now on; a no-op on Windows."""
    if os.name == "nt":
        return
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, most = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + seconds, most))
    if hasattr(psutil, "RLIMIT_AS"):  # on Linux and FreeBSD; macOS ignores it
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + free_memory(), most))


def _answer(request: dict[str, Any]) -> tuple[dict[str, Any], memoryview | None]:
    """Return the answer to a request and, if a volume was read, its voxels."""
    source = request["source"]
    name = Path(source[0]).parent.name if isinstance(source, list) and source else str(source)
    try:
        with volume_errors(Path(name)):
            if request["what"] == "series":
                return {"series": [asdict(found) for found in list_series(source)]}, None
            return _described(read_volume(source, **request["options"]))
    except MedCLIPADError as error:
        missing = isinstance(error.__cause__, FileNotFoundError)
        return {"error": str(error), "too_large": isinstance(error, VolumeSizeError), "missing": missing}, None


def _described(volume: Volume) -> tuple[dict[str, Any], memoryview]:
    """Return a volume without its voxels as JSON, and its voxels in their own order in memory."""
    order = sorted(range(3), key=lambda axis: -abs(volume.array.strides[axis]))
    voxels = np.ascontiguousarray(volume.array.transpose(order))
    answer = {
        "type": voxels.dtype.str, "order": order, "stored": voxels.shape, "affine": volume.affine.tolist(),
        "name": volume.name, "modality": volume.modality, "metadata": volume.metadata,
    }  # fmt: skip
    return answer, voxels.data.cast("B")


if __name__ == "__main__":
    main(sys.argv[1])
