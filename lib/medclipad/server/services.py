"""What the routes and MONAI Label's tasks share: one `Services` object for each server."""

from __future__ import annotations

import os
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import psutil
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.utils.app import app_instance

from medclipad.active_learning import STRATEGIES
from medclipad.methods import method_names
from medclipad.server.errors import RequestError
from medclipad.server.inference.jobs import Jobs
from medclipad.server.inference.queue import DetectionQueue
from medclipad.server.inference.result_cache import ResultCache
from medclipad.server.inference.scoring import Scorer
from medclipad.server.inference.service import InferenceService
from medclipad.server.locations import is_remote, models_folder
from medclipad.server.next_sample import NextSample
from medclipad.server.process_lifetime import hold_folder
from medclipad.server.security.upload_limits import check_free_space
from medclipad.server.sessions import Sessions
from medclipad.server.stores.dicomweb import DicomWebDatastore
from medclipad.server.stores.folder import StudyDatastore
from medclipad.server.stores.pacs import Pacs
from medclipad.server.training.runner import TrainingRunner
from medclipad.server.training.service import TrainingService
from medclipad.server.training.versions import DetectorCache, VersionStore, starter_folder


class Services:
    """The parts of a server, wired together.

    Parameters
    ----------
    app_folder
        Folder of the MONAI Label app, which holds the starter detector.
    studies
        Folder with the volumes, or address of a DICOMweb archive.
    models
        Folder of the trained detectors; by default `models` in the studies folder.

    Attributes
    ----------
    studies
        As given.
    versions, detectors
        Detector versions on disk, and detectors in memory.
    results, jobs, detections, sessions
        Stored results, running inference requests, the queue that carries them out, and images sent for some of them.
    runner, scorer
        The training processes, and the thread that scores images in the background.
    inference, training, strategies
        Services that answer requests, by method, by method, and by strategy of active learning.

    Raises
    ------
    MedCLIPADError
        If the studies are in an archive and no folder for the detectors is given.
    """

    def __init__(self, app_folder: Path, studies: str, models: str | None = None) -> None:
        self.studies = studies
        self.versions = VersionStore(models_folder(studies, models), starter_folder(app_folder))
        self.detectors = DetectorCache()
        self.results = ResultCache(self.versions.folder / "results")
        self.jobs = Jobs()
        self.sessions = Sessions()
        self.detections = DetectionQueue(self.detectors, self.results)
        self.runner = TrainingRunner(self.versions)
        scoring = os.environ.get("MEDCLIPAD_SCORING", "on") != "off"
        self.scorer = Scorer(self.versions, self.detectors, self.detections, self.results, self._is_busy, scoring)
        self.inference = {
            method: InferenceService(method, self.versions, self.detections, self.results, self.jobs)
            for method in method_names()
        }
        self.training = {method: TrainingService(method, self.versions) for method in method_names()}
        self.strategies = {name: NextSample(name, self.scorer, self.scoring_method) for name in STRATEGIES}

    @cached_property
    def datastore(self) -> Datastore:
        """The studies, behind MONAI Label's interface."""
        if is_remote(self.studies):
            folder = self.versions.folder / "dicomweb"
            return DicomWebDatastore(Pacs.from_environment(self.studies), self.studies, folder)
        return StudyDatastore(self.studies)

    def start(self) -> None:
        """Remove what a killed server left, and start to score the images of a local folder in the background."""
        if not is_remote(self.studies):
            hold_folder(Path(self.studies).resolve())
        self.versions.clean()
        self.results.clean()
        self.datastore.status()  # a first list of an archive is requested while nobody waits for it
        if isinstance(self.datastore, StudyDatastore):
            self.scorer.request_scoring(self.scoring_method(), self.datastore)

    def stop(self) -> None:
        """Stop all inferences, the training and the background scoring."""
        self.jobs.cancel_all()
        self.runner.stop()
        self.scorer.stop()

    def scoring_method(self) -> str | None:
        """Return the method whose detector was selected last; None if no method has a detector."""
        in_use = [method for method in method_names() if self.versions.current(method) is not None]
        return max(in_use, key=self.versions.selected_at, default=None)

    def problems(self) -> list[str]:
        """Return why the server cannot do all of its work, in sentences without names; [] if it can."""
        found = []
        if isinstance(self.datastore, DicomWebDatastore):
            if not self.datastore.reachable:
                found.append("The archive with the studies does not answer.")
        elif not os.access(self.studies, os.R_OK | os.X_OK):
            found.append("The studies folder cannot be read.")
        if not _has_space(self.versions.folder):
            found.append("The disk of the models folder is full, or it cannot be reached.")
        return found

    def gauges(self) -> dict[str, float]:
        """Return the state of the server in numbers, by name."""
        status = self.datastore.status()
        process = psutil.Process()
        return {
            "ready": float(not self.problems()),
            "images": status["total"],
            "images_labelled": status["completed"],
            "inferences_active": self.jobs.active,
            "training_running": float(self.runner.running),
            "versions": sum(len(self.versions.names(method)) for method in method_names()),
            "process_resident_bytes": process.memory_info().rss,
            "process_threads": process.num_threads(),
            "process_start_time_seconds": process.create_time(),
        }

    def _is_busy(self) -> bool:
        return self.jobs.active > 0 or self.runner.running


def _has_space(folder: Path) -> bool:
    """Return whether there is room on the disk of a folder, which is made when something is first stored in it."""
    existing = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    try:
        check_free_space(existing, 0)
    except (RequestError, OSError):
        return False
    return True


class ServedApp(Protocol):
    """The app object that MONAI Label loads, as far as the server uses it."""

    services: Services

    def server_mode(self, mode: bool) -> None:
        """Mark this process as the server, as opposed to a training process."""
        ...

    def info(self) -> dict[str, Any]:
        """Return what GET /info/ shows of the app."""
        ...


def current_app() -> ServedApp:
    """Return the app object that MONAI Label loaded."""
    return cast(ServedApp, app_instance())  # MONAI Label declares no type for it


def current_services() -> Services:
    """Return the services of the running server."""
    return current_app().services
