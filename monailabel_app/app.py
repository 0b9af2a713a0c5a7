"""The MONAI Label app: which tasks there are, and where detectors and studies live."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from medclipad.errors import MedCLIPADError
from medclipad.methods import METHODS

from .datastore import StudyDatastore
from .infer import AnomalyInferTask
from .models import DetectorCache, ModelStore
from .orphans import mark_server
from .strategies import Random
from .train import AnomalyTrainTask


class MedCLIPADApp(MONAILabelApp):
    """Anomaly maps of MRI and CT volumes with MediCLIP and MVFA-AD.

    `conf` may hold "models", the folder of the trained detectors; by default it is `models` in the studies folder.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.store = ModelStore(_models_folder(studies, conf))
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="MedCLIPAD",
            description="Zero- and few-shot anomaly maps of MRI and CT volumes",
            version=_version(),
        )
        self._auto_update_scoring = False  # MONAI Label would start a process after each sample and training

    def init_datastore(self) -> Datastore:
        remote = self.studies.startswith(("http://", "https://"))
        return super().init_datastore() if remote else StudyDatastore(self.studies)

    def init_infers(self) -> dict[str, InferTask]:
        cache = DetectorCache()
        return {method: AnomalyInferTask(method, self.store, cache) for method in METHODS}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {method: AnomalyTrainTask(method, self.store) for method in METHODS}

    def init_strategies(self) -> dict[str, Strategy]:
        return {"random": Random()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        return {}

    def server_mode(self, mode: bool) -> None:
        """Called where the app is served, not in the processes that train."""
        super().server_mode(mode)
        mark_server()

    def infers(self) -> dict[str, Any]:
        return self._infers

    def trainers(self) -> dict[str, Any]:
        return self._trainers

    def strategies(self) -> dict[str, Any]:
        return self._strategies


def _models_folder(studies: str, conf: dict[str, str]) -> Path:
    if conf.get("models"):
        return Path(conf["models"]).resolve()
    if studies.startswith(("http://", "https://")):
        raise MedCLIPADError("With studies on a DICOMweb server, name a folder for the detectors with --models.")
    return Path(studies).resolve() / "models"


def _version() -> str:
    from importlib.metadata import version

    return version("medclipad")
