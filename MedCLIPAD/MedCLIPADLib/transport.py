"""HTTP requests to a server, and one sentence for each way to fail."""

from __future__ import annotations

import errno
import json
import socket
import ssl
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable
from urllib.parse import urlsplit

from slicer.i18n import tr as _

from MedCLIPADLib.errors import ServerError

CONNECT_TIMEOUT = 5.0  # seconds to wait for a connection
SHORT_TIMEOUT = 30.0  # seconds to wait for any answer but those of inferences and files
LONG_TIMEOUT = 3600.0  # seconds to wait for an inference or a file
BLOCK_SIZE = 256 * 1024  # bytes sent or received between two checks for Cancel

_NOT_YET_VALID, _EXPIRED, _OTHER_NAME, _OTHER_IP = 9, 10, 62, 64  # OpenSSL's X509_V_ERR_* codes

ByteReport = Callable[[int, int], None]  # (bytes done, bytes in total; 0 if not known)


class Transport:
    """A connection to one server, for one thread.

    Parameters
    ----------
    url : str
        Address of the server; ServerError if it is not an HTTP address.
    token : str
        Access token, or "".
    ca_file : str
        File with the certificates of the authorities to trust, or "" for those that Slicer comes with.

    Attributes
    ----------
    url : str
        The address, without a slash at its end.
    token, ca_file : str
        As passed in.
    """

    def __init__(self, url: str, token: str = "", ca_file: str = "") -> None:
        import requests  # here, because it is slow to import and Slicer imports every module at startup

        self.url = validated_address(url)
        self.token = token
        self.ca_file = validated_ca_file(ca_file)
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy to a server that is named by its address
        self._session.verify = self.ca_file or True
        if token:
            # As bytes: requests refuses, and prints, a token that is not Latin-1.
            headers: Any = self._session.headers
            headers["Authorization"] = f"Bearer {validated_token(token)}".encode()

    def json(self, method: str, address: str, **options: Any) -> Any:
        """Send a request and return the JSON of its answer; see `request`."""
        try:
            return self.request(method, address, **options).json()
        except ValueError:
            raise not_medclipad(self.url) from None

    def request(self, method: str, address: str, **options: Any) -> Any:
        """Send a request and return its response.

        Parameters
        ----------
        method : str
            HTTP method.
        address : str
            Path on the server, beginning with "/".
        **options
            Options of `requests.Session.request`; `timeout` is in seconds.

        Raises
        ------
        ServerError
            If the server cannot be reached, or answers with a status of 400 or more.
        """
        import requests

        timeout = options.pop("timeout", SHORT_TIMEOUT)
        try:
            response = self._session.request(
                method,
                self.url + address,
                timeout=(min(CONNECT_TIMEOUT, timeout), timeout),
                allow_redirects=False,  # voxels and token go to the address that the reader entered, or nowhere
                **options,
            )
        except (requests.RequestException, OSError) as error:
            raise connection_error(error, self.url, timeout) from None
        if response.is_redirect:
            raise _redirected(response, self.url)
        if response.status_code >= 400:
            raise status_error(response, self.url)
        return response

    def download(self, address: str, query: dict, path: Path, report: ByteReport | None = None) -> None:
        """Save the file at an address as `path`.

        An exception that `report` raises stops the download.
        """
        import requests

        response = self.request("GET", address, params=query, timeout=LONG_TIMEOUT, stream=True)
        total, done = int(response.headers.get("Content-Length", 0)), 0
        try:
            with response, open(path, "wb") as stream:
                for block in response.iter_content(BLOCK_SIZE):
                    stream.write(block)
                    done += len(block)
                    if report:
                        report(done, total)
        except requests.RequestException as error:
            raise connection_error(error, self.url, LONG_TIMEOUT) from None

    def upload(self, address: str, query: dict, field: str, path: Path, report: ByteReport | None = None) -> Any:
        """PUT a file as multipart/form-data and return the JSON of the answer.

        Parameters
        ----------
        address : str
            Path on the server.
        query : dict
            Parameters of the URL.
        field : str
            Name of the form's field for the file.
        path : Path
            The file.
        report : callable, optional
            Called after each block; an exception that it raises stops the upload.
        """
        with open(path, "rb") as stream:
            body = FormBody(field, path.name, stream, path.stat().st_size, report)
            headers = {"Content-Type": body.content_type}
            return self.json("PUT", address, params=query, data=body, headers=headers, timeout=LONG_TIMEOUT)


