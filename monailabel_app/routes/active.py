"""POST /activelearning/{strategy}: which image to label next."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from monailabel.endpoints import activelearning
from monailabel.interfaces.utils.app import app_instance

from ..problems import RequestError

router = APIRouter(tags=["ActiveLearning"])


@router.post("/activelearning/{strategy}", summary="The next image to label; {} when all are")
def next_sample(strategy: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    known = app_instance().strategies()
    if strategy not in known:
        raise RequestError(f"There is no strategy {strategy!r}; there are: {', '.join(known)}.", 404)
    if "strategy" in (params or {}):
        raise RequestError("The body must not contain 'strategy': the address of the request says it.")
    return activelearning.sample(strategy, params)
