"""Files that a client sends: taken to a temporary file, and read once to see that they are volumes."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fastapi import UploadFile

from medclipad.volume import Volume, read_volume

from ..datastore import UPLOADABLE, is_plain
from ..errors import RequestError
from ..limits import check_room, check_size


@contextmanager
def received(upload: UploadFile, archives: bool = False) -> Iterator[Path]:
    """The upload as a file with its own suffix, which with `archives` may be .zip too; it is gone after the block."""
    name = Path(upload.filename or "").name
    suffixes = (*UPLOADABLE, ".zip") if archives else UPLOADABLE
    suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), None)
    if suffix is None:
        raise RequestError(f"The file's name must end in one of {', '.join(suffixes)}.", 415)
    check_room(tempfile.gettempdir(), upload.size or 0)
    with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
        stem = name[: -len(suffix)]
        path = Path(folder) / f"{stem if is_plain(stem) else 'upload'}{suffix}"  # errors name the file by its own name
        with open(path, "wb") as stream:
            shutil.copyfileobj(upload.file, stream, 1024 * 1024)
        if suffix != ".zip":  # what may come out of an archive is limited when it is unpacked
            check_size(path)
        yield path


def checked(path: Path) -> Volume:
    """Read an uploaded volume: a damaged one raises VolumeError, before it gets a name in the studies."""
    return read_volume(path)


def json_object(text: str, field: str) -> dict[str, Any]:
    """A form field that holds a JSON object; RequestError 400 otherwise. NaN and infinities are not JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    def finite(number: str) -> float:
        return float(number) if math.isfinite(float(number)) else refuse(number)

    try:
        value = json.loads(text or "{}", parse_constant=refuse, parse_float=finite)  # 1e999 would be infinity
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RequestError(f"{field} must be a JSON object.")
    return value
