"""A small HTTP server that fails as a test plans."""

from __future__ import annotations

import http.server
import socket
import threading
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Answer:
    """A complete answer to every request."""

    status: int = 200
    body: bytes = b"{}"
    headers: dict[str, str] = field(default_factory=dict)


HANG = "hang"  # read the request, and stay silent
CUT = "cut"  # announce more bytes than are sent
DROP = "drop"  # close the connection before the request is read


class _Handler(http.server.BaseHTTPRequestHandler):
    server: FaultServer

    def _answer(self) -> None:
        plan = self.server.plan
        if plan == DROP:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            self.connection.close()
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if plan == HANG:
            self.server.released.wait(10)
        elif plan == CUT:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nonly this")
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
        elif isinstance(plan, Answer):
            self.send_response(plan.status)
            for name, value in {"Content-Length": str(len(plan.body)), **plan.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(plan.body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _answer  # noqa: N815

    def log_message(self, *_: Any) -> None:
        pass


class FaultServer(http.server.ThreadingHTTPServer):
    """Answers every request as `plan` says, on a port of its own, while its block lasts."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.plan: Answer | str = Answer()
        self.released = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> FaultServer:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.shutdown()
        self.server_close()

    def handle_error(self, *_: Any) -> None:
        """Say nothing of connections that the client or the plan broke."""
