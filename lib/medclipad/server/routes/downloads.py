"""Files as responses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

from fastapi.responses import StreamingResponse
from starlette.background import BackgroundTask
from starlette.types import Receive, Scope, Send

_BLOCK = 1024 * 1024


def file_response(
    path: str | Path,
    name: str,
    media_type: str = "application/octet-stream",
    after: Callable[[], None] | None = None,
) -> StreamingResponse:
    """Return a response that sends a file.

    The file is opened here, so that it is sent whole even if it is removed or replaced meanwhile; starlette's
    FileResponse answers 500 then. A request for a range of bytes gets the whole file.

    Parameters
    ----------
    path
        The file.
    name
        Name under which the client should save it.
    media_type
        MIME type of the file.
    after
        Called once the file is sent.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    """
    stream = open(path, "rb")  # noqa: SIM115  closed by _FileResponse
    headers = {
        "Content-Length": str(os.fstat(stream.fileno()).st_size),
        "Content-Disposition": f"attachment; {_filename(name)}",
    }
    background = BackgroundTask(after) if after else None
    return _FileResponse(stream, media_type=media_type, headers=headers, background=background)


class _FileResponse(StreamingResponse):
    """Response that sends a file and closes it, also when the client goes away in the middle."""

    def __init__(self, stream: BinaryIO, **options: Any) -> None:
        super().__init__(iter(lambda: stream.read(_BLOCK), b""), **options)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()


def _filename(name: str) -> str:
    """Return a file name as RFC 6266 defines it: percent-encoded unless it is plain ASCII."""
    quoted = quote(name)
    return f'filename="{name}"' if quoted == name else f"filename*=utf-8''{quoted}"
