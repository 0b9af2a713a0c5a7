"""Files as answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import quote

from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask

_BLOCK = 1024 * 1024


def sent(
    path: str | Path, name: str, kind: str = "application/octet-stream", after: Callable[[], None] | None = None
) -> StreamingResponse:
    """A file under the name that the client is to save it by; `after` is called once it is sent.

    It is opened here, so that it comes whole, whatever is removed or replaced while it is sent; unlike starlette's
    FileResponse, which answers 500 then. Raises FileNotFoundError. A request for a part of it gets all.
    """
    stream = open(path, "rb")  # noqa: SIM115  closed by _blocks
    headers = {
        "Content-Length": str(os.fstat(stream.fileno()).st_size),
        "Content-Disposition": f"attachment; {_filename(name)}",
    }
    background = BackgroundTask(after) if after else None
    return StreamingResponse(_blocks(stream), media_type=kind, headers=headers, background=background)


def _blocks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while block := stream.read(_BLOCK):
            yield block


def _filename(name: str) -> str:
    """As RFC 6266 has it: what is not plain ASCII goes percent-encoded."""
    quoted = quote(name)
    return f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
