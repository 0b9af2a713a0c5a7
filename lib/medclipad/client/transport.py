"""HTTP requests to a server; files are sent and received in blocks."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import requests

from medclipad.client.failures import (
    ServerError,
    connection_error,
    connection_lost,
    not_medclipad,
    status_error,
    validated_address,
    validated_token,
)
from medclipad.files import atomic_file

CONNECT_TIMEOUT = 5.0  # seconds to wait for a connection
SHORT_TIMEOUT = 30.0  # seconds to wait for any answer but those of inferences and files
BLOCK_SIZE = 256 * 1024  # bytes sent or received between two calls of a progress callback

ByteProgress = Callable[[int, int], None]  # (bytes done, bytes in total; 0 if not known)


class Transport:
    """A connection to one server, for one thread.

    Parameters
    ----------
    url : str
        Address of the server.
    token : str, optional
        Access token.
    timeout : float
        Seconds to wait for an inference or a file.

    Attributes
    ----------
    url : str
        The address, without a slash at its end.
    token, timeout
        As passed in.

    Raises
    ------
    ServerError
        If the address is not one of HTTP or HTTPS, or the token cannot be sent.
    """

    def __init__(self, url: str, token: str | None = None, timeout: float = 600.0) -> None:
        self.url = validated_address(url)
        self.token = token
        self.timeout = timeout
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy to a server that is named by its address
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

    def request(self, method: str, address: str, **options: Any) -> requests.Response:
        """Send a request and return its response.

        Parameters
        ----------
        method : str
            HTTP method.
        address : str
            Path on the server, beginning with "/".
        **options
            Options of `requests.Session.request`; `timeout` is in seconds.

        Returns
        -------
        requests.Response
            A response with a status below 400.

        Raises
        ------
        ServerError
            If the server cannot be reached, or answers with a status of 400 or more.
        """
        timeout = options.pop("timeout", SHORT_TIMEOUT)
        waits = (min(CONNECT_TIMEOUT, timeout), timeout)
        try:
            response = self._session.request(method, self.url + address, timeout=waits, **options)
        except (requests.RequestException, OSError, ValueError) as error:
            raise connection_error(error, self.url, timeout) from None
        if response.status_code >= 400:
            raise status_error(response, self.url)
        return response

    def send_file(self, method: str, address: str, query: dict[str, str], form: FormBody) -> requests.Response:
        """Send a form with a file and return the response.

        Raises
        ------
        ServerError
            If the request fails; see `request`.
        Exception
            What the form's progress callback raised, or reading the file.
        """
        headers = {"Content-Type": form.content_type}
        try:
            return self.request(method, address, params=query, data=form, headers=headers, timeout=self.timeout)
        except ServerError:
            if form.error is not None:
                raise form.error from None
            raise

    def upload(
        self, address: str, query: dict[str, str], field: str, path: Path, progress: ByteProgress | None = None
    ) -> Any:
        """PUT a file as multipart/form-data and return the JSON of the answer; see `send_file`.

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
        progress : callable, optional
            Called after each block; an exception that it raises stops the upload.
        """
        with open(path, "rb") as stream:
            response = self.send_file("PUT", address, query, FormBody(field, path.name, stream, progress=progress))
        try:
            return response.json()
        except ValueError:
            raise not_medclipad(self.url) from None

    def download(self, address: str, query: dict[str, str], path: Path, progress: ByteProgress | None = None) -> None:
        """Save the file at an address as `path`, completely or not at all.

        An exception that `progress` raises stops the download.
        """
        response = self.request("GET", address, params=query, timeout=self.timeout, stream=True)
        total, done = int(response.headers.get("Content-Length", 0)), 0
        with response, atomic_file(path) as temp_path, open(temp_path, "wb") as stream:
            for block in self._blocks(response):
                stream.write(block)
                done += len(block)
                if progress:
                    progress(done, total)
            if done < total:  # requests before 2.32 does not notice
                raise connection_lost(self.url)

    def _blocks(self, response: requests.Response) -> Iterator[bytes]:
        try:
            yield from response.iter_content(BLOCK_SIZE)
        except requests.RequestException as error:
            raise connection_error(error, self.url, self.timeout) from None


class FormBody:
    """A multipart/form-data body with one file, which is read while it is sent.

    Parameters
    ----------
    field, name : str
        Names of the form's field and of the file.
    stream : file object
        The file, open for reading bytes.
    texts : dict, optional
        Fields of the form with a text, by name.
    progress : callable, optional
        Called after each block.

    Attributes
    ----------
    content_type : str
        Value of the request's Content-Type header.
    error : BaseException or None
        What stopped the body: raised by `progress`, or by reading the file.
    """

    def __init__(
        self,
        field: str,
        name: str,
        stream: BinaryIO,
        texts: Mapping[str, str] | None = None,
        progress: ByteProgress | None = None,
    ) -> None:
        boundary = uuid.uuid4().hex
        self.content_type = f"multipart/form-data; boundary={boundary}"
        self.error: BaseException | None = None
        disposition = f"--{boundary}\r\nContent-Disposition: form-data; name="
        parts = [f'{disposition}"{_quoted(key)}"\r\n\r\n{text}\r\n' for key, text in (texts or {}).items()]
        parts.append(f'{disposition}"{_quoted(field)}"; filename="{_quoted(name)}"\r\n')
        parts.append("Content-Type: application/octet-stream\r\n\r\n")
        self._head = "".join(parts).encode()
        self._tail = f"\r\n--{boundary}--\r\n".encode()
        self._stream, self._size, self._progress = stream, os.fstat(stream.fileno()).st_size, progress

    def __len__(self) -> int:
        return len(self._head) + self._size + len(self._tail)

    def __iter__(self) -> Iterator[bytes]:
        done = 0
        yield self._head
        while block := self._next_block(done):
            done += len(block)
            yield block
        yield self._tail

    def _next_block(self, done: int) -> bytes:
        """Return the next block of the file, and report it."""
        try:
            block = self._stream.read(BLOCK_SIZE)
            if block and self._progress:
                self._progress(done + len(block), self._size)
        except BaseException as error:
            self.error = error
            raise
        return block


def _quoted(name: str) -> str:
    """Return a name as browsers write it in a form's headers."""
    return name.replace("\r", "%0D").replace("\n", "%0A").replace('"', "%22")


def parse_multipart(response: requests.Response) -> tuple[dict[str, Any], str, bytes]:
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
    params: dict[str, Any] = {}
    name, content = "", b""
    for part in (b"\r\n" + response.content).split(b"\r\n--" + boundary)[1:-1] if boundary else []:
        head, _, body = part.partition(b"\r\n\r\n")
        if b'name="params"' in head:
            params = json.loads(body)
        elif b'name="image"' in head:
            name, content = head.partition(b'filename="')[2].partition(b'"')[0].decode(), body
    if not name:
        raise ServerError("The server's answer contains no map: its version may not match this client.")
    return params, name, content
