"""Training over HTTP, in a process of its own; one at a time."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from monailabel.interfaces.utils.app import app_instance

from monailabel_app.errors import RequestError

router = APIRouter(prefix="/train", tags=["Train"])
_ACTIVE = ("SUBMITTED", "RUNNING")


@router.post("/{model}", summary="Start a training; 429 while one runs")
def start(model: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body is a JSON object, see `trainers` of GET /info/. What is wrong with it is said at once."""
    app = app_instance()
    trainer = app.trainers().get(model)
    if trainer is None:
        raise RequestError(f"There is no trainer {model!r}; there are: {', '.join(app.trainers())}.", 404)
    plan, sources = trainer.plan(params or {}, app.datastore())
    return app.trainings.start(trainer.job(plan), lambda: sources.cases(app.datastore()))


@router.get("/", summary="The last training: status SUBMITTED, RUNNING, DONE, ERROR or STOPPED")
def status(all: bool = False, check_if_running: bool = False) -> Any:
    tasks = app_instance().trainings.all()
    if check_if_running:
        tasks = [task for task in tasks if task["status"] in _ACTIVE]
    if not tasks:
        raise RequestError("No training is running." if check_if_running else "There has been no training yet.", 404)
    return tasks if all else tasks[-1]


@router.get("/progress", summary="Phase, step, epoch, loss and seconds of the last training; at its end the outcome")
def progress() -> dict[str, Any]:
    report = app_instance().trainings.progress()
    if report is None:
        raise RequestError("There has been no training yet.", 404)
    report.pop("run", None)
    done, total = report.get("done", 0), report.get("total", 0)
    return {**report, "fraction": done / total if total else 0.0}


@router.delete("/", summary="Stop the training; what served before goes on serving")
def stop() -> dict[str, Any]:
    return app_instance().trainings.stop()
