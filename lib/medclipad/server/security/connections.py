"""Connections: how many may be open, and how long a client may take to send its request.

Limits that come before the first byte of a request is understood: an attacker without the token must not be able to use
up the connections that everybody needs. uvicorn has no time-out for headers and no limit for each address.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

try:
    import resource
except ImportError:  # Windows, which does not limit how many files a process opens
    resource = None

HEADER_SECONDS = 10.0  # from the connection, or the last answer, to the end of the next request's headers
TAKE_SECONDS = 60.0  # for a client to take the part of an answer, at most 1 MiB, that was sent last
PER_ADDRESS = 128  # connections; a browser opens 6, a proxy some dozens
TOTAL = 512  # connections, or a quarter of the files that the process may open: as many may be arriving or closing
BACKLOG = 64  # connections that the system accepts before we see them: asyncio takes as many in one go
_REFUSAL = json.dumps({"detail": "Too many requests are being answered: try again shortly."}).encode()
_REFUSAL_HEAD = (
    "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nConnection: close\r\n"
    f"Retry-After: 5\r\nContent-Length: {len(_REFUSAL)}\r\n\r\n"
).encode()


def total_limit() -> int:
    """Return how many connections may be open, so that files are left for the requests themselves."""
    return TOTAL if resource is None else min(TOTAL, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 4)


def raise_file_limit() -> None:
    """Let this process open as many files as the system allows it, up to 4096."""
    if resource is None:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class ServerLoop(asyncio.SelectorEventLoop):
    """Event loop whose servers drop a client that does not finish the handshake of TLS in time.

    Until then it has no `LimitedProtocol`, and asyncio alone would wait for 60 s.
    """

    async def create_server(self, *args: Any, **options: Any) -> asyncio.Server:
        """Listen on sockets, as asyncio does."""
        handshake = {"ssl_handshake_timeout": HEADER_SECONDS} if options.get("ssl") else {}
        return await super().create_server(*args, **{**handshake, **options})


class LimitedProtocol(H11Protocol):
    """HTTP/1.1 connection that is closed if no request is sent in time, or if another one needs its place.

    A new connection always gets a place, as long as one of the same address (or, where the server is full, of the
    address with the most connections) is not being answered: the oldest of these is closed. So half-sent requests never
    keep a client out, not even one at the same address.
    """

    _timer: asyncio.TimerHandle | None = None
    _take_timer: asyncio.TimerHandle | None = None
    _opened = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a new connection, or refuse it with 503 if all others are being answered."""
        super().connection_made(transport)
        self._opened = self.loop.time()
        self._start_timer(HEADER_SECONDS)
        if not self._make_room():
            transport.write(_REFUSAL_HEAD + _REFUSAL)
            transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget a connection."""
        self._stop_timer()
        self.resume_writing()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """Wait for the client to take what was sent, but not for ever: it holds a file, and a place."""
        super().pause_writing()
        self._take_timer = self.loop.call_later(TAKE_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        """Send the next part."""
        if self._take_timer is not None:
            self._take_timer.cancel()
            self._take_timer = None
        super().resume_writing()

    def handle_events(self) -> None:
        """Parse what has arrived; the time limit for headers ends with them."""
        super().handle_events()
        if self.answering:
            self._stop_timer()

    def on_response_complete(self) -> None:
        """Wait for the next request of the same connection."""
        super().on_response_complete()
        if not self.answering:
            self._opened = self.loop.time()
            self._start_timer(HEADER_SECONDS)

    @property
    def answering(self) -> bool:
        """Whether a complete header was received whose answer has not been sent."""
        return self.cycle is not None and not self.cycle.response_complete

    @property
    def address(self) -> str:
        """Address of the other end of the socket; no header can change it."""
        return self.client[0] if self.client else ""

    def _make_room(self) -> bool:
        """Close the oldest connection that is not being answered if there are too many; return False if all are."""
        others: list[Any] = [connection for connection in self.connections if not connection.transport.is_closing()]
        counts: dict[str, int] = {}
        for connection in others:
            counts[connection.address] = counts.get(connection.address, 0) + 1
        if counts.get(self.address, 0) > PER_ADDRESS:
            address = self.address
        elif len(others) > total_limit():
            address = max(counts, key=lambda name: counts[name])
        else:
            return True
        idle = [
            connection
            for connection in others
            if connection is not self
            and connection.address == address
            and not connection.answering
            and connection._take_timer is None
        ]
        if idle:
            min(idle, key=lambda connection: connection._opened).transport.abort()
        return bool(idle)

    def _start_timer(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = self.loop.call_later(seconds, self._expire)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _expire(self) -> None:
        """Close the connection, unless the rest of the last answer is still being taken."""
        if self._take_timer is not None:
            self._start_timer(HEADER_SECONDS)
        else:
            self.transport.abort()