class FormBody:
    """A multipart/form-data body with one file, which is read while it is sent.

    Parameters
    ----------
    field, name : str
        Names of the form's field and of the file.
    stream : file object
        The file, open for reading bytes.
    size : int
        Its length in bytes.
    report : callable or None
        Called after each block.

    Attributes
    ----------
    content_type : str
        Value of the request's Content-Type header.
    """

    def __init__(self, field: str, name: str, stream: Any, size: int, report: ByteReport | None) -> None:
        boundary = uuid.uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        self._head = (head + "Content-Type: application/octet-stream\r\n\r\n").encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._stream, self._size, self._report = stream, size, report

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        done = 0
        yield self._head
        for block in iter(lambda: self._stream.read(BLOCK_SIZE), b""):
            done += len(block)
            if self._report:
                self._report(done, self._size)
            yield block
        yield self._tail


def validated_address(url: str) -> str:
    """Return an address without a slash at its end.

    Raises ServerError if it is not an HTTP or HTTPS address.
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

    Raises ServerError if it contains control characters, which no header can carry.
    """
    token = token.strip()
    if any(ord(character) < 32 or ord(character) == 127 for character in token):
        message = _("The access token contains a line break or another control character: copy it again.")
        raise ServerError(message, "token")
    return token


def validated_ca_file(path: str) -> str:
    """Return the path of a CA certificate without surrounding space, or "".

    Raises ServerError if the file contains no certificate.
    """
    path = path.strip()
    if path:
        try:
            ssl.create_default_context(cafile=path)
        except (OSError, ValueError):  # ssl.SSLError is an OSError
            message = _("{path} is not a CA certificate: choose a file in PEM format, which begins with -----BEGIN.")
            raise ServerError(message.format(path=path), "certificate") from None
    return path


def _redirected(response: Any, url: str) -> ServerError:
    """Return the error for a server that names another address."""
    target = urlsplit(response.headers["Location"])
    if target.scheme in ("", urlsplit(url).scheme) and target.netloc in ("", urlsplit(url).netloc):
        return not_medclipad(url)
    if target.scheme == "http" and url.startswith("https:"):
        message = _("{url} redirects to an open connection, which is refused: ask whoever runs the server.")
        return ServerError(message.format(url=url), "address", response.status_code)
    message = _("{url} redirects to {target}: enter that address if you trust it.")
    entered = f"{target.scheme}://{target.netloc}"
    return ServerError(message.format(url=url, target=entered), "address", response.status_code)


def _invalid_address(url: str) -> ServerError:
    message = _("{url} is not a server address: it should look like http://127.0.0.1:8000.")
    return ServerError(message.format(url=repr(url)), "address")


def parse_multipart(response: Any) -> tuple[dict, str, bytes]:
    """Return the parts of an inference's answer, which requests cannot read.

    Parameters
    ----------
    response : requests.Response
        The answer. Its boundary is a random word, so the file cannot contain it.

    Returns
    -------
    params : dict
        The JSON part.
    name : str
        Name of the file.
    content : bytes
        The file.

    Raises
    ------
    ServerError
        If the answer contains no file.
    """
    boundary = response.headers.get("Content-Type", "").partition("boundary=")[2].strip('"').encode()
    params, name, content = {}, "", b""
    for part in (b"\r\n" + response.content).split(b"\r\n--" + boundary)[1:-1] if boundary else []:
        head, _blank, body = part.partition(b"\r\n\r\n")
        if b'name="params"' in head:
            params = json.loads(body)
        elif b'name="image"' in head:
            name, content = head.partition(b'filename="')[2].partition(b'"')[0].decode(), body
    if not name:
        raise ServerError(_("The server's answer contains no map: its version may not match this module."))
    return params, name, content


