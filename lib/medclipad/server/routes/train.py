"""Training over HTTP, in a process of its own; one at a time."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from medclipad.server.errors import RequestError
from medclipad.server.services import current_services

router = APIRouter(prefix="/train", tags=["Train"])
_ACTIVE = ("SUBMITTED", "RUNNING")


@router.post("/{model}", summary="Start a training; 429 while one runs")
def start(model: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body is a JSON object, see `trainers` of GET /info/. What is wrong with it is said at once."""
    services = current_services()
    service = services.training.get(model)
    if service is None:
        raise RequestError(f"There is no trainer {model!r}; there are: {', '.join(services.training)}.", 404)
    plan, sources = service.plan(params or {}, services.datastore)
    return services.trainings.start(service.job(plan), lambda: sources.cases(services.datastore))


@router.get("/", summary="The last training: status SUBMITTED, RUNNING, DONE, ERROR or STOPPED")
def status(all: bool = False, check_if_running: bool = False) -> Any:
    tasks = current_services().trainings.all()
    if check_if_running:
        tasks = [task for task in tasks if task["status"] in _ACTIVE]
    if not tasks:
        raise RequestError("No training is running." if check_if_running else "There has been no training yet.", 404)
    return tasks if all else tasks[-1]


@router.get("/progress", summary="Phase, step, epoch, loss and seconds of the last training; at its end the outcome")
def progress() -> dict[str, Any]:
    report = current_services().trainings.progress()
    if report is None:
        raise RequestError("There has been no training yet.", 404)
    report.pop("run", None)
    done, total = report.get("done", 0), report.get("total", 0)
    return {**report, "fraction": done / total if total else 0.0}


@router.delete("/", summary="Stop the training; what served before goes on serving")
def stop() -> dict[str, Any]:
    return current_services().trainings.stop()
