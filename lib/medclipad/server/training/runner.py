"""Run trainings in processes of their own: one at a time, with progress, and stopped at once on request.

It replaces MONAI Label's AsyncTask, which starts two trainings if two requests come at once, cannot stop one that is
starting, shows image names in the list of processes, and takes twice the time to start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import psutil

from medclipad.errors import MedCLIPADError
from medclipad.server.errors import RequestError
from medclipad.server.training.versions import VersionStore
from medclipad.server.training.worker import ProgressFile

Cases = Callable[[], list[dict[str, Any]]]
ACTIVE = ("SUBMITTED", "RUNNING")
"""States of a training that has not ended."""

_MAX_TRAININGS = 20  # that GET /train/?all=true shows
_MAX_LINES = 20  # of a training's output: MONAI Label shows as many


class _Training:
    """One training; `entry` is what MONAI Label's clients see of it."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.process: subprocess.Popen[str] | None = None
        self.ended = threading.Event()
        self.details: deque[str] = deque(maxlen=_MAX_LINES)
        request = {"model": job["method"], **job["config"], **job["params"], "name": job["name"]}
        self.entry: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "status": "SUBMITTED",
            "request": request,
            "start_ts": _now(),
        }

    @property
    def active(self) -> bool:
        return self.entry["status"] in ACTIVE


class TrainingRunner:
    """The training processes of a server.

    Parameters
    ----------
    versions
        Detector versions on disk.
    """

    def __init__(self, versions: VersionStore) -> None:
        self._versions = versions
        self._lock = threading.RLock()
        self._trainings: deque[_Training] = deque(maxlen=_MAX_TRAININGS)

    @property
    def running(self) -> bool:
        """Whether a training runs or is about to start."""
        with self._lock:
            return bool(self._trainings) and self._trainings[-1].active

    def start(self, job: dict[str, Any], cases: Cases) -> dict[str, Any]:
        """Start a training and return it as MONAI Label shows it.

        Parameters
        ----------
        job
            The job of the training process without its cases, see `TrainingService.job`.
        cases
            Called in a thread for the cases, since they may have to be fetched.

        Raises
        ------
        RequestError
            429 while another training runs.
        """
        training = _Training(job)
        with self._lock:
            if self.running:
                raise RequestError("A training is already running: wait for it, or stop it with DELETE /train/.", 429)
            self._versions.clean()
            self._trainings.append(training)
        threading.Thread(target=self._run, args=(training, cases), name="training", daemon=True).start()
        return self._describe(training)

    def stop(self) -> dict[str, Any]:
        """Stop the training, if one runs, remove its files, and return it; the previous detector stays in use."""
        with self._lock:
            if not self.running:
                return {}
            training = self._trainings[-1]
            training.entry["status"] = "STOPPED"
            _kill(training.process)
        training.ended.wait(1.5)
        with self._lock:
            if self._report(training).get("phase") == "done":  # it finished before it was killed
                training.entry["status"] = "DONE"
            else:
                self._remove_version(training.job)
            return self._describe(training)

    def all(self) -> list[dict[str, Any]]:
        """Return all trainings since the server started, oldest first."""
        with self._lock:
            return [self._describe(training) for training in self._trainings]

    def progress(self) -> dict[str, Any] | None:
        """Return the last report of the last training, also of an earlier server's; None if there was no training."""
        with self._lock:
            last = ProgressFile.read(self._versions.folder)
            if not self._trainings:
                return {"status": _past_status(last), **last} if last else None
            training = self._trainings[-1]
            report = last if last.get("run") == training.job["run"] else _STARTING
            entry = self._describe(training)
        error = {"error": entry["error"]} if "error" in entry else {}
        return {"method": training.job["method"], **report, "status": entry["status"], **error}

    def _describe(self, training: _Training) -> dict[str, Any]:
        """Return a training as MONAI Label shows it, with the reason if it failed."""
        lines = list(training.details) or ["The training is starting."]  # clients take the last one
        entry = {**training.entry, "details": lines}
        if entry["status"] == "ERROR":
            reason = entry.get("error") or self._report(training).get("error")
            entry["error"] = reason or "The training process ended without giving a reason."
        return entry

    def _run(self, training: _Training, cases: Cases) -> None:
        try:
            job = {**training.job, "cases": cases()}
            with self._lock:
                if not training.active:
                    return
                training.process = process = _start_process()
                training.entry["status"] = "RUNNING"
            for line in _communicate(process, json.dumps(job)):
                training.details.append(line.rstrip())
            code = process.wait()
            self._end(training, None if code == 0 else "")
        except MedCLIPADError as error:
            self._end(training, str(error))
        except Exception as error:
            self._end(training, f"The training could not be started ({type(error).__name__}).")
        finally:
            training.ended.set()

    def _end(self, training: _Training, error: str | None) -> None:
        """End a training, with its error if it failed; "" stands for an error that the process reported itself."""
        with self._lock:
            training.entry["end_ts"] = _now()
            if training.active:
                training.entry["status"] = "DONE" if error is None else "ERROR"
                if error:
                    training.entry["error"] = error

    def _report(self, training: _Training) -> dict[str, Any]:
        report = ProgressFile.read(self._versions.folder)
        return report if report.get("run") == training.job["run"] else {}

    def _remove_version(self, job: dict[str, Any]) -> None:
        """Remove what a killed training left, including a version that it stored but did not report."""
        self._versions.clean()
        if job["name"] in self._versions.names(job["method"]):
            if self._versions.current(job["method"]) == job["name"] and job["previous"]:
                self._versions.select(job["method"], job["previous"])
            if self._versions.current(job["method"]) != job["name"]:
                self._versions.delete(job["method"], job["name"])


_STARTING: dict[str, Any] = {
    "phase": "starting", "done": 0, "total": 0, "info": {}, "seconds": 0.0,
    "epoch": None, "epochs": None, "loss": None, "remaining": None, "history": [],
}  # fmt: skip


def _start_process() -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "medclipad.server.training.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )


def _communicate(process: subprocess.Popen[str], text: str) -> Iterator[str]:
    """Send a text to the standard input of a process, then yield the lines of its output."""
    assert process.stdin is not None and process.stdout is not None  # `_start_process` makes pipes
    try:
        process.stdin.write(text)
        process.stdin.close()
    except BrokenPipeError:
        pass  # it has ended already; its output says why
    yield from process.stdout


def _kill(process: subprocess.Popen[str] | None) -> None:
    """End a process and all processes that it started."""
    if process is None or process.poll() is not None:
        return
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    for child in children:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue
    process.kill()
    process.wait(5)


def _past_status(report: dict[str, Any]) -> str:
    """Return the status of a training that an earlier server started."""
    return {"done": "DONE", "failed": "ERROR"}.get(report.get("phase", ""), "STOPPED")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
