"""What can go wrong: one sentence each, shown in the panel as it is."""

from __future__ import annotations


class ModuleError(Exception):
    """The message is one sentence that says what is wrong and what to do."""


class ServerError(ModuleError):
    """The server cannot be reached or refused. `status` is its HTTP status, None if it did not answer.

    `cause` is one of: address, unknown host, unreachable, refused, timeout, lost, token, not medclipad, busy, answer.
    """

    def __init__(self, message: str, cause: str = "answer", status: int | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status


class Cancelled(Exception):
    """The user pressed Cancel."""
