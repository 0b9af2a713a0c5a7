"""MONAI Label's training tasks, one for each method."""

from __future__ import annotations

import logging
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.train import TrainTask

from medclipad.server.training.service import TrainingService


class AnomalyTrainTask(TrainTask):
    """Training task of one method; see `TrainingService`.

    Parameters
    ----------
    service
        Checks requests and trains.
    """

    def __init__(self, service: TrainingService) -> None:
        super().__init__(service.description)
        self._service = service

    def config(self) -> dict[str, Any]:
        """Return the parameters as a form of MONAI Label's clients."""
        return self._service.config()

    def info(self) -> dict[str, Any]:
        """Return what GET /info/ shows of the task."""
        return {**super().info(), "schema": self._service.schema()}

    def stats(self) -> dict[str, Any]:
        """Return the version in use and the names of all versions."""
        return self._service.stats()

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train in this process, as MONAI Label's own endpoints request it, and return the version and the outcome."""
        logging.getLogger("monailabel").setLevel(logging.WARNING)  # `details` has room for 20 lines of our own
        return self._service.run(request, datastore)
