"""GET /info/: what the server can do."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from monailabel.interfaces.utils.app import app_instance

from medclipad.server.security.guard import BODY_LIMIT
from medclipad.server.services import current_services

router = APIRouter(tags=["App"])


@router.get("/", include_in_schema=False)
def home() -> RedirectResponse:
    return RedirectResponse("/docs")


@router.get("/info/", summary="Models, trainers with their parameters, strategies, and the state of the studies")
def info(request: Request) -> dict[str, Any]:
    app = app_instance()
    server = {
        "version": version("medclipad"),
        "body_limit": BODY_LIMIT,
        "token": request.app.state.token,
        "strategies": list(current_services().strategies),
    }
    return {**app.info(), "medclipad": server}
