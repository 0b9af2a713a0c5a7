"""Turn errors into HTTP responses: always {"detail": one sentence}, never a stack trace."""

from __future__ import annotations

import errno
import functools
import logging
from collections.abc import Mapping

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import MONAILabelException
from starlette.exceptions import HTTPException

from medclipad.errors import Cancelled, MedCLIPADError, VolumeError, VolumeSizeError
from medclipad.server.errors import RequestError, first_error
from medclipad.server.security.guard import BodyError

logger = logging.getLogger(__name__)

_FILE_REMOVED = "A file that this request needs has been removed: list the images again, then repeat the request."
_DISK_FULL = "The server's disk is full: free some space, then try again."
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)
_NO_PERMISSION = (errno.EROFS, errno.EACCES, errno.EPERM)
# A network drive that is away, or a process that has too many files open: both pass.
_TEMPORARY = (
    *(errno.EIO, errno.ESTALE, errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN),
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM),
)


def install(app: FastAPI) -> None:
    """Answer every exception that a route of an app raises with a status and one sentence."""

    def answer(_: Request, error: Exception) -> JSONResponse:
        return _answer(error)

    for error_class in _answer.registry:
        app.add_exception_handler(Exception if error_class is object else error_class, answer)


@functools.singledispatch
def _answer(error: Exception) -> JSONResponse:
    """Return the response to an error; this one is for errors of no known class."""
    # Starlette raises such an error again after the response, and uvicorn logs it.
    return _response(500, f"The server failed unexpectedly ({type(error).__name__}): see its log.")


@_answer.register
def _answer_request_error(error: RequestError) -> JSONResponse:
    return _response(error.status, str(error), error.headers)


@_answer.register
def _answer_cancelled(error: Cancelled) -> JSONResponse:
    return _response(409, str(error) or "The work was cancelled.")


@_answer.register
def _answer_medclipad_error(error: MedCLIPADError) -> JSONResponse:
    number = _error_number(error.__cause__)
    if number == errno.ENOENT and isinstance(error, VolumeError):  # its own message names a path on this server
        return _response(404, _FILE_REMOVED)
    if number in _NO_SPACE:
        return _response(507, _DISK_FULL)
    return _response(413 if isinstance(error, VolumeSizeError) else 422, str(error))


@_answer.register
def _answer_os_error(error: OSError) -> JSONResponse:
    number = _error_number(error)
    if number in _NO_SPACE:
        return _response(507, _DISK_FULL)
    if number in _NO_PERMISSION:
        return _response(507, "The server may not write to its disk: grant it write access, then try again.")
    if number == errno.ENOENT:
        return _response(404, _FILE_REMOVED)
    if number in _TEMPORARY:
        reason = error.strerror or type(error).__name__
        return _response(503, f"The server cannot reach its files ({reason}): try again.", {"Retry-After": "10"})
    logger.error("Unexpected %s", type(error).__name__, exc_info=error)
    return _response(500, f"The server failed unexpectedly ({type(error).__name__}): see its log.")


@_answer.register
def _answer_http_exception(error: HTTPException) -> JSONResponse:
    if _error_number(error.__cause__) in _NO_SPACE:  # while FastAPI received the body
        return _response(507, _DISK_FULL)
    if isinstance(error.__cause__, BodyError):
        return _response(error.__cause__.status, str(error.__cause__), {"Connection": "close"})
    return _response(error.status_code, str(error.detail), error.headers)


@_answer.register
def _answer_encode_error(_: UnicodeEncodeError) -> JSONResponse:
    return _response(400, "The request contains characters that cannot be stored as text.")


@_answer.register
def _answer_monai_label_error(error: MONAILabelException) -> JSONResponse:
    return _response(400, error.msg)


@_answer.register
def _answer_validation_error(error: RequestValidationError) -> JSONResponse:
    return _response(422, first_error(error))


def _response(status: int, detail: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def _error_number(error: BaseException | None) -> int | None:
    return error.errno if isinstance(error, OSError) else None
