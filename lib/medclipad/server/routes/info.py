"""GET /info/: what the server can do."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, RedirectResponse

from medclipad.server.routes.documentation import POLICY, page
from medclipad.server.security.guard import BODY_LIMIT
from medclipad.server.services import current_app

router = APIRouter(tags=["App"])


@router.get("/", include_in_schema=False)
def home() -> RedirectResponse:
    """Show the list of routes."""
    return RedirectResponse("/docs")


@router.get("/docs", include_in_schema=False)
def documentation(request: Request) -> HTMLResponse:
    """Show all routes as a page."""
    return HTMLResponse(page(request.app.openapi()), headers={"Content-Security-Policy": POLICY})


@router.get("/info/", summary="List models, trainers with their parameters, strategies, and counts of the studies")
def info(request: Request) -> dict[str, Any]:
    """List models, trainers, strategies and counts; `medclipad` holds the version and limits of this server."""
    app = current_app()
    server = {
        "version": version("medclipad"),
        "body_limit": BODY_LIMIT,
        "token": request.app.state.token,
        "strategies": list(app.services.strategies),
    }
    return {**app.info(), "medclipad": server}
