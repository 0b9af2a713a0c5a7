"""POST /activelearning/{strategy}: the image to label next. GET /scoring/: how many images have scores for it."""

from __future__ import annotations

import time
from typing import Any

from fastapi import APIRouter
from monailabel.config import settings

from medclipad.methods import default_method, method_names
from medclipad.server.errors import RequestError
from medclipad.server.next_sample import check_request
from medclipad.server.routes.datastore import sent_name
from medclipad.server.routes.work_pools import STUDIES
from medclipad.server.services import current_services

router = APIRouter(tags=["ActiveLearning"])


@router.post("/activelearning/{strategy}", summary="Choose the image to label next; {} when all images have a label")
@STUDIES
def next_sample(strategy: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
    """Choose the image to label next; the body may hold `method`, whose scores count, and `seed`."""
    services, request = current_services(), params or {}
    strategies = services.strategies
    if strategy not in strategies:
        raise RequestError(f"Strategy {strategy!r} was not found; available: {', '.join(strategies)}.", 404)
    if "strategy" in request:
        raise RequestError("The body must not contain 'strategy': the address of the request sets it.")
    check_request(request, method_names())
    store = services.datastore
    chosen = strategies[strategy]({**request, "strategy": strategy}, store)
    if not chosen:
        return {}
    image = chosen["id"]
    info = store.get_image_info(image)
    if not settings.MONAI_LABEL_DATASTORE_READ_ONLY:
        offer = {"ts": int(time.time()), "client_id": request.get("client_id")}
        store.update_image_info(image, {"strategy": {**info.get("strategy", {}), strategy: offer}})
    return {**info, **chosen, "strategy": strategy, "name": sent_name(image)}  # stock clients save it under this name


@router.get("/scoring/", summary="Show how many images the current detector has scored in the background")
@STUDIES
def scoring(method: str | None = None) -> dict[str, Any]:
    """Show how many images the current detector of a method has scored; by default the detector selected last."""
    check_request({"method": method}, method_names())
    services = current_services()
    return services.scorer.status(method or services.scoring_method() or default_method(), services.datastore)
