"""GET /health: whether the server lives and can work; for load balancers and containers, without a token.

GET /metrics: counts for Prometheus, with a token of the role read.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, PlainTextResponse

from medclipad.server.metrics import REQUESTS, gauges
from medclipad.server.services import current_services

router = APIRouter(tags=["Operation"])


@router.get("/health/live", summary="Show that the server answers")
async def live() -> dict[str, bool]:
    """Show that the server answers; nothing is asked of the disk or of an archive."""
    return {"live": True}


@router.get("/health", summary="Show whether the server can do its work; 503 with the reasons if it cannot")
def health() -> JSONResponse:
    """Show whether the studies can be reached and results can be stored."""
    problems = current_services().problems()
    body: dict[str, Any] = {"live": True, "ready": not problems, "problems": problems}
    return JSONResponse(body, status_code=503 if problems else 200)


@router.get("/metrics", summary="Show counts and durations of requests, and the state of the server, for Prometheus")
def metrics() -> PlainTextResponse:
    """Show counts for Prometheus, in its text format; they name no patient, image or user."""
    lines = [*REQUESTS.lines(), *gauges(current_services().gauges())]
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4; charset=utf-8")
