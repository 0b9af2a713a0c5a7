"""Training over HTTP. MONAI Label runs it in a process of its own; one at a time."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

from fastapi import APIRouter
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.async_tasks.task import AsyncTask

from ..problems import RequestError
from ..train import ProgressFile

router = APIRouter(prefix="/train", tags=["Train"])
_starting = threading.Lock()  # two requests at once must not both see that nothing runs


@router.post("/{model}", summary="Start a training; 429 while one runs")
def start(model: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body is a JSON object, see `trainers` of GET /info/. What is wrong with it is said at once."""
    app = app_instance()
    trainer = app.trainers().get(model)
    if trainer is None:
        raise RequestError(f"There is no trainer {model!r}; there are: {', '.join(app.trainers())}.", 404)
    plan = trainer.plan(params or {}, app.datastore())
    with _starting:
        if _running():
            raise RequestError("A training is running already: wait for it, or stop it with DELETE /train/.", 429)
        app.store.clean()
        request = {"model": model, **plan.model_dump(), "run": uuid.uuid4().hex}
        task, _ = AsyncTask.run("train", request=request, enqueue=True)
    return _shown(task)


@router.get("/", summary="The last training: status SUBMITTED, RUNNING, DONE, ERROR or STOPPED")
def status(all: bool = False, check_if_running: bool = False) -> Any:
    tasks = AsyncTask.status("train", all=True)[0] or []
    if check_if_running:
        tasks = [task for task in tasks if task["status"] in ("SUBMITTED", "RUNNING")]
    if not tasks:
        raise RequestError("No training is running." if check_if_running else "There has been no training yet.", 404)
    return [_shown(task) for task in tasks] if all else _shown(tasks[-1])


@router.get("/progress", summary="Phase, step, loss and seconds of the last training")
def progress() -> dict[str, Any]:
    tasks = AsyncTask.status("train", all=True)[0] or []
    last = ProgressFile.read(app_instance().store.folder)
    if not tasks:
        if not last:
            raise RequestError("There has been no training yet.", 404)
        return _timed({"status": _past_status(last), **last})
    report = last if last.get("run") == tasks[-1]["request"]["run"] else {"phase": "starting", "done": 0, "total": 0}
    return _timed({"status": tasks[-1]["status"], "method": tasks[-1]["request"]["model"], **report})


@router.delete("/", summary="Stop the training; what served before goes on serving")
def stop() -> dict[str, Any]:
    deadline = time.monotonic() + 2
    while _running():
        stopped = AsyncTask.stop("train")
        if stopped is not None:
            return _shown(stopped)
        if time.monotonic() > deadline:
            raise RequestError("The training has not started yet: try again in a moment.", 503, {"Retry-After": "1"})
        time.sleep(0.1)  # submitted, but its process is not there yet
    return {}


def _running() -> bool:
    tasks = AsyncTask.status("train", all=True)[0] or []
    return any(task["status"] in ("SUBMITTED", "RUNNING") for task in tasks)


def _shown(task: dict[str, Any]) -> dict[str, Any]:
    """A task as MONAI Label shows it, and the reason if it failed."""
    shown = {**task, "details": list(task.get("details", []))}
    if task["status"] == "ERROR":
        last = ProgressFile.read(app_instance().store.folder)
        mine = last.get("run") == task["request"]["run"]
        shown["error"] = (last.get("error") if mine else None) or "The training process ended without saying why."
    return shown


def _past_status(report: dict[str, Any]) -> str:
    """Status of a training that an earlier run of this server started."""
    return {"done": "DONE", "failed": "ERROR"}.get(report["phase"], "STOPPED")


def _timed(report: dict[str, Any]) -> dict[str, Any]:
    done, total = report.get("done", 0), report.get("total", 0)
    report.pop("run", None)
    return {**report, "fraction": done / total if total else 0.0}
