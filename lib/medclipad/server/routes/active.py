"""POST /activelearning/{strategy}: which image to label next. GET /scoring/: how many have the scores for it."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from monailabel.config import settings

from medclipad.methods import METHODS
from medclipad.server.errors import RequestError
from medclipad.server.next_sample import check_request
from medclipad.server.services import current_services

router = APIRouter(tags=["ActiveLearning"])


@router.post("/activelearning/{strategy}", summary="The next image to label; {} when all are")
def next_sample(strategy: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """The body may hold method (whose scores count) and seed. MONAI Label's own version starts a process each time."""
    services, request = current_services(), params or {}
    known = services.strategies
    if strategy not in known:
        raise RequestError(f"There is no strategy {strategy!r}; there are: {', '.join(known)}.", 404)
    if "strategy" in request:
        raise RequestError("The body must not contain 'strategy': the address of the request says it.")
    check_request(request, list(METHODS))
    store = services.datastore
    chosen = known[strategy]({**request, "strategy": strategy}, store)
    if not chosen:
        return {}
    image = chosen["id"]
    info = store.get_image_info(image)
    if not settings.MONAI_LABEL_DATASTORE_READ_ONLY:
        offer = {"ts": int(time.time()), "client_id": request.get("client_id")}
        store.update_image_info(image, {"strategy": {**info.get("strategy", {}), strategy: offer}})
    return {**info, **chosen, "strategy": strategy}


@router.get("/scoring/", summary="How many images the current detector has scored, in the background")
def scoring(method: str | None = None) -> dict[str, Any]:
    check_request({"method": method}, list(METHODS))
    services = current_services()
    return services.scorer.status(method or services.scoring_method() or METHODS[0], services.datastore)
