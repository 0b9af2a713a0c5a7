"""Long work in threads.

A thread never touches MRML or widgets: it gets plain data and returns plain data. What it reports goes through a queue
that the main thread drains: a QTimer in Slicer, a loop in tests.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any, Callable

from slicer.i18n import tr as _

from MedCLIPADLib.errors import Cancelled, ModuleError

Progress = Callable[[str, int, int], None]  # (phase, done, total; 0 if not known)
MAX_DRAIN_TIME = 0.02  # seconds that one `drain` may block the interface


class Job:
    """One piece of work in a thread.

    Parameters
    ----------
    owner : Jobs
        Whose queue the job's callbacks go through.
    name : str
        Name of the job, in its log entries and error messages.

    Attributes
    ----------
    name : str
        As passed in.
    started : float
        Time of the start, by `time.monotonic`.
    on_progress : callable or None
        Called in the main thread with each report.
    """

    def __init__(self, owner: Jobs, name: str) -> None:
        self.name = name
        self._owner = owner
        self._cancelled = threading.Event()
        self._over = threading.Event()
        self.started = time.monotonic()
        self.on_progress: Progress | None = None

    def cancel(self) -> None:
        """Ask the job to end; its thread notices at the next `check` or `report`."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether `cancel` was called."""
        return self._cancelled.is_set()

    @property
    def active(self) -> bool:
        """Whether the job's last callback has not been called yet."""
        return not self._over.is_set()

    @property
    def seconds(self) -> float:
        """Time since the start."""
        return time.monotonic() - self.started

    def check(self) -> None:
        """Raise Cancelled if the job was cancelled."""
        if self.cancelled:
            raise Cancelled

    def wait(self, seconds: float) -> bool:
        """Sleep, and return whether the job was cancelled, which ends the sleep."""
        return self._cancelled.wait(seconds)

    def report(self, phase: str, done: int = 0, total: int = 0) -> None:
        """Report progress to `on_progress`; raise Cancelled if the job was cancelled.

        Parameters
        ----------
        phase : str
            What the job is doing, for the reader.
        done, total : int
            How much of the phase is done; `total` is 0 if not known.
        """
        self.check()
        self.post(lambda: None if self.on_progress is None else self.on_progress(phase, done, total))

    def post(self, callback: Callable[[], Any]) -> None:
        """Call `callback` in the main thread, unless the job is cancelled by then."""
        self._owner.post(lambda: None if self.cancelled else callback())

    def end(self) -> None:
        """Set the job to inactive: its last callback is being called."""
        self._over.set()


class Jobs:
    """All running jobs, and the queue of their callbacks, which `drain` calls.

    Attributes
    ----------
    on_start : callable or None
        Called whenever a job starts, so that someone begins to drain the queue.
    """

    def __init__(self) -> None:
        self._queue: queue.Queue = queue.Queue()
        self._jobs: list[Job] = []
        self.on_start: Callable[[], Any] | None = None

    def start(
        self,
        name: str,
        work: Callable[[Job], Any],
        done: Callable[[Any], Any],
        failed: Callable[[str], Any],
        progress: Progress | None = None,
        cancelled: Callable[[], Any] | None = None,
    ) -> Job:
        """Run work in a thread.

        Exactly one of `done`, `failed` and `cancelled` is called at its end.

        Parameters
        ----------
        name : str
            Name of the job.
        work : callable
            Called in the thread with the job; its result goes to `done`.
        done : callable
            Called in the main thread with the result.
        failed : callable
            Called in the main thread with one sentence that says what went wrong.
        progress : callable, optional
            Called in the main thread with each report.
        cancelled : callable, optional
            Called in the main thread if the job was cancelled.
        """
        job = Job(self, name)
        job.on_progress = progress
        self._jobs.append(job)

        def run() -> None:
            outcome: Callable[[], Any] | None
            try:
                result = work(job)
                outcome = lambda: done(result)  # noqa: E731
            except Cancelled:
                outcome = cancelled
            except Exception as error:
                sentence = _sentence(name, error)
                outcome = lambda: failed(sentence)  # noqa: E731
            self.post(lambda: self._end(job, cancelled if job.cancelled else outcome, failed))

        if self.on_start is not None:
            self.on_start()
        threading.Thread(target=run, name=f"MedCLIPAD {name}", daemon=True).start()
        return job

    def post(self, callback: Callable[[], Any]) -> None:
        """Call `callback` in a later `drain`."""
        self._queue.put(callback)

    def drain(self) -> None:
        """Call the callbacks in the queue, at least one, for at most `MAX_DRAIN_TIME`."""
        until = time.monotonic() + MAX_DRAIN_TIME
        while True:
            try:
                callback = self._queue.get_nowait()
            except queue.Empty:
                return
            try:
                callback()
            except Exception:  # one broken callback must not stop the others
                logging.exception("MedCLIPAD: a callback failed")
            if time.monotonic() > until:
                return

    @property
    def idle(self) -> bool:
        """Whether there is nothing to drain, now or later."""
        return not self._jobs and self._queue.empty()

    def cancel_all(self) -> None:
        """Cancel all jobs."""
        for job in self._jobs:
            job.cancel()

    def active(self, name: str = "") -> list[Job]:
        """Return the active jobs, all of them or those with one name."""
        return [job for job in self._jobs if job.active and name in ("", job.name)]

    def _end(self, job: Job, outcome: Callable[[], Any] | None, failed: Callable[[str], Any]) -> None:
        self._jobs.remove(job)
        job.end()
        try:
            if outcome is not None:
                outcome()
        except ModuleError as error:
            failed(str(error))


def _sentence(name: str, error: Exception) -> str:
    """Return an exception of a job as one sentence; log it if it is unexpected."""
    if isinstance(error, ModuleError):
        return str(error)
    if isinstance(error, MemoryError):
        return _("This computer does not have enough memory for this volume.")
    logging.error("MedCLIPAD: %s failed", name, exc_info=error)
    return _("{name} failed ({type}: {error}): see the log for details.").format(
        name=name, type=type(error).__name__, error=error
    )
