"""MONAI Label's inference tasks, one for each method.

Their type is "segmentation" and their answer a labelmap, because a stock client lists no other type and imports every
result as a labelmap. With params.result = "map" the file is the float32 anomaly map.
"""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from medclipad.server.inference.service import LABELS, InferenceService


class AnomalyInferTask(InferTask):
    """Inference task of one method; see `InferenceService`.

    Parameters
    ----------
    service
        Answers the requests.
    """

    def __init__(self, service: InferenceService) -> None:
        super().__init__(InferType.SEGMENTATION, LABELS, 3, service.description)
        self._service = service

    def is_valid(self) -> bool:
        """Return whether the method has a detector; stock clients do not offer the task otherwise."""
        return self._service.current is not None

    def config(self) -> dict[str, Any]:
        """Return the parameters as a form of MONAI Label's clients."""
        return self._service.config()

    def info(self) -> dict[str, Any]:
        """Return what GET /info/ shows of the task."""
        return {**super().info(), **self._service.info()}

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the path of a new file, map or labelmap, and its scores.

        Parameters
        ----------
        request
            "image", the path of a volume; "id", its id in the studies if it has one; and the fields of `InferParams`.
        """
        return self._service(request)
