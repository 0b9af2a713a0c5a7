"""Uploaded files, saved to a temporary file, and JSON objects in form fields."""

from __future__ import annotations

import json
import math
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from fastapi import UploadFile

from medclipad.server.errors import RequestError
from medclipad.server.security.upload_limits import check_free_space
from medclipad.server.stores.folder import UPLOADABLE, is_plain

INFO_LIMIT = 1024**2  # characters of one image's or label's info: all infos are in one file, which is often rewritten
_MANAGED_KEYS = (
    "marks",
    "strategy",
    "sha256",
    "sha256_of",
    "replaced",
)  # of an image's info: only the server writes them


@contextmanager
def uploaded_file(upload: UploadFile, archives: bool = False) -> Iterator[Path]:
    """Save an upload to a temporary file, which is removed after the block.

    Parameters
    ----------
    upload
        The upload.
    archives
        Whether a .zip is accepted too.

    Yields
    ------
    Path
        The file, with the upload's own suffix.

    Raises
    ------
    RequestError
        415 for an unknown suffix, 507 if the disk is full.
    """
    name = Path(upload.filename or "").name
    suffixes = (*UPLOADABLE, ".zip") if archives else UPLOADABLE
    suffix = next((suffix for suffix in suffixes if name.lower().endswith(suffix)), None)
    if suffix is None:
        raise RequestError(f"The file's name must end in one of {', '.join(suffixes)}.", 415)
    check_free_space(tempfile.gettempdir(), upload.size or 0)
    with tempfile.TemporaryDirectory(prefix="medclipad-") as folder:
        stem = name[: -len(suffix)]
        path = Path(folder) / f"{stem if is_plain(stem) else 'upload'}{suffix}"  # errors name the file by its own name
        with open(path, "wb") as stream:
            shutil.copyfileobj(upload.file, stream, 1024 * 1024)
        yield path


def json_object(text: str, field: str) -> dict[str, Any]:
    """Parse a form field that holds a JSON object.

    NaN and infinities are not JSON, and half a surrogate pair is not text: once stored, neither could be sent again.

    Parameters
    ----------
    text
        Value of the field; "" counts as {}.
    field
        Name of the field, for the error message.

    Raises
    ------
    RequestError
        400 if it is not a JSON object.
    """

    def refuse(constant: str) -> NoReturn:
        raise ValueError(constant)

    def finite(number: str) -> float:
        value = float(number)
        return value if math.isfinite(value) else refuse(number)  # 1e999 would be infinity

    try:
        value = json.loads(text or "{}", parse_constant=refuse, parse_float=finite)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise RequestError(f"{field} must be a JSON object.")
    return value


def image_info(text: str, field: str) -> dict[str, Any]:
    """Parse what a client stores about an image; raise RequestError 400 if it contains a key that the server manages.

    Parameters
    ----------
    text
        Value of the form field, a JSON object.
    field
        Name of the field, for the error message.
    """
    info = json_object(text, field)
    for key in _MANAGED_KEYS:
        if key in info:
            raise RequestError(f"{field} must not contain {key!r}: the server manages it, see GET /docs.")
    return info


def check_info(info: dict[str, Any]) -> None:
    """Raise RequestError 413 if the info of an image or label exceeds the limit."""
    if len(json.dumps(info, default=str)) > INFO_LIMIT:
        raise RequestError(f"The info would be longer than {INFO_LIMIT // 1024**2} MiB: store it elsewhere.", 413)
