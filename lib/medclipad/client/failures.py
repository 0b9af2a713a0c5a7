"""One sentence for each way in which a request can fail."""

from __future__ import annotations

import errno
import socket
import ssl
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import requests

from medclipad.errors import MedCLIPADError


class ServerError(MedCLIPADError):
    """The server cannot be reached, or it refused the request.

    Parameters
    ----------
    message : str
        One sentence for the user.
    cause : str
        One of "address", "unknown host", "unreachable", "refused", "timeout", "certificate", "lost", "token",
        "not medclipad", "busy" and "answer".
    status : int, optional
        HTTP status of the answer; None if there was no answer, or another program gave it.

    Attributes
    ----------
    cause, status
        As passed in.
    """

    def __init__(self, message: str, cause: str = "answer", status: int | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.status = status


def validated_address(url: str) -> str:
    """Return an address without a slash at its end.

    Raises
    ------
    ServerError
        If it is not an HTTP or HTTPS address.
    """
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise _invalid_address(url)
    return url


def validated_token(token: str) -> str:
    """Return an access token without surrounding space.

    Raises
    ------
    ServerError
        If it contains control characters, which no header can carry.
    """
    token = token.strip()
    if any(ord(character) < 32 or ord(character) == 127 for character in token):
        raise ServerError(
            "The access token contains a line break or another control character: copy it again.", "token"
        )
    return token


def _invalid_address(url: str) -> ServerError:
    """Return the error for what is no address."""
    return ServerError(f"{url!r} is not a server address: it should look like http://127.0.0.1:8000.", "address")


def not_medclipad(url: str) -> ServerError:
    """Return the error for an address where another program answers."""
    return ServerError(f"{url} answers, but it is not a MedCLIPAD server: check the address.", "not medclipad")


def status_error(response: requests.Response, url: str) -> ServerError:
    """Return the error for a response with a status of 400 or more.

    The server's own errors carry one sentence as `detail`, which becomes the message.
    """
    status = response.status_code
    if status == 401:
        message = "The server requires an access token: pass the one that it was started with."
        return ServerError(message, "token", status)
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    if not isinstance(detail, str):
        if status == 503:
            return ServerError(f"{url} is busy: try again in a moment.", "busy", status)
        if status in (404, 405):
            return not_medclipad(url)
        return ServerError(f"{url} answered with HTTP {status}: see the log of the server.", "answer", status)
    if status == 404 and detail == "Not Found":  # FastAPI's answer for an unknown path, whatever the application
        return not_medclipad(url)
    return ServerError(detail, "busy" if status in (429, 503) else "answer", status)


def connection_error(error: BaseException, url: str, timeout: float) -> ServerError:
    """Return the error for a connection that failed.

    Parameters
    ----------
    error : BaseException
        What requests raised.
    url : str
        Address of the server.
    timeout : float
        Seconds that the request was allowed to take.
    """
    causes = list(_causes(error))

    def caused_by(*types: type) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    def has_errno(*numbers: int) -> bool:
        return any(isinstance(cause, OSError) and cause.errno in numbers for cause in causes)

    host = urlsplit(url).hostname
    if caused_by(socket.gaierror):
        return ServerError(f"Computer {host} was not found: check the address.", "unknown host")
    if caused_by(ConnectionRefusedError):
        message = f"No server is running at {url}: start medclipad serve there, or check the port."
        return ServerError(message, "refused")
    if has_errno(errno.EHOSTUNREACH, errno.ENETUNREACH) or caused_by(requests.ConnectTimeout):
        message = f"Computer {host} cannot be reached: check the address, the network and the firewall."
        return ServerError(message, "unreachable")
    if caused_by(requests.Timeout, socket.timeout):
        message = f"{url} did not answer within {timeout:g} seconds: the server may be stuck or very busy."
        return ServerError(message, "timeout")
    if caused_by(ssl.SSLCertVerificationError):
        message = (
            f"The certificate of {url} is not trusted: ask whoever runs the server for its CA certificate, and install "
            "it on this computer."
        )
        return ServerError(message, "certificate")
    if caused_by(requests.exceptions.SSLError, ssl.SSLError):
        return ServerError(f"No secure connection to {url} is possible: check the address and the port.", "address")
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return _invalid_address(url)
    return connection_lost(url)


def connection_lost(url: str) -> ServerError:
    """Return the error for a connection that ended in the middle of a request or an answer."""
    return ServerError(f"The connection to {url} was lost: check whether the server is still running.", "lost")


def _causes(error: Any, seen: set[int] | None = None) -> Iterator[BaseException]:
    """Yield an error and all errors that it was raised from or contains."""
    seen = set() if seen is None else seen
    if not isinstance(error, BaseException) or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for inner in (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args):
        yield from _causes(inner, seen)
