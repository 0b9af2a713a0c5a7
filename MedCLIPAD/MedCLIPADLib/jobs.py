"""Long work in threads. A thread never touches MRML or widgets: it is given plain data and hands plain data back.

What it reports goes through a queue that the main thread drains, in Slicer by a QTimer, in tests by a loop.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from typing import Any, Callable

from slicer.i18n import tr as _

from MedCLIPADLib.errors import Cancelled, ModuleError

Progress = Callable[[str, int, int], None]
BUDGET = 0.02  # seconds that one `drain` may go on taking from the queue: the interface waits that long


class Job:
    """One piece of work. `report` and `check` are for its thread and raise Cancelled once `cancel` was called."""

    def __init__(self, owner: Jobs, name: str) -> None:
        self.name = name
        self._owner = owner
        self._cancelled = threading.Event()
        self._over = threading.Event()
        self.started = time.monotonic()
        self.on_progress: Progress | None = None

    def cancel(self) -> None:
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    @property
    def active(self) -> bool:
        """Whether its last callback is still to come."""
        return not self._over.is_set()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started

    def check(self) -> None:
        if self.cancelled:
            raise Cancelled

    def wait(self, seconds: float) -> bool:
        """Sleep; whether it was ended by `cancel`."""
        return self._cancelled.wait(seconds)

    def report(self, phase: str, done: int = 0, total: int = 0) -> None:
        """To `on_progress` in the main thread. `total` 0: not known."""
        self.check()
        self.tell(lambda: None if self.on_progress is None else self.on_progress(phase, done, total))

    def tell(self, callback: Callable[[], Any]) -> None:
        """Have `callback` called in the main thread, unless the job was cancelled by then."""
        self._owner.post(lambda: None if self.cancelled else callback())


class Jobs:
    """Everything under way. Callbacks run in the thread that calls `drain`."""

    def __init__(self) -> None:
        self._queue: queue.Queue = queue.Queue()
        self._jobs: list[Job] = []
        self.on_start: Callable[[], Any] | None = None  # so that somebody begins to drain

    def start(
        self,
        name: str,
        work: Callable[[Job], Any],
        done: Callable[[Any], None],
        failed: Callable[[str], None],
        progress: Progress | None = None,
        cancelled: Callable[[], None] | None = None,
    ) -> Job:
        """Run `work(job)` in a thread; then, in the main one, one of done(result), failed(sentence), cancelled()."""
        job = Job(self, name)
        job.on_progress = progress
        self._jobs.append(job)

        def run() -> None:
            try:
                result = work(job)
                outcome = lambda: done(result)  # noqa: E731
            except Cancelled:
                outcome = cancelled
            except ModuleError as error:
                sentence = str(error)
                outcome = lambda: failed(sentence)  # noqa: E731
            except MemoryError:
                sentence = _("There is not enough memory for this volume on this computer.")
                outcome = lambda: failed(sentence)  # noqa: E731
            except Exception as error:  # a defect of ours, or a full disk: said in the panel, with its trace in the log
                logging.exception("MedCLIPAD: %s failed", name)
                sentence = _("{name} failed ({kind}: {error}); the log has the details.").format(
                    name=name, kind=type(error).__name__, error=error
                )
                outcome = lambda: failed(sentence)  # noqa: E731
            self.post(lambda: self._end(job, cancelled if job.cancelled else outcome, failed))

        if self.on_start is not None:
            self.on_start()
        threading.Thread(target=run, name=f"MedCLIPAD {name}", daemon=True).start()
        return job

    def post(self, callback: Callable[[], Any]) -> None:
        """Have `callback` called by a later `drain`."""
        self._queue.put(callback)

    def drain(self) -> None:
        """Run the callbacks that wait, for at most `BUDGET` seconds (one at least)."""
        until = time.monotonic() + BUDGET
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
                return  # what was posted meanwhile waits for the next turn

    @property
    def idle(self) -> bool:
        """Whether there is nothing to drain, now or later."""
        return not self._jobs and self._queue.empty()

    def cancel_all(self) -> None:
        for job in self._jobs:
            job.cancel()

    def active(self, name: str = "") -> list[Job]:
        return [job for job in self._jobs if job.active and name in ("", job.name)]

    def _end(self, job: Job, outcome: Callable[[], Any] | None, failed: Callable[[str], None]) -> None:
        self._jobs.remove(job)
        job._over.set()
        try:
            if outcome is not None:
                outcome()
        except ModuleError as error:
            failed(str(error))
