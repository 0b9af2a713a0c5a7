"""Threads for each kind of work: a request that waits for one holds none.

FastAPI runs plain functions in one pool of 40 threads. A route that waits there, for a volume to be read or for an
archive, keeps everybody else out, GET /info/ included. Such routes run in a pool of their own kind instead.
"""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from typing import ParamSpec, TypeVar

from anyio import CapacityLimiter, to_thread

from medclipad.server.errors import RequestError
from medclipad.server.inference.jobs import MAX_ACTIVE

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")


class WorkPool:
    """Threads for one kind of work.

    Parameters
    ----------
    threads
        Pieces of work that run at once.
    waiting
        Requests that may wait for a thread; further ones are refused with 503.

    Examples
    --------
    Use it as a decorator, below that of the route:

    >>> pool = WorkPool(threads=1, waiting=8)
    >>> @pool
    ... def route(image: str) -> str:
    ...     return image
    """

    def __init__(self, threads: int, waiting: int) -> None:
        self._threads, self._most = threads, threads + waiting
        self._requests = 0

    @functools.cached_property
    def _limiter(self) -> CapacityLimiter:
        return CapacityLimiter(self._threads)  # made on the event loop that it belongs to

    @property
    def requests(self) -> int:
        """Number of requests that run or wait."""
        return self._requests

    def __call__(self, function: Callable[_Parameters, _Result]) -> Callable[_Parameters, Awaitable[_Result]]:
        """Return a function that runs another one in this pool."""

        @functools.wraps(function)
        async def run(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
            if self._requests >= self._most:
                raise RequestError(
                    "The server is busy with other requests: try again shortly.", 503, {"Retry-After": "5"}
                )
            self._requests += 1
            try:
                return await to_thread.run_sync(functools.partial(function, *args, **kwargs), limiter=self._limiter)
            finally:
                self._requests -= 1

        return run


READING = WorkPool(threads=4, waiting=124)
"""Routes that read whole volumes; READ_SLOTS decides how many are in memory at once."""

STUDIES = WorkPool(threads=8, waiting=248)
"""Routes that ask the studies, which may have to ask an archive."""

INFERENCE = WorkPool(threads=MAX_ACTIVE + 4, waiting=44)
"""Inferences: MAX_ACTIVE of them wait in a thread until they are computed; the others are stored results."""
