"""Trainings as processes of their own: one at a time, told of while they run, stopped at once.

In the place of MONAI Label's AsyncTask, which starts two if asked twice at once, cannot stop one that is starting,
shows image names in the list of processes, and needs twice the time to start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

import psutil

from medclipad.errors import MedCLIPADError
from medclipad.server.errors import RequestError
from medclipad.server.training.versions import VersionStore
from medclipad.server.training.worker import ProgressFile

Cases = Callable[[], list[dict[str, Any]]]
_ACTIVE = ("SUBMITTED", "RUNNING")
_REMEMBERED = 20  # past trainings that GET /train/?all=true still shows
_LINES = 20  # of a training's output, as MONAI Label shows them


class _Training:
    """One training; `shown` is what MONAI Label's clients know of it."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.job = job
        self.process: subprocess.Popen[str] | None = None
        self.over = threading.Event()
        self.details: deque[str] = deque(maxlen=_LINES)
        request = {"model": job["method"], **job["params"], "name": job["name"]}
        self.shown: dict[str, Any] = {
            "id": str(uuid.uuid4()),
            "status": "SUBMITTED",
            "request": request,
            "start_ts": _now(),
        }

    @property
    def active(self) -> bool:
        return self.shown["status"] in _ACTIVE


class Trainings:
    """The trainings of a server."""

    def __init__(self, versions: VersionStore) -> None:
        self._versions = versions
        self._lock = threading.RLock()
        self._all: deque[_Training] = deque(maxlen=_REMEMBERED)

    @property
    def running(self) -> bool:
        with self._lock:
            return bool(self._all) and self._all[-1].active

    def start(self, job: dict[str, Any], cases: Cases) -> dict[str, Any]:
        """Start a training; `cases` is called off the request's thread. RequestError 429 while one runs."""
        training = _Training(job)
        with self._lock:
            if self.running:
                raise RequestError("A training is running already: wait for it, or stop it with DELETE /train/.", 429)
            self._versions.clean()
            self._all.append(training)
        threading.Thread(target=self._carry_out, args=(training, cases), name="training", daemon=True).start()
        return self.shown(training)

    def stop(self) -> dict[str, Any]:
        """Stop the training, if one runs, and remove what it left; what served before goes on serving."""
        with self._lock:
            if not self.running:
                return {}
            training = self._all[-1]
            training.shown["status"] = "STOPPED"
            _kill(training.process)
        training.over.wait(1.5)
        with self._lock:
            if self._report(training).get("phase") == "done":  # it was faster
                training.shown["status"] = "DONE"
            else:
                self._undo(training.job)
            return self.shown(training)

    def all(self) -> list[dict[str, Any]]:
        """All trainings since the server started, oldest first."""
        with self._lock:
            return [self.shown(training) for training in self._all]

    def shown(self, training: _Training) -> dict[str, Any]:
        """As MONAI Label shows it, and the reason if it failed."""
        shown = {**training.shown, "details": list(training.details)}
        if shown["status"] == "ERROR":
            said = shown.get("error") or self._report(training).get("error")
            shown["error"] = said or "The training process ended without saying why."
        return shown

    def progress(self) -> dict[str, Any] | None:
        """The last report of the last training, of an earlier server's too; None if there has never been one."""
        with self._lock:
            last = ProgressFile.read(self._versions.folder)
            if not self._all:
                return {"status": _past_status(last), **last} if last else None
            training = self._all[-1]
            report = last if last.get("run") == training.job["run"] else _STARTING
            shown = self.shown(training)
        error = {"error": shown["error"]} if "error" in shown else {}
        return {"method": training.job["method"], **report, "status": shown["status"], **error}

    def _carry_out(self, training: _Training, cases: Cases) -> None:
        try:
            job = {**training.job, "cases": cases()}
            with self._lock:
                if not training.active:
                    return
                training.process = process = _start_process()
                training.shown["status"] = "RUNNING"
            try:
                process.stdin.write(json.dumps(job))
                process.stdin.close()
            except BrokenPipeError:
                pass  # it ended already; its output says why
            for line in process.stdout:
                training.details.append(line.rstrip())
            code = process.wait()
            self._end(training, None if code == 0 else "")
        except MedCLIPADError as error:
            self._end(training, str(error))
        except Exception as error:
            self._end(training, f"The training could not be started ({type(error).__name__}).")
        finally:
            training.over.set()

    def _end(self, training: _Training, error: str | None) -> None:
        with self._lock:
            training.shown["end_ts"] = _now()
            if training.active:
                training.shown["status"] = "DONE" if error is None else "ERROR"
                if error:
                    training.shown["error"] = error

    def _report(self, training: _Training) -> dict[str, Any]:
        report = ProgressFile.read(self._versions.folder)
        return report if report.get("run") == training.job["run"] else {}

    def _undo(self, job: dict[str, Any]) -> None:
        """Remove what a killed training left, a version that was stored but not told of included."""
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


def _kill(process: subprocess.Popen[str] | None) -> None:
    """End a process and all that it started."""
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
    """Status of a training that an earlier run of this server started."""
    return {"done": "DONE", "failed": "ERROR"}.get(report.get("phase", ""), "STOPPED")


def _now() -> str:
    return datetime.fromtimestamp(time.time()).strftime("%Y-%m-%d %H:%M:%S")