def not_medclipad(url: str) -> ServerError:
    """Return the error for an address where another program answers."""
    message = _("{url} answers, but it is not a MedCLIPAD server: check the address.")
    return ServerError(message.format(url=url), "not medclipad")


def status_error(response: Any, url: str) -> ServerError:
    """Return the error for a response with a status of 400 or more.

    The server's own errors carry one sentence as `detail`, which becomes the message.
    """
    status = response.status_code
    if status == 401:
        message = _("The server requires an access token: enter the token that it was started with.")
        return ServerError(message, "token", status)
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    if not isinstance(detail, str):
        if status == 503:
            return ServerError(_("{url} is busy: try again in a moment.").format(url=url), "busy", status)
        if status in (404, 405):
            return not_medclipad(url)
        message = _("{url} answered with HTTP {status}: see the log of the server.")
        return ServerError(message.format(url=url, status=status), "answer", status)
    cause = {503: "busy", 429: "busy"}.get(status, "answer")
    if status == 404 and detail == "Not Found":  # FastAPI's answer for an unknown path, whatever the application
        return not_medclipad(url)
    return ServerError(detail, cause, status)


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
    import requests

    causes = list(_causes(error))

    def caused_by(*types: type) -> bool:
        return any(isinstance(cause, types) for cause in causes)

    def has_errno(*numbers: int) -> bool:
        return any(isinstance(cause, OSError) and cause.errno in numbers for cause in causes)

    host = urlsplit(url).hostname
    if caused_by(socket.gaierror):
        message, cause = _("Computer {host} was not found: check the address."), "unknown host"
    elif caused_by(ConnectionRefusedError):
        message, cause = _("No server is running at {url}: start medclipad serve there, or check the port."), "refused"
    elif has_errno(errno.EHOSTUNREACH, errno.ENETUNREACH) or caused_by(requests.ConnectTimeout):
        message = _("Computer {host} cannot be reached: check the address, the network and the firewall.")
        cause = "unreachable"
    elif caused_by(requests.Timeout, socket.timeout):
        message = _("{url} did not answer within {seconds} seconds: the server may be stuck or very busy.")
        cause = "timeout"
    elif caused_by(ssl.SSLCertVerificationError):
        codes = {getattr(found, "verify_code", 0) for found in causes}
        message, cause = _certificate_message(codes), "certificate"
    elif caused_by(requests.exceptions.SSLError, ssl.SSLError):
        message, cause = _("No secure connection to {url} is possible: check the address and the port."), "address"
    elif isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return _invalid_address(url)
    else:
        message, cause = _("The connection to {url} was lost: check whether the server is still running."), "lost"
    return ServerError(message.format(url=url, host=host, seconds=f"{timeout:g}"), cause)


def _certificate_message(codes: set[int]) -> str:
    """Return the sentence for a certificate that OpenSSL refuses with one of these codes."""
    if codes & {_EXPIRED, _NOT_YET_VALID}:
        return _(
            "The certificate of {url} is not valid today: check this computer's date, and ask whoever runs the server "
            "to renew it."
        )
    if codes & {_OTHER_NAME, _OTHER_IP}:
        return _("The certificate of {url} is for another name: enter the address that the certificate names.")
    return _(
        "The certificate of {url} is not trusted: ask whoever runs the server for its CA certificate, and choose that "
        "file under Connection."
    )


def _causes(error: Any, seen: set | None = None) -> Iterator[BaseException]:
    """Yield an error and all errors that it was raised from or contains."""
    seen = set() if seen is None else seen
    if not isinstance(error, BaseException) or id(error) in seen:
        return
    seen.add(id(error))
    yield error
    for inner in (error.__cause__, error.__context__, getattr(error, "reason", None), *error.args):
        yield from _causes(inner, seen)
