"""Inference requests: their progress, how to cancel them, and how many may be active."""

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

MAX_ACTIVE = 16  # inferences accepted at a time, the running one included: each holds a connection and a thread
MAX_FINISHED = 64  # finished jobs whose outcome can still be requested


class Job:
    """One inference request.

    Attributes
    ----------
    name
        The request's id.
    state
        "queued", "running", "done", "failed" or "cancelled".
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.state = "queued"
        self._phase, self._done, self._total = "", 0, 0
        self._info: dict[str, Any] = {}
        self._started = time.monotonic()
        self._ended: float | None = None
        self._cancelled = threading.Event()

    def report(self, phase: str, done: int, total: int, info: dict[str, Any] | None = None) -> None:
        """Store the progress, as the progress callback of a detector; raise Cancelled once the job is cancelled."""
        self.check()
        self.update(phase, done, total, info)

    def update(self, phase: str, done: int, total: int, info: dict[str, Any] | None = None) -> None:
        """Store the progress, whether or not the job is cancelled."""
        self.state = "running"
        self._phase, self._done, self._total, self._info = phase, done, total, dict(info or {})

    def check(self) -> None:
        """Raise Cancelled if the job is cancelled."""
        if self._cancelled.is_set():
            raise Cancelled("The inference was cancelled.")

    def cancel(self) -> None:
        """Ask the job to stop; it does at its next report."""
        self._cancelled.set()

    def end(self, state: str) -> None:
        """End the job in the given state."""
        self.state, self._ended = state, time.monotonic()

    @property
    def active(self) -> bool:
        """Whether the job waits or runs."""
        return self._ended is None

    @property
    def cancelled(self) -> bool:
        """Whether the job was asked to stop."""
        return self._cancelled.is_set()

    def json(self) -> dict[str, Any]:
        """Return what GET /progress/{id} answers."""
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
    """The inference requests of a server, by name."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def get(self, name: str) -> Job:
        """Return a job by name; raise RequestError 404 if there is none."""
        with self._lock:
            if name not in self._jobs:
                raise RequestError(f"Request {name!r} was not found.", 404)
            return self._jobs[name]

    @contextmanager
    def open(self, name: str = "") -> Iterator[Job]:
        """Run the block as a job, which ends with the block.

        Parameters
        ----------
        name
            Name of the job; a random one by default.

        Raises
        ------
        RequestError
            503 if too many jobs are active, 409 if an active job has this name.
        """
        job = Job(name or uuid.uuid4().hex)
        with self._lock:
            if sum(other.active for other in self._jobs.values()) >= MAX_ACTIVE:
                raise RequestError("Too many inferences are waiting: try again in a moment.", 503, {"Retry-After": "5"})
            if job.name in self._jobs and self._jobs[job.name].active:
                raise RequestError(f"A request {job.name!r} is already running: choose another id.", 409)
            self._jobs[job.name] = job
            self._jobs.move_to_end(job.name)
            finished = [name for name, other in self._jobs.items() if not other.active]
            for old in finished[:-MAX_FINISHED]:
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
    def active(self) -> int:
        """Number of requests that wait for an inference."""
        with self._lock:
            return sum(job.active for job in self._jobs.values())

    def cancel_all(self) -> None:
        """Cancel all jobs."""
        with self._lock:
            for job in self._jobs.values():
                job.cancel()
