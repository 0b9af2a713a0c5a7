"""DetectionQueue under way: their progress, their cancelling, and how many may wait."""

from __future__ import annotations

import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from medclipad.errors import Cancelled
from medclipad.server.errors import RequestError

WAITING_ROOM = 16  # inferences accepted at a time, the running one included
REMEMBERED = 64  # finished jobs whose outcome can still be asked for


class Job:
    """One inference. `report` is the progress callback of a detector: it raises Cancelled once `cancel` was called."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "queued"  # queued | running | done | failed | cancelled
        self._phase, self._done, self._total, self._info = "", 0, 0, {}
        self._started = time.monotonic()
        self._ended: float | None = None
        self._cancelled = threading.Event()

    def report(self, phase: str, done: int, total: int, info: dict[str, Any] | None = None) -> None:
        self.check()
        self.update(phase, done, total, info)

    def update(self, phase: str, done: int, total: int, info: dict[str, Any] | None = None) -> None:
        """Note how far it is, cancelled or not."""
        self.state = "running"
        self._phase, self._done, self._total, self._info = phase, done, total, dict(info or {})

    def check(self) -> None:
        """Raise Cancelled if the job was."""
        if self._cancelled.is_set():
            raise Cancelled("The inference was cancelled.")

    def cancel(self) -> None:
        self._cancelled.set()

    def end(self, state: str) -> None:
        self.state, self._ended = state, time.monotonic()

    @property
    def active(self) -> bool:
        return self._ended is None

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def json(self) -> dict[str, Any]:
        return {
            "id": self.name,
            "state": self.state,
            "phase": self._phase,
            "done": self._done,
            "total": self._total,
            "fraction": self._done / self._total if self._total else 0.0,
            "seconds": round((self._ended or time.monotonic()) - self._started, 2),
            "info": self._info,
        }


class Jobs:
    """All jobs of a server, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def get(self, name: str) -> Job:
        with self._lock:
            if name not in self._jobs:
                raise RequestError(f"There is no request {name!r}.", 404)
            return self._jobs[name]

    @contextmanager
    def open(self, name: str = "") -> Iterator[Job]:
        """A job that ends with the block. RequestError 503 if too many wait, 409 if the name is in use."""
        job = Job(name or uuid.uuid4().hex)
        with self._lock:
            if sum(other.active for other in self._jobs.values()) >= WAITING_ROOM:
                raise RequestError("Too many inferences are waiting: try again in a moment.", 503, {"Retry-After": "5"})
            if job.name in self._jobs and self._jobs[job.name].active:
                raise RequestError(f"A request {job.name!r} is under way already.", 409)
            self._jobs[job.name] = job
            self._jobs.move_to_end(job.name)
            for old in [name for name, other in self._jobs.items() if not other.active][:-REMEMBERED]:
                del self._jobs[old]
        try:
            yield job
        except Cancelled:
            job.end("cancelled")
            raise
        except BaseException:
            job.end("failed")
            raise
        else:
            job.end("done")

    @property
    def busy(self) -> bool:
        """Whether anybody waits for an inference."""
        with self._lock:
            return any(job.active for job in self._jobs.values())

    def cancel_all(self) -> None:
        with self._lock:
            for job in self._jobs.values():
                job.cancel()
