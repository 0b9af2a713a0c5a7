"""What stands before every route: rate, token, origin, and the size of what is sent."""

from __future__ import annotations

import hmac
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from medclipad.server.launch import LOOPBACK
from medclipad.server.security.rate_limit import RateLimit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

BODY_LIMIT = 2 * 1024**3  # bytes; a float32 volume of 512 x 512 x 1024 is 1 GiB
PLAIN_LIMIT = 1024**2  # bytes of anything but a form with files, which alone goes to the disk and not to memory


class TooLargeError(Exception):
    """The body went over the limit while it was read."""


class Guard:
    """ASGI middleware.

    With a token, each request must carry `Authorization: Bearer TOKEN`. Without one, the server listens on this machine
    only, and a page of another site, opened in a browser here, must not get at it: neither by a request of its own
    (Origin) nor by a host name that it points at 127.0.0.1 (Host). Every address has its rate of requests, those
    without the token included: it cannot be guessed fast.
    """

    def __init__(
        self, app: Callable, token: str | None, limit: int = BODY_LIMIT, rate: RateLimit | None = None
    ) -> None:
        self._app, self._limit = app, limit
        self._token = token.encode() if token else None
        self._rate = rate or RateLimit.from_environment()

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit if _brings_files(headers) else min(self._limit, PLAIN_LIMIT)
        refusal = self._too_often(scope) or self._refuse(headers, limit)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        started = False

        async def watch(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, self._counted(receive, limit), watch)
        except TooLargeError:
            if not started:
                await _too_large(limit)(scope, receive, send)

    def _too_often(self, scope: MutableMapping[str, Any]) -> JSONResponse | None:
        wait = self._rate.wait((scope.get("client") or ("",))[0])
        if not wait:
            return None
        return _answer(429, "Too many requests: wait a moment.", {"Retry-After": str(math.ceil(wait))})

    def _refuse(self, headers: Headers, limit: int) -> JSONResponse | None:
        if self._token is not None:
            kind, _, given = headers.get("authorization", "").partition(" ")
            if kind.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
                detail = "This server needs its token: send Authorization: Bearer TOKEN."
                return _answer(401, detail, {"WWW-Authenticate": "Bearer"})
        elif _host(headers.get("host", "")) not in LOOPBACK:
            return _answer(400, "This server answers to 127.0.0.1 and localhost only.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return _answer(403, "This server does not take requests from pages of other sites.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            return _too_large(limit)
        return None

    def _counted(self, receive: Receive, limit: int) -> Receive:
        """`receive`, for bodies that do not say how long they are."""
        total = 0

        async def counted() -> Message:
            nonlocal total
            message = await receive()
            total += len(message.get("body", b""))
            if total > limit:
                raise TooLargeError(_long(limit))
            return message

        return counted


def _answer(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def _too_large(limit: int) -> JSONResponse:
    return _answer(413, _long(limit), {"Connection": "close"})


def _long(limit: int) -> str:
    return f"Such a request may be at most {limit // 1024**2} MiB long."


def _brings_files(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


def _host(header: str) -> str:
    return urlsplit(f"//{header}").hostname or ""
