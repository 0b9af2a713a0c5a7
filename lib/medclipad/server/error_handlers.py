"""Errors as HTTP answers: always {"detail": one sentence}, never a stack trace."""

from __future__ import annotations

import errno
import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import MONAILabelException
from starlette.exceptions import HTTPException

from medclipad.errors import Cancelled, MedCLIPADError, VolumeError
from medclipad.server.errors import RequestError, first_error
from medclipad.server.security.guard import TooLargeError

logger = logging.getLogger(__name__)


_GONE = "A file that this needs has been removed: list what there is, and ask again."
_FULL = "The server's disk is full: make room on it, then try again."
_NO_SPACE, _NO_RIGHT = (errno.ENOSPC, errno.EDQUOT), (errno.EROFS, errno.EACCES, errno.EPERM)
_NO_DISK = (errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN)  # a network drive that is away
_NO_MORE = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)


def _number(error: BaseException | None) -> int | None:
    return error.errno if isinstance(error, OSError) else None


def install(app: FastAPI) -> None:
    """Answer every exception that a route can raise with a status and one sentence."""

    def answer(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"detail": detail}, status_code=status, headers=headers)

    def unexpected(error: Exception) -> JSONResponse:
        return answer(500, f"The server failed unexpectedly ({type(error).__name__}); its log says where.")

    @app.exception_handler(RequestError)
    def _(_: Request, error: RequestError) -> JSONResponse:
        return answer(error.status, str(error), error.headers)

    @app.exception_handler(Cancelled)
    def _(_: Request, error: Cancelled) -> JSONResponse:
        return answer(409, str(error) or "The work was cancelled.")

    @app.exception_handler(MedCLIPADError)
    def _(_: Request, error: MedCLIPADError) -> JSONResponse:
        number = _number(error.__cause__)
        if number == errno.ENOENT and isinstance(error, VolumeError):  # whose own sentence names a path on this server
            return answer(404, _GONE)
        return answer(507, _FULL) if number in _NO_SPACE else answer(422, str(error))

    @app.exception_handler(OSError)
    def _(_: Request, error: OSError) -> JSONResponse:
        if _number(error) in _NO_SPACE:
            return answer(507, _FULL)
        if _number(error) in _NO_RIGHT:
            return answer(507, "The server may not write to its disk: give it the right to, then try again.")
        if _number(error) == errno.ENOENT:
            return answer(404, _GONE)
        if _number(error) in (*_NO_DISK, *_NO_MORE):
            reason = error.strerror or type(error).__name__
            return answer(503, f"The server cannot get at its files ({reason}): try again.", {"Retry-After": "10"})
        logger.error("Unexpected %s", type(error).__name__, exc_info=error)
        return unexpected(error)

    @app.exception_handler(HTTPException)
    def _(_: Request, error: HTTPException) -> JSONResponse:
        if _number(error.__cause__) in _NO_SPACE:  # while a body was received
            return answer(507, _FULL)
        if isinstance(error.__cause__, TooLargeError):
            return answer(413, str(error.__cause__), {"Connection": "close"})
        return answer(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(UnicodeEncodeError)
    def _(_: Request, __: UnicodeEncodeError) -> JSONResponse:
        return answer(400, "The request holds characters that cannot be stored as text.")

    @app.exception_handler(MONAILabelException)
    def _(_: Request, error: MONAILabelException) -> JSONResponse:
        return answer(400, error.msg)

    @app.exception_handler(RequestValidationError)
    def _(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(422, first_error(error))

    @app.exception_handler(Exception)
    def _(_: Request, error: Exception) -> JSONResponse:
        return unexpected(error)  # starlette hands it on, and uvicorn logs it
