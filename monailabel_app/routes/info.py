"""GET /info/: what the server can do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse
from monailabel.interfaces.utils.app import app_instance

from monailabel_app.guard import BODY_LIMIT

router = APIRouter(tags=["App"])


@router.get("/", include_in_schema=False)
def home() -> RedirectResponse:
    return RedirectResponse("/docs")


@router.get("/info/", summary="Models, trainers with their parameters, strategies, and the state of the studies")
def info(request: Request) -> dict[str, Any]:
    app = app_instance()
    server = {
        "version": app.version,
        "body_limit": BODY_LIMIT,
        "token": request.app.state.token,
        "strategies": list(app.strategies()),
    }
    return {**app.info(), "medclipad": server}
