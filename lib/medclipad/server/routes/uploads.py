"""What a client sends: files, taken to a temporary file, and JSON objects in forms."""

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

from medclipad.server.errors import RequestError
from medclipad.server.security.upload_limits import check_room, check_size
from medclipad.server.stores.folder import UPLOADABLE, is_plain

INFO_LIMIT = 1024**2  # characters that are kept of one image or label; all of it is in one file, often rewritten
_OURS = ("marks", "strategy", "sha256", "sha256_of")  # in an image's info: checked where it is written


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


def json_object(text: str, field: str) -> dict[str, Any]:
    """A form field that holds a JSON object; RequestError 400 otherwise.

    NaN and infinities are not JSON, and half a surrogate pair is no text: kept, neither could ever be sent again.
    """

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    def finite(number: str) -> float:
        return float(number) if math.isfinite(float(number)) else refuse(number)

    try:
        value = json.loads(text or "{}", parse_constant=refuse, parse_float=finite)  # 1e999 would be infinity
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RequestError(f"{field} must be a JSON object.")
    return value


def image_info(text: str, field: str) -> dict[str, Any]:
    """What a client wants to be known of an image; RequestError 400 if it is the server's to say."""
    info = json_object(text, field)
    for key in _OURS:
        if key in info:
            raise RequestError(f"{field} must not contain {key!r}: the server keeps that, see GET /docs.")
    return info


def check_info(info: dict[str, Any]) -> None:
    """RequestError 413 if it is more than is kept of one image or label."""
    if len(json.dumps(info, default=str)) > INFO_LIMIT:
        raise RequestError(f"The info would be longer than {INFO_LIMIT // 1024**2} MiB: keep it elsewhere.", 413)
