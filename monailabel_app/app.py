"""The MONAI Label app, which connects MONAI Label's tasks to the services of `medclipad.server`."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.infer_v2 import InferTask
from monailabel.interfaces.tasks.scoring import ScoringMethod
from monailabel.interfaces.tasks.strategy import Strategy
from monailabel.interfaces.tasks.train import TrainTask

from medclipad.server.process_lifetime import mark_server
from medclipad.server.services import Services
from monailabel_app.infer import AnomalyInferTask
from monailabel_app.strategies import ScoredStrategy
from monailabel_app.train import AnomalyTrainTask


class MedCLIPADApp(MONAILabelApp):
    """Anomaly maps of MRI and CT volumes.

    Parameters
    ----------
    app_dir
        Folder of this app.
    studies
        Folder with the volumes, or address of a DICOMweb archive.
    conf
        May hold "models", the folder of the trained detectors; by default `models` in the studies folder.

    Attributes
    ----------
    services
        What the routes and tasks share.
    """

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        self.services = Services(Path(app_dir), studies, conf.get("models"))
        super().__init__(
            app_dir=app_dir,
            studies=studies,
            conf=conf,
            name="MedCLIPAD",
            description="Zero- and few-shot anomaly maps of MRI and CT volumes",
            version=version("medclipad"),
        )
        self._auto_update_scoring = False  # otherwise MONAI Label starts a process after each sample and training

    def init_datastore(self) -> Datastore:
        """Return the studies."""
        return self.services.datastore

    def init_infers(self) -> dict[str, InferTask]:
        """Return an inference task for each method."""
        return {method: AnomalyInferTask(service) for method, service in self.services.inference.items()}

    def init_trainers(self) -> dict[str, TrainTask]:
        """Return a training task for each method."""
        return {method: AnomalyTrainTask(service) for method, service in self.services.training.items()}

    def init_strategies(self) -> dict[str, Strategy]:
        """Return the strategies of active learning."""
        return {name: ScoredStrategy(strategy) for name, strategy in self.services.strategies.items()}

    def init_scoring_methods(self) -> dict[str, ScoringMethod]:
        """Return no methods: a thread of the server scores the images."""
        return {}

    def server_mode(self, mode: bool) -> None:
        """Mark this process as the server, as opposed to a training process."""
        super().server_mode(mode)
        mark_server()
