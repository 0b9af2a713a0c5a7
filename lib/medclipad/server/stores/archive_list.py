"""The list of what is in an archive, requested by a thread of its own, so that no lock is held over a network call.

A request waits for a new list only as long as a reader would, and not at all once the archive is known to hang.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from medclipad.server.errors import RequestError

FRESH_SECONDS = 3.0  # how long a list is used before it is requested again
STALE_SECONDS = 60.0  # how long the last list is used if the archive is slow
PATIENCE = 5.0  # seconds that a list may take before requests no longer wait for it
RETRY_PATIENCE = 1.0  # the same after an attempt that failed
HANGING = 2.0  # seconds after which a failure was no refused connection, but an archive that hangs
BACK_OFF = (5.0, 60.0)  # seconds without an attempt after it hung, doubled each time, between these limits
_List = TypeVar("_List")


class ArchiveList(Generic[_List]):
    """The latest list of an archive. Thread-safe.

    Parameters
    ----------
    load
        Requests the list from the archive; raises RequestError.
    """

    def __init__(self, load: Callable[[], _List]) -> None:
        self._load = load
        self._changed = threading.Condition()
        self._list: _List | None = None
        self._loaded = self._started = -float("inf")  # when the request of the last list, and the last request, began
        self._invalid = -float("inf")  # when the list last changed through this server
        self._error: RequestError | None = None
        self._loading = False
        self._hung, self._retry_at = 0, -float("inf")

    @property
    def reachable(self) -> bool:
        """Whether the last attempt succeeded; before the first one, True. It never waits."""
        with self._changed:
            self._start_if(time.monotonic() - self._loaded > FRESH_SECONDS)
            return self._error is None and not self._is_late()

    def last(self) -> _List | None:
        """Return the last list, however old, without waiting; None before the first one. A new one is requested."""
        with self._changed:
            self._start_if(time.monotonic() - self._loaded > FRESH_SECONDS)
            return self._list

    def get(self) -> _List:
        """Return a list that is at most FRESH_SECONDS old, or STALE_SECONDS if the archive is slow.

        Raises
        ------
        RequestError
            The archive's error, or 503 if it does not answer in time.
        """
        with self._changed:
            asked = time.monotonic()
            oldest = max(asked - FRESH_SECONDS, self._invalid)
            while self._list is None or self._loaded < oldest:
                failed_before = self._error is not None and self._started < asked
                if not self._start_if(self._started < oldest or failed_before):
                    raise self._failure()  # of this attempt, or of one before which the archive hung
                if not self._changed.wait(max(self._started + self._patience - time.monotonic(), 0.0)):
                    return self._stale(asked)
            return self._list

    def invalidate(self) -> None:
        """Request a new list at the next access."""
        with self._changed:
            self._invalid = time.monotonic()

    def _failure(self) -> RequestError:
        error = self._error or RequestError(
            "The archive with the studies does not answer: start it, or try again later.", 503, {"Retry-After": "10"}
        )
        return error.with_traceback(None)  # it is raised many times

    def _start_if(self, wanted: bool) -> bool:
        """Start a request if one is wanted and none runs; return whether one runs now."""
        if wanted and not self._loading and time.monotonic() >= self._retry_at:
            self._loading, self._started = True, time.monotonic()
            threading.Thread(target=self._run, args=(self._started,), name="archive-list", daemon=True).start()
        return self._loading

    def _run(self, started: float) -> None:
        try:
            found, error = self._load(), None
        except RequestError as failure:
            found, error = None, failure
        except Exception as failure:  # the thread must end with an answer for those who wait
            found = None
            error = RequestError(f"The archive's list could not be read ({type(failure).__name__}).", 502)
        with self._changed:
            self._loading, self._error = False, error
            if found is not None:
                self._list, self._loaded, self._hung = found, started, 0
            elif time.monotonic() - started > HANGING:
                self._hung += 1
                self._retry_at = time.monotonic() + min(BACK_OFF[0] * 2 ** (self._hung - 1), BACK_OFF[1])
            self._changed.notify_all()

    def _is_late(self) -> bool:
        return self._loading and time.monotonic() - self._started > self._patience

    @property
    def _patience(self) -> float:
        return PATIENCE if self._error is None else RETRY_PATIENCE

    def _stale(self, asked: float) -> _List:
        """Return the last list if it is still good enough; raise the archive's error otherwise."""
        if self._list is not None and self._loaded >= max(asked - STALE_SECONDS, self._invalid):
            return self._list
        raise self._failure()
