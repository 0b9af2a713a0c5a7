"""The MONAI Label app: which tasks there are, and where detectors and studies live."""

from __future__ import annotations

import os
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
from monailabel_app.datastore import StudyDatastore
from monailabel_app.dicomweb import DicomWebDatastore
from monailabel_app.dicomweb_pacs import Pacs
from monailabel_app.infer import AnomalyInferTask, jobs
from monailabel_app.inference import Inferences
from monailabel_app.models import DetectorCache, ModelStore
from monailabel_app.orphans import mark_server
from monailabel_app.results import ResultCache
from monailabel_app.scores import Scorer
from monailabel_app.strategies import STRATEGIES, ScoredStrategy
from monailabel_app.train import AnomalyTrainTask
from monailabel_app.trainings import Trainings


class MedCLIPADApp(MONAILabelApp):
    """Anomaly maps of MRI and CT volumes with MediCLIP and MVFA-AD.

    `conf` may hold "models", the folder of the trained detectors; by default it is `models` in the studies folder.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.store = ModelStore(_models_folder(studies, conf))
        self.detectors = DetectorCache()
        self.results = ResultCache(self.store.folder / "results")
        self.trainings = Trainings(self.store)
        inferences = Inferences(self.detectors, self.results)
        self._inferences = inferences
        self.scorer = Scorer(self.store, self.detectors, inferences, self.results, self._busy)
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
        if self.studies.startswith(("http://", "https://")):
            return DicomWebDatastore(Pacs.from_environment(self.studies), self.studies, self.store.folder / "dicomweb")
        return StudyDatastore(self.studies)

    def init_infers(self) -> dict[str, InferTask]:
        return {method: AnomalyInferTask(method, self.store, self._inferences, self.results) for method in METHODS}

    def init_trainers(self) -> dict[str, TrainTask]:
        return {method: AnomalyTrainTask(method, self.store) for method in METHODS}

    def init_strategies(self) -> dict[str, Strategy]:
        return {name: ScoredStrategy(name, self.scorer, self.scoring_method) for name in STRATEGIES}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        return {}

    def server_mode(self, mode: bool) -> None:
        """Called where the app is served, not in the processes that train."""
        super().server_mode(mode)
        mark_server()

    def scoring_method(self) -> str | None:
        """The method whose detector was made current last; None if none has one."""
        serving = [method for method in METHODS if self.store.current(method) is not None]
        return max(serving, key=self.store.changed, default=None)

    def start_scoring(self) -> None:
        """Score the images of a local folder in the background; those of a DICOMweb server only once somebody asks."""
        if isinstance(self._datastore, StudyDatastore) and os.environ.get("MEDCLIPAD_SCORING", "on") != "off":
            self.scorer.want(self.scoring_method(), self._datastore)

    def _busy(self) -> bool:
        return jobs.busy or self.trainings.running

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
