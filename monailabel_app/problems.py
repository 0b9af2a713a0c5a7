"""Errors as HTTP answers: always {"detail": one sentence}, never a stack trace."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import MONAILabelException
from pydantic import ValidationError

from medclipad.errors import Cancelled, MedCLIPADError

logger = logging.getLogger(__name__)


class RequestError(MedCLIPADError):
    """A request that cannot be served as asked; `status` is its HTTP status."""

    def __init__(self, message: str, status: int = 400, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def sentence(error: ValidationError | RequestValidationError) -> str:
    """The first thing that is wrong in a request, e.g. "epochs: Input should be a valid integer"."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}." if place else f"{message}."


def install(app: FastAPI) -> None:
    """Answer every exception that a route can raise with a status and one sentence."""

    def answer(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
        return JSONResponse({"detail": detail}, status_code=status, headers=headers)

    @app.exception_handler(RequestError)
    def _(_: Request, error: RequestError) -> JSONResponse:
        return answer(error.status, str(error), error.headers)

    @app.exception_handler(Cancelled)
    def _(_: Request, error: Cancelled) -> JSONResponse:
        return answer(409, str(error) or "The work was cancelled.")

    @app.exception_handler(MedCLIPADError)
    def _(_: Request, error: MedCLIPADError) -> JSONResponse:
        return answer(422, str(error))

    @app.exception_handler(MONAILabelException)
    def _(_: Request, error: MONAILabelException) -> JSONResponse:
        return answer(400, error.msg)

    @app.exception_handler(RequestValidationError)
    def _(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer(422, sentence(error))

    @app.exception_handler(Exception)
    def _(_: Request, error: Exception) -> JSONResponse:
        logger.error("Unexpected %s", type(error).__name__)  # uvicorn logs the traceback
        return answer(500, f"The server failed unexpectedly ({type(error).__name__}); its log says where.")
