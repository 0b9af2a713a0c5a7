"""The error that becomes an HTTP answer; it imports no web framework, which a training process does without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclipad.errors import MedCLIPADError

if TYPE_CHECKING:
    from fastapi.exceptions import RequestValidationError
    from pydantic import ValidationError


class RequestError(MedCLIPADError):
    """A request that cannot be served as asked; `status` is its HTTP status."""

    def __init__(self, message: str, status: int = 400, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def first_error(error: ValidationError | RequestValidationError) -> str:
    """The first thing that is wrong in a request, e.g. "epochs: Input should be a valid integer"."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = first["msg"].removeprefix("Value error, ")
    return f"{place}: {message}." if place else f"{message}."
