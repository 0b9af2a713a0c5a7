"""What every request must pass before its route: rate, token, origin and size of the body."""

from __future__ import annotations

import hmac
import math
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medclipad.server.security import LOOPBACK
from medclipad.server.security.rate_limit import RateLimit

BODY_LIMIT = 2 * 1024**3  # bytes; a float32 volume of 512 x 512 x 1024 is 1 GiB
PLAIN_LIMIT = 1024**2  # bytes of a body without files: FastAPI holds it in memory, whereas files go to the disk


class TooLargeError(Exception):
    """The body of a request exceeded the limit while it was read."""


class Guard:
    """ASGI middleware that refuses requests before they reach a route.

    With a token, every request must carry `Authorization: Bearer TOKEN`. Without one, the server listens on this
    machine only, and web pages of other sites that are open in a browser here must not reach it: neither by a request
    of their own (Origin) nor through a host name that points at 127.0.0.1 (Host). The rate limit of an address counts
    requests without a valid token too, so that the token cannot be guessed quickly.

    Parameters
    ----------
    app
        The application behind the guard.
    token
        Access token that requests must carry; None for none.
    limit
        Largest body in bytes.
    rate
        Rate limit by address; by default the one that the environment sets.
    """

    def __init__(self, app: ASGIApp, token: str | None, limit: int = BODY_LIMIT, rate: RateLimit | None = None) -> None:
        self._app, self._limit = app, limit
        self._token = token.encode() if token else None
        self._rate = rate or RateLimit.from_environment()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 400, 401, 403, 413 or 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        limit = self._limit if _has_files(headers) else min(self._limit, PLAIN_LIMIT)
        refusal = self._check_rate(scope) or self._check_headers(headers, limit)
        if refusal is not None:
            await refusal(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, _limited(receive, limit), watched_send)
        except TooLargeError:
            if not started:
                await _too_large(limit)(scope, receive, send)

    def _check_rate(self, scope: Scope) -> JSONResponse | None:
        wait = self._rate.wait((scope.get("client") or ("",))[0])
        if not wait:
            return None
        return _refusal(429, "Too many requests: wait a moment.", {"Retry-After": str(math.ceil(wait))})

    def _check_headers(self, headers: Headers, limit: int) -> JSONResponse | None:
        if self._token is not None:
            scheme, _, given = headers.get("authorization", "").partition(" ")
            if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode(), self._token):
                detail = "The server requires an access token: send Authorization: Bearer TOKEN."
                return _refusal(401, detail, {"WWW-Authenticate": "Bearer"})
        elif _host(headers.get("host", "")) not in LOOPBACK:
            return _refusal(400, "The server accepts requests to 127.0.0.1 and localhost only.")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != headers.get("host"):
            return _refusal(403, "The server does not accept requests from web pages of other sites.")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > limit:
            return _too_large(limit)
        return None


def _limited(receive: Receive, limit: int) -> Receive:
    """Return `receive` with a limit, for bodies that do not declare their length."""
    total = 0

    async def limited_receive() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        if total > limit:
            raise TooLargeError(_size_message(limit))
        return message

    return limited_receive


def _refusal(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status_code=status, headers=headers)


def _too_large(limit: int) -> JSONResponse:
    return _refusal(413, _size_message(limit), {"Connection": "close"})


def _size_message(limit: int) -> str:
    return f"The request is too large: at most {limit // 1024**2} MiB are accepted here."


def _has_files(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


def _host(header: str) -> str:
    return urlsplit(f"//{header}").hostname or ""
