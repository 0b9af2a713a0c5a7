"""Requests to the server, and one sentence for each way in which they can fail."""

from __future__ import annotations

import errno
import json
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

from slicer.i18n import tr as _

from MedCLIPADLib.errors import ServerError

CONNECT = 5.0  # seconds to wait for a connection
QUICK = 30.0  # seconds that a server may take for anything but inference and files
BLOCK = 256 * 1024  # bytes sent or received between two looks at Cancel


class Transport:
    """One connection to one server; not to be shared by threads."""

    def __init__(self, url: str, token: str = "", patience: float = 3600.0) -> None:
        import requests  # here, because it takes a while and Slicer imports every module when it starts

        self.url = checked_address(url)
        self.token = token
        self.patience = patience  # seconds to wait for an inference or a file
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy between us and a server that is named by its address
        if token:
            # As bytes: requests refuses, and prints, a token that is not Latin-1.
            self._session.headers["Authorization"] = f"Bearer {token.strip()}".encode()

    def json(self, method: str, address: str, **options: Any) -> Any:
        try:
            return self.request(method, address, **options).json()
        except ValueError:
            raise not_medclipad(self.url) from None

    def request(self, method: str, address: str, **options: Any) -> Any:
        """The response, if its status says that all is well; ServerError otherwise."""
        import requests

        wait = options.pop("timeout", QUICK)
        try:
            response = self._session.request(method, self.url + address, timeout=(min(CONNECT, wait), wait), **options)
        except (requests.RequestException, OSError) as error:
            raise explained(error, self.url, wait) from None
        if response.status_code >= 400:
            raise refused(response, self.url)
        return response

    def download(self, address: str, query: dict, path: Path, report: Callable[[int, int], None] | None = None) -> None:
        """Save what the server sends; `report(done, total)` in bytes, total 0 if it does not say."""
        import requests

        response = self.request("GET", address, params=query, timeout=self.patience, stream=True)
        total, done = int(response.headers.get("Content-Length", 0)), 0
        try:
            with response, open(path, "wb") as stream:
                for block in response.iter_content(BLOCK):
                    stream.write(block)
                    done += len(block)
                    if report:
                        report(done, total)
        except requests.RequestException as error:
            raise explained(error, self.url, self.patience) from None

    def upload(
        self,
        address: str,
        query: dict,
        field: str,
        path: Path,
        report: Callable[[int, int], None] | None = None,
    ) -> Any:
        """PUT a file as multipart/form-data, block by block; what `report(done, total)` raises stops it."""
        with open(path, "rb") as stream:
            body = FormBody(field, path.name, stream, path.stat().st_size, report)
            return self.json(
                "PUT", address, params=query, data=body, headers={"Content-Type": body.kind}, timeout=self.patience
            )


class FormBody:
    """A multipart/form-data body with one file, read as it is sent."""

    def __init__(
        self, field: str, name: str, stream: Any, size: int, report: Callable[[int, int], None] | None
    ) -> None:
        boundary = uuid.uuid4().hex
        self.kind = f"multipart/form-data; boundary={boundary}"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        self._head = (head + "Content-Type: application/octet-stream\r\n\r\n").encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._stream, self._size, self._report = stream, size, report

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        done = 0
        yield self._head
        for block in iter(lambda: self._stream.read(BLOCK), b""):
            done += len(block)
            if self._report:
                self._report(done, self._size)
            yield block
        yield self._tail


def checked_address(url: str) -> str:
    """`url` without a slash at its end; ServerError if it is not an http(s) address."""
    url = url.strip().rstrip("/")
    try:
        parts = urlsplit(url)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise _no_address(url)
    return url


def _no_address(url: str) -> ServerError:
    message = _("{url} is not a server's address: it should look like http://127.0.0.1:8000.")
    return ServerError(message.format(url=repr(url)), "address")


def form_parts(response: Any) -> tuple[dict, str, bytes]:
    """(params, file name, file) of a multipart answer; requests cannot read one. Its boundary is a random word."""
    boundary = response.headers.get("Content-Type", "").partition("boundary=")[2].strip('"').encode()
    params, name, content = {}, "", b""
    for part in (b"\r\n" + response.content).split(b"\r\n--" + boundary)[1:-1] if boundary else []:
        head, _blank, body = part.partition(b"\r\n\r\n")
        if b'name="params"' in head:
            params = json.loads(body)
        elif b'name="image"' in head:
            name, content = head.partition(b'filename="')[2].partition(b'"')[0].decode(), body
    if not name:
        raise ServerError(_("The server's answer holds no map: its version may not suit this module."))
    return params, name, content


def not_medclipad(url: str) -> ServerError:
    message = _("{url} answers, but it is no MedCLIPAD server: check the address.")
    return ServerError(message.format(url=url), "not medclipad")


def refused(response: Any, url: str) -> ServerError:
    """What a 4xx or 5xx status means. The server's own errors carry one sentence as `detail`."""
    status = response.status_code
    if status == 401:
        message = _("The server wants its token: enter the one that it was started with.")
        return ServerError(message, "token", status)
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    if not isinstance(detail, str):
        if status == 503:
            return ServerError(_("{url} is too busy now: try again in a moment.").format(url=url), "busy", status)
        if status in (404, 405):
            return not_medclipad(url)
        return ServerError(_("{url} answered HTTP {status}.").format(url=url, status=status), "answer", status)
    cause = {503: "busy", 429: "busy"}.get(status, "answer")
    if status == 404 and detail == "Not Found":  # what any FastAPI server says of an address that it does not know
        return not_medclipad(url)
    return ServerError(detail, cause, status)


def explained(error: BaseException, url: str, wait: float) -> ServerError:
    """The ServerError that says what a connection died of."""
    import requests

    causes = list(_causes(error))

    def among(*kinds: type) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    def number(*numbers: int) -> bool:
        return any(isinstance(cause, OSError) and cause.errno in numbers for cause in causes)

    host = urlsplit(url).hostname
    if among(socket.gaierror):
        message = _("There is no computer named {host} in this network: check the address.")
        return ServerError(message.format(host=repr(host)), "unknown host")
    if among(ConnectionRefusedError):
        message = _("Nothing listens at {url}: start medclipad serve there, or check the port.")
        return ServerError(message.format(url=url), "refused")
    if number(errno.EHOSTUNREACH, errno.ENETUNREACH) or among(requests.ConnectTimeout):
        message = _("{host} cannot be reached: check the address, the network and its firewall.")
        return ServerError(message.format(host=host), "unreachable")
    if among(requests.Timeout, socket.timeout):
        message = _("{url} did not answer within {seconds} seconds: it may be stuck or very busy.")
        return ServerError(message.format(url=url, seconds=f"{wait:g}"), "timeout")
    if among(requests.exceptions.SSLError):
        message = _("{url} does not speak https as expected: check whether it is http:// instead.")
        return ServerError(message.format(url=url), "address")
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return _no_address(url)
    message = _("{url} broke off in the middle of the request: see whether the server still runs.")
    return ServerError(message.format(url=url), "lost")


def _causes(error: Any, seen: set | None = None) -> Iterator[BaseException]:
    """`error` and the errors that it was raised from, or that it carries."""
    seen = set() if seen is None else seen
    if not isinstance(error, BaseException) or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for inner in (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args):
        yield from _causes(inner, seen)
