"""Training over HTTP, in a process of its own; one at a time."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter

from medclipad.methods import default_method, method_names
from medclipad.server.errors import RequestError
from medclipad.server.routes.work_pools import STUDIES
from medclipad.server.services import current_services
from medclipad.server.training.runner import ACTIVE

router = APIRouter(prefix="/train", tags=["Train"])


@router.post("/", summary="Start a training of the method whose detector was selected last")
@STUDIES
def start_default(params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Start a training without naming a method, as MONAI Label's clients may; they nest the options of each method."""
    model = current_services().scoring_method() or default_method()
    options = {key: value for key, value in (params or {}).items() if key not in method_names()}
    return _start(model, {**options, **((params or {}).get(model) or {})})


@router.post("/{model}", summary="Start a training; 429 while one runs")
@STUDIES
def start(model: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Start a training. The body is a JSON object, see `trainers` of GET /info/; it is checked before the answer."""
    return _start(model, params or {})


def _start(model: str, params: dict[str, Any]) -> dict[str, Any]:
    services = current_services()
    service = services.training.get(model)
    if service is None:
        raise RequestError(f"Trainer {model!r} was not found; available: {', '.join(services.training)}.", 404)
    plan, sources = service.plan(params, services.datastore)
    return services.runner.start(service.job(plan), lambda: sources.cases(services.datastore))


@router.get("/", summary="Show the last training: status SUBMITTED, RUNNING, DONE, ERROR or STOPPED")
def status(all: bool = False, check_if_running: bool = False) -> Any:
    """Show the last training, or with `all` a list of the trainings since the server started.

    With `check_if_running`, only trainings that have not ended; 404 if there is none.
    """
    trainings = current_services().runner.all()
    if check_if_running:
        trainings = [training for training in trainings if training["status"] in ACTIVE]
    if not trainings:
        raise RequestError("No training is running." if check_if_running else "No training was started yet.", 404)
    return trainings if all else trainings[-1]


@router.get("/progress", summary="Show phase, step, epoch, loss and seconds of the last training, and its outcome")
def progress() -> dict[str, Any]:
    """Show how far the last training is; once it is done, also its outcome."""
    report = current_services().runner.progress()
    if report is None:
        raise RequestError("No training was started yet.", 404)
    report.pop("run", None)
    done, total = report.get("done", 0), report.get("total", 0)
    return {**report, "fraction": done / total if total else 0.0}


@router.delete("/", summary="Stop the training; the previous detector stays in use")
def stop() -> dict[str, Any]:
    """Stop the training, if one runs, and show it; the previous detector stays in use."""
    return current_services().runner.stop()
