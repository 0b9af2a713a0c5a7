"""GET /info/: what the server can do."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import RedirectResponse
from monailabel.interfaces.utils.app import app_instance

router = APIRouter(tags=["App"])


@router.get("/", include_in_schema=False)
def home() -> RedirectResponse:
    return RedirectResponse("/docs")


@router.get("/info/", summary="Models, trainers with their parameters, strategies, and the state of the studies")
def info() -> dict[str, Any]:
    return app_instance().info()
