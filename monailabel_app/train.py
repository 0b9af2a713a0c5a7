"""MONAI Label's training tasks: shots from the labels of the studies, a new version of the detector out of them.

They run in a process of their own that MONAI Label starts. It tells how it goes in two ways: one line of JSON on its
output, which MONAI Label shows as `details` of GET /train/, and the progress file, which GET /train/progress reads and
which also holds the reason when a training fails.
"""

from __future__ import annotations

import json
import logging
import os
import time
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from monailabel.interfaces.tasks.train import TrainTask
from pydantic import ValidationError

from medclipad.errors import MedCLIPADError
from medclipad.methods import method_class
from medclipad.volume import Volume, read_volume

from .models import ModelStore
from .params import TrainParams, plain, train_config
from .problems import RequestError, sentence

FINAL = DefaultLabelTag.FINAL.value
_PERIOD = 0.25  # seconds between two reports


class Shots:
    """Ids of the cases that a training reads."""

    def __init__(self, params: TrainParams, datastore: Datastore, method: str) -> None:
        """Those that the request names, else all with a final label or marked {"normal": true} in their image info.

        An unknown id raises RequestError 404, a case without the label that it needs or nothing to learn from 422.
        """
        known = set(datastore.list_images())
        for name in [*params.normal, *params.abnormal]:
            if name not in known:
                raise RequestError(f"There is no image {name!r} in the studies.", 404)
        self.labelled = set(datastore.get_labeled_images())
        for name in params.abnormal:
            if name not in self.labelled:
                raise RequestError(f"Image {name!r} has no final label, which an abnormal case needs.", 422)
        self.named = {*params.normal, *params.abnormal}
        marked = [name for name in known if datastore.get_image_info(name).get("normal") is True]
        self.normal = params.normal if self.named else sorted(set(marked) - self.labelled)
        self.abnormal = params.abnormal if self.named else sorted(self.labelled)
        if not self.normal and not self.abnormal:
            raise RequestError(
                "There is nothing to learn from: save final labels, mark images as normal, "
                "or name them in the request's normal and abnormal.",
                422,
            )
        if method == "mvfa" and not (self.labelled & {*self.normal, *self.abnormal}):
            raise RequestError("mvfa needs at least one image with a final label that shows an anomaly.", 422)

    def read(self, datastore: Datastore, report: Any) -> tuple[list, list]:
        """(normal, abnormal) as medclipad.fit takes them: it draws normal shots from the lesion-free slices of both."""
        normal: list[Volume | tuple[Volume, Volume]] = []
        abnormal: list[tuple[Volume, Volume]] = []
        names = sorted({*self.normal, *self.abnormal})  # sorted: the same request learns the same
        for number, name in enumerate(names):
            report("load", number, len(names), {})
            volume = read_volume(datastore.get_image_uri(name))
            if name not in self.labelled:
                normal.append(volume)
                continue
            mask = read_volume(datastore.get_label_uri(name, FINAL))
            diseased = name in self.abnormal and (name in self.named or mask.array.any())
            (abnormal if diseased else normal).append((volume, mask))
        report("load", len(names), len(names), {})
        return normal, abnormal


class AnomalyTrainTask(TrainTask):
    """`request`: TrainParams and the `run` that its progress is filed under. Returns what /train/ shows at the end."""

    def __init__(self, method: str, store: ModelStore) -> None:
        super().__init__(f"Train a {method} detector from the labels of the studies")
        self._method, self._store = method, store

    def config(self) -> dict[str, Any]:
        return train_config()

    def info(self) -> dict[str, Any]:
        schema = TrainParams.model_json_schema()
        schema["properties"]["options"] = method_class(self._method).Options.model_json_schema()
        return {**super().info(), "schema": schema}

    def stats(self) -> dict[str, Any]:
        return {"current": self._store.current(self._method), "versions": self._store.versions(self._method)}

    def plan(self, request: dict[str, Any], datastore: Datastore) -> TrainParams:
        """Everything that can be checked without reading a volume; RequestError says what is wrong."""
        try:
            params = TrainParams.of({key: value for key, value in request.items() if key != "run"})
            method_class(self._method).Options(**params.method_options())
        except ValidationError as error:
            raise RequestError(sentence(error), 422) from error
        self._store.check_writable()
        if params.name:
            self._store.check_new(self._method, params.name)
        Shots(params, datastore, self._method)
        return params

    def __call__(self, request: dict[str, Any], datastore: Datastore) -> dict[str, Any]:
        logging.getLogger("monailabel").setLevel(logging.WARNING)  # `details` has room for 20 lines: ours
        progress = ProgressFile(self._store.folder, self._method, str(request.get("run", "")))
        try:
            version = self._train(request, datastore, progress)
        except MedCLIPADError as error:
            progress.fail(str(error))
            raise SystemExit(1) from None  # status ERROR; the sentence says why, a traceback would not
        except BaseException as error:
            progress.fail(f"The training failed unexpectedly ({type(error).__name__}: {error}).")
            raise
        progress.write("done", 1, 1, {"version": version})
        return {"version": version}

    def _train(self, request: dict[str, Any], datastore: Datastore, progress: ProgressFile) -> str:
        from medclipad.detector import fit  # imports torch models: only where a training runs

        params = self.plan(request, datastore)
        progress.write("load", 0, 0, {})
        normal, abnormal = Shots(params, datastore, self._method).read(datastore, progress.report)
        name = params.name or f"{self._method}-{time.strftime('%Y%m%d-%H%M%S')}"
        detector = fit(
            method=self._method,
            encoder=params.encoder,
            normal=normal,
            abnormal=abnormal,
            shots=params.shots or None,
            plane=params.plane,
            intensity=params.intensity,
            seed=params.seed,
            name=name,
            progress=progress.report,
            **params.method_options(),
        )
        progress.write("save", 0, 1, {})
        self._store.publish(detector, self._method, name)
        return name


class ProgressFile:
    """`<models>/training.json`: how the last training goes or went. Written whole by the child, read by the server."""

    def __init__(self, models: Path, method: str, run: str) -> None:
        self._path = models / "training.json"
        self._start = {"run": run, "method": method, "started": time.time()}
        self._last = ("", 0.0)

    def report(self, phase: str, done: int, total: int, info: dict[str, Any]) -> None:
        """The progress callback of a training; most calls are skipped, first and last of a phase never."""
        last_phase, last_time = self._last
        if phase != last_phase or done >= total or time.monotonic() - last_time > _PERIOD:
            self.write(phase, done, total, info)

    def write(self, phase: str, done: int, total: int, info: dict[str, Any], error: str | None = None) -> None:
        self._last = (phase, time.monotonic())
        event = {"phase": phase, "done": done, "total": total, "info": plain(info or {})}
        if error:
            event["error"] = error
        print(json.dumps(event), flush=True)
        text = json.dumps({**self._start, **event, "seconds": round(time.time() - self._start["started"], 1)})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        aside = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, self._path)

    def fail(self, reason: str) -> None:
        self.write("failed", 0, 0, {}, error=reason)

    @staticmethod
    def read(models: Path) -> dict[str, Any]:
        """The last report, or {} if there has never been a training."""
        try:
            return json.loads((models / "training.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
