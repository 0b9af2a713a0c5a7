"""MONAI Label's inference tasks, one for each method.

They are of type "segmentation" and answer with a labelmap, because a stock client lists no other type and imports every
result as one; with params.result = "map" the file is the float32 anomaly map.
"""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from medclipad.server.inference.service import LABELS, InferenceService


class AnomalyInferTask(InferTask):
    """Answer an inference request with a file and scores; see `InferenceService`."""

    def __init__(self, service: InferenceService) -> None:
        super().__init__(InferType.SEGMENTATION, LABELS, 3, service.description)
        self._service = service

    def is_valid(self) -> bool:
        """Return whether the method has a detector: stock clients offer whatever they see."""
        return self._service.current is not None

    def config(self) -> dict[str, Any]:
        """Return the parameters as a form of MONAI Label's clients."""
        return self._service.config()

    def info(self) -> dict[str, Any]:
        """Return what GET /info/ shows of the task."""
        return {**super().info(), **self._service.info()}

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the path of a new file and its scores.

        `request` holds "image", the path of a volume, "id", its id in the studies if it is there, and `InferParams`.
        """
        return self._service(request)
