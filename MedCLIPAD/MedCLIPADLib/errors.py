"""Errors of the module. Each message is one sentence, shown in the panel."""

from __future__ import annotations


class ModuleError(Exception):
    """An error to show in the panel.

    The message is one sentence that says what is wrong and what to do.
    """


class ServerError(ModuleError):
    """The server cannot be reached, or it refused the request.

    Parameters
    ----------
    message : str
        One sentence for the panel.
    cause : str
        One of "address", "unknown host", "unreachable", "refused", "timeout", "certificate", "lost", "token",
        "not medclipad", "busy" and "answer".
    status : int or None
        HTTP status of the answer; None if there was no answer.

    Attributes
    ----------
    cause, status
        As passed in.
    """

    def __init__(self, message: str, cause: str = "answer", status: int | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status


class Cancelled(Exception):
    """The user pressed Cancel."""
