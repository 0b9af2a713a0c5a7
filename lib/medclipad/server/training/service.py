"""Training requests of a method: their parameters, checked before a training process starts."""

from __future__ import annotations

import functools
import itertools
import time
import uuid
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from pydantic import ValidationError

from medclipad.encoders import encoder_family
from medclipad.methods import get_method
from medclipad.server.errors import RequestError, first_error
from medclipad.server.params import TrainRequest, parse_train_request, train_config, train_model
from medclipad.server.training.sources import Sources
from medclipad.server.training.versions import VersionStore
from medclipad.server.training.worker import run

ENCODERS = "encoders"
"""Subfolder of the models folder with the weights of encoders that a request may name by their path."""


@functools.cache
def _schema(method: str) -> dict[str, Any]:
    return train_model(method).model_json_schema()


def _check_encoder(name: str, folder: Path) -> None:
    """Raise RequestError 422 if a request names a file outside a folder: the answer would tell whether it exists."""
    _, _, file = name.partition("/")
    if ("/" in file or "\\" in file or file.startswith(".")) and not Path(file).resolve().is_relative_to(
        folder.resolve()
    ):
        raise RequestError(
            f"encoder: over HTTP, weights are read from the folder {ENCODERS} in the server's models folder only.", 422
        )


class TrainingService:
    """Check the training requests of one method and make the jobs of training processes.

    Parameters
    ----------
    method
        Name of the method.
    versions
        Detector versions on disk.

    Attributes
    ----------
    description
        One line for GET /info/.
    """

    def __init__(self, method: str, versions: VersionStore) -> None:
        self._method, self._versions = method, versions
        self.description = f"Train a {method} detector from the labels of the studies"

    def config(self) -> dict[str, Any]:
        """Return the parameters as a form of MONAI Label's clients."""
        return train_config(self._method)

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of the parameters."""
        return _schema(self._method)

    def stats(self) -> dict[str, Any]:
        """Return the version in use and the names of all versions."""
        return {"current": self._versions.current(self._method), "versions": self._versions.names(self._method)}

    def plan(self, request: dict[str, Any], datastore: Datastore) -> tuple[TrainRequest, Sources]:
        """Check a request without reading a volume; raise MedCLIPADError if it is not valid."""
        try:
            plan = parse_train_request(self._method, request)
        except ValidationError as error:
            raise RequestError(first_error(error), 422) from error
        _check_encoder(plan.config.encoder, self._versions.folder / ENCODERS)
        family = encoder_family(plan.config.encoder)
        if plan.config.image_size is not None:
            family.check_image_size(plan.config.encoder, plan.config.image_size)
        self._versions.check_writable()
        if plan.params.name:
            self._versions.check_new(self._method, plan.params.name)
        return plan, Sources(plan.params, datastore, get_method(self._method))

    def job(self, plan: TrainRequest) -> dict[str, Any]:
        """Return the job of a training process without its cases."""
        return {
            "run": uuid.uuid4().hex,
            "method": self._method,
            "name": plan.params.name or self._free_name(),
            "config": plan.config.model_dump(),
            "params": plan.params.model_dump(),
            "models": str(self._versions.folder),
            "starter": str(self._versions.starter or ""),
            "previous": self._versions.current(self._method),
        }

    def run(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Train in this process; return the version and the outcome."""
        plan, sources = self.plan(request, datastore)
        return run({**self.job(plan), "cases": sources.cases(datastore)})

    def _free_name(self) -> str:
        """Return an unused name of the method and the time in UTC; a clock that was set back gives a time twice."""
        name = f"{self._method}-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}"
        taken = self._versions.names(self._method)
        others = (f"{name}-{number}" for number in itertools.count(2))
        return next(free for free in itertools.chain([name], others) if free not in taken)
