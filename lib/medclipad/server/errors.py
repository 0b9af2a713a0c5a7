"""The error that becomes an HTTP response.

It imports no web framework: a training process raises it too and must start fast.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from medclipad.errors import MedCLIPADError

if TYPE_CHECKING:
    from fastapi.exceptions import RequestValidationError
    from pydantic import ValidationError


class RequestError(MedCLIPADError):
    """Request that the server cannot carry out.

    Parameters
    ----------
    message
        One sentence for the user: what is wrong and what to do.
    status
        HTTP status of the response.
    headers
        HTTP headers to add to the response, such as `Retry-After`.

    Attributes
    ----------
    status, headers
        As given.
    """

    def __init__(self, message: str, status: int = 400, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers


def first_error(error: ValidationError | RequestValidationError) -> str:
    """Return the first problem of a request, such as "epochs: Input should be a valid integer."."""
    first = error.errors()[0]
    field = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
    message = first["msg"].removeprefix("Value error, ")
    return f"{field}: {message}." if field else f"{message}."
