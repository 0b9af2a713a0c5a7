"""What the routes and MONAI Label's tasks share: one `Services` for each server."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.utils.app import app_instance

from medclipad.active_learning import STRATEGIES
from medclipad.errors import MedCLIPADError
from medclipad.methods import METHODS
from medclipad.server.inference.jobs import Jobs
from medclipad.server.inference.queue import DetectionQueue
from medclipad.server.inference.result_cache import ResultCache
from medclipad.server.inference.scoring import Scorer
from medclipad.server.inference.service import InferenceService
from medclipad.server.next_sample import NextSample
from medclipad.server.stores.dicomweb import DicomWebDatastore
from medclipad.server.stores.folder import StudyDatastore
from medclipad.server.stores.pacs import Pacs
from medclipad.server.training.service import TrainingService
from medclipad.server.training.trainings import Trainings
from medclipad.server.training.versions import DetectorCache, VersionStore, starter_folder


class Services:
    """The parts of a server, wired together.

    Attributes
    ----------
    studies
        Folder with the volumes, or address of a DICOMweb archive.
    versions, detectors
        Detector versions on disk, and those that are loaded.
    results, jobs, detections
        Results that are kept, inference requests under way, and the queue that carries them out.
    trainings, scorer
        The training process, and the thread that scores images in the background.
    inference, training, strategies
        What answers requests: by method, by method, and by strategy of active learning.
    """

    def __init__(self, app_folder: Path, studies: str, models: str | None = None) -> None:
        """Wire the parts; `models` is the folder of the detectors, by default `models` in the studies folder.

        Raises MedCLIPADError if the studies are in an archive and no folder for the detectors is named.
        """
        self.studies = studies
        self.versions = VersionStore(_models_folder(studies, models), starter_folder(app_folder))
        self.detectors = DetectorCache()
        self.results = ResultCache(self.versions.folder / "results")
        self.jobs = Jobs()
        self.detections = DetectionQueue(self.detectors, self.results)
        self.trainings = Trainings(self.versions)
        self.scorer = Scorer(self.versions, self.detectors, self.detections, self.results, self._busy)
        self.inference = {
            method: InferenceService(method, self.versions, self.detections, self.results, self.jobs)
            for method in METHODS
        }
        self.training = {method: TrainingService(method, self.versions) for method in METHODS}
        self.strategies = {name: NextSample(name, self.scorer, self.scoring_method) for name in STRATEGIES}

    @cached_property
    def datastore(self) -> Datastore:
        """The studies, as MONAI Label's interface has them."""
        if self.studies.startswith(("http://", "https://")):
            folder = self.versions.folder / "dicomweb"
            return DicomWebDatastore(Pacs.from_environment(self.studies), self.studies, folder)
        return StudyDatastore(self.studies)

    def start(self) -> None:
        """Remove what a killed server left, and begin to score the images of a local folder in the background."""
        self.versions.clean()
        self.results.clean()
        if isinstance(self.datastore, StudyDatastore) and os.environ.get("MEDCLIPAD_SCORING", "on") != "off":
            self.scorer.request_scoring(self.scoring_method(), self.datastore)

    def stop(self) -> None:
        """Stop inferences, the training and the background scores."""
        self.jobs.cancel_all()
        self.trainings.stop()
        self.scorer.stop()

    def scoring_method(self) -> str | None:
        """Return the method whose detector was made current last; None if none has one."""
        in_use = [method for method in METHODS if self.versions.current(method) is not None]
        return max(in_use, key=self.versions.changed, default=None)

    def _busy(self) -> bool:
        return self.jobs.busy or self.trainings.running


def current_services() -> Services:
    """Return the parts of the running server, by the app that MONAI Label loaded."""
    return app_instance().services


def _models_folder(studies: str, models: str | None) -> Path:
    if models:
        return Path(models).resolve()
    if studies.startswith(("http://", "https://")):
        raise MedCLIPADError("With studies on a DICOMweb server, name a folder for the detectors with --models.")
    return Path(studies).resolve() / "models"
