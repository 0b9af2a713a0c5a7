"""What every request must pass before its route: peer, site, rate, token, role, and size and pace of the body."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from medclipad.server.metrics import REQUESTS
from medclipad.server.security import LOOPBACK
from medclipad.server.security.access import LOCAL, Tokens, User, required_role
from medclipad.server.security.audit import record
from medclipad.server.security.rate_limit import RateLimit

BODY_LIMIT = 2 * 1024**3  # bytes; a float32 volume of 512 x 512 x 1024 is 1 GiB
PLAIN_LIMIT = 1024**2  # bytes of a body without files: FastAPI holds it in memory, whereas files go to the disk
BODY_SECONDS = 30.0  # between two parts of a body
BODY_PACE = 1024.0  # bytes a second that a body must bring on average, after BODY_SECONDS
OPEN_PATHS = ("/health", "/health/live")  # for load balancers and containers: they have no token, and see no data
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}


class BodyError(Exception):
    """The body of a request could not be received.

    Attributes
    ----------
    status
        HTTP status of the answer.
    """

    status = 400


class TooLargeError(BodyError):
    """The body of a request exceeded the limit while it was read."""

    status = 413


class TooSlowError(BodyError):
    """The body of a request arrived too slowly, or stopped."""

    status = 408


class Guard:
    """ASGI middleware that refuses requests before they reach a route.

    With tokens, every request must carry `Authorization: Bearer TOKEN`, and the token's role must include what the
    request does. Without, only this machine may speak: both ends of the socket must be the loopback address, which no
    header can pretend, and no proxy may stand between. Web pages of other sites that are open in a browser here must
    not reach the server: neither by a request of their own (Origin, Sec-Fetch-Site) nor through a host name that points
    at 127.0.0.1 (Host). The rate limit counts requests without a valid token too: tokens cannot be guessed quickly.

    Parameters
    ----------
    app
        The application behind the guard.
    tokens
        Tokens of which requests must carry one; none for this machine alone.
    limit
        Largest body in bytes.
    rate
        Rate limit by address; by default the one that the environment sets.
    """

    def __init__(
        self, app: ASGIApp, tokens: Tokens | None = None, limit: int = BODY_LIMIT, rate: RateLimit | None = None
    ) -> None:
        self._app, self._limit = app, limit
        self._tokens = tokens or Tokens([])
        self._rate = rate or RateLimit.from_environment()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 400, 401, 403, 408, 413 or 429."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.monotonic()
        headers = Headers(scope=scope)
        limit = self._limit if _has_files(headers) else min(self._limit, PLAIN_LIMIT)
        answer = _Answer(send)
        user = LOCAL if not self._tokens else self._tokens.user(headers.get("authorization", ""))
        refusal = self._check_rate(scope) or self._check_peer(scope, headers, user) or _check_size(headers, limit)
        if refusal is not None:
            await refusal(scope, receive, answer.send)
        else:
            scope["user"] = user
            try:
                await self._app(scope, _limited(receive, limit), answer.send)
            except BodyError as error:
                if not answer.status:
                    await _refusal(error.status, str(error))(scope, receive, answer.send)
        route = getattr(scope.get("route"), "path", "-")  # the pattern: the path itself may hold a name
        REQUESTS.observe(_method(scope), route, answer.status, time.monotonic() - started)
        record(scope, user, route, answer.status)

    def _check_rate(self, scope: Scope) -> JSONResponse | None:
        wait = self._rate.wait((scope.get("client") or ("",))[0])
        if not wait:
            return None
        return _refusal(429, "Too many requests: wait a moment.", {"Retry-After": str(math.ceil(wait))})

    def _check_peer(self, scope: Scope, headers: Headers, user: User | None) -> JSONResponse | None:
        origin = headers.get("origin")
        foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
        if foreign or headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return _refusal(403, "The server does not accept requests from web pages of other sites.")
        if self._tokens:
            if scope["path"] in OPEN_PATHS:
                return None
            if user is None:
                detail = "The server requires an access token: send Authorization: Bearer TOKEN."
                return _refusal(401, detail, {"WWW-Authenticate": "Bearer"})
            role = required_role(scope["method"], scope["path"])
            if not user.may(role):
                return _refusal(403, f"This token has the role {user.role}; the request needs {role}.")
            return None
        if not (_is_loopback(scope.get("client")) and _is_loopback(scope.get("server"))):
            return _refusal(403, "Without a token, the server answers this machine only: set one with --token-file.")
        if any(name in headers for name in _FORWARDED):
            return _refusal(403, "Behind a proxy, the server needs a token: set one with --token-file.")
        if _host(headers.get("host", "")) not in LOOPBACK:
            return _refusal(400, "The server accepts requests to 127.0.0.1 and localhost only.")
        return None


class _Answer:
    """An answer on its way to the client, with headers that keep other sites' pages from using it."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0  # 0 until it has started

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await self._send(message)


def _limited(receive: Receive, limit: int) -> Receive:
    """Return `receive` with limits of size and pace, for bodies that do not declare their length, or stop."""
    total, started, ended = 0, time.monotonic(), False

    async def limited_receive() -> Message:
        nonlocal total, ended
        if ended:  # what may come now is that the client goes away, at any time
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), BODY_SECONDS)
        except TimeoutError:
            raise TooSlowError("The request stopped in the middle: send it again.") from None
        total += len(message.get("body", b""))
        ended = not message.get("more_body", False)
        if total > limit:
            raise TooLargeError(_size_message(limit))
        seconds = time.monotonic() - started
        if not ended and seconds > BODY_SECONDS and total < seconds * BODY_PACE:
            raise TooSlowError("The request arrives too slowly: send it over a faster connection.")
        return message

    return limited_receive


def _check_size(headers: Headers, limit: int) -> JSONResponse | None:
    length = headers.get("content-length", "0")
    return None if length.isdecimal() and int(length) <= limit else _refusal(413, _size_message(limit))


def _refusal(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return a refusal after which the connection is closed: its body must not be awaited."""
    return JSONResponse({"detail": detail}, status_code=status, headers={"Connection": "close", **(headers or {})})


def _size_message(limit: int) -> str:
    return f"The request is too large: at most {limit // 1024**2} MiB are accepted here."


def _has_files(headers: Headers) -> bool:
    return headers.get("content-type", "").lower().startswith("multipart/form-data")


def _method(scope: Scope) -> str:
    """Return the method of a request; "other" for one of a client's own, of which there may be any number."""
    return scope["method"] if scope["method"] in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS") else "other"


def _host(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:  # such as "[::1"
        return ""


def _is_loopback(end: tuple[str, int] | None) -> bool:
    """Return whether an end of a socket is this machine's own address, also as IPv6 writes it."""
    if end is None:
        return False
    try:
        address = ipaddress.ip_address(end[0])
    except ValueError:
        return False
    return str(getattr(address, "ipv4_mapped", None) or address) in LOOPBACK
