"""The error that becomes an HTTP answer. Apart from `problems`, so that a training process needs no web framework."""

from __future__ import annotations

from medclipad.errors import MedCLIPADError


class RequestError(MedCLIPADError):
    """A request that cannot be served as asked; `status` is its HTTP status."""

    def __init__(self, message: str, status: int = 400, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = headers
