"""Connections below the level of an HTTP client: half-sent requests, slow bodies, and headers that no client sends."""

from __future__ import annotations

import socket
import time
from urllib.parse import urlsplit


def connect(url: str, seconds: float = 30.0) -> socket.socket:
    """Return a connection to a server."""
    address = urlsplit(url)
    assert address.hostname is not None and address.port is not None
    return socket.create_connection((address.hostname, address.port), timeout=seconds)


def ask(url: str, path: str = "/info/", *headers: str, method: str = "GET") -> tuple[int, str]:
    """Return status and text of an answer to a request with exactly these headers."""
    with connect(url) as connection:
        lines = [f"{method} {path} HTTP/1.1", *headers, "Connection: close", "", ""]
        connection.sendall("\r\n".join(lines).encode())
        answer = received(connection)
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), body.decode(errors="replace")


def received(connection: socket.socket) -> bytes:
    """Return all that arrives until the server closes the connection."""
    parts = []
    try:
        while part := connection.recv(65536):
            parts.append(part)
    except ConnectionResetError:
        pass
    return b"".join(parts)


def seconds_until_closed(connection: socket.socket, most: float) -> float:
    """Return after how many seconds the server closes a connection."""
    connection.settimeout(most)
    started = time.monotonic()
    received(connection)
    return time.monotonic() - started
