"""Active learning: which image to label next."""

from __future__ import annotations

import random
import time
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy


class Random(Strategy):
    """Any unlabelled image, those offered longest ago first; `seed` in the request makes the draw repeatable."""

    def __init__(self) -> None:
        super().__init__("Any unlabelled image, least recently offered first")

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        images = sorted(datastore.get_unlabeled_images(request.get("label_tag"), request.get("labels")))
        if not images:
            return None
        offered = {
            image: datastore.get_image_info(image).get("strategy", {}).get(request["strategy"], {}).get("ts", 0)
            for image in images
        }
        oldest = min(offered.values())
        image = random.Random(request.get("seed")).choice([image for image in images if offered[image] == oldest])
        return {"id": image, "weight": int(time.time()) - oldest}
