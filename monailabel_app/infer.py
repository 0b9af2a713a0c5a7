"""MONAI Label's inference tasks `mvfa` and `mediclip`: one detector, one volume, one file back.

They are of type "segmentation" and answer with a labelmap, because a stock client lists no other type and imports every
result as one; with params.result = "map" the file is the float32 anomaly map.
"""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from pydantic import ValidationError

from medclipad.detection.storage import read_info
from medclipad.volume import Volume, write_volume
from monailabel_app.errors import RequestError
from monailabel_app.inference import Analysis, Inferences
from monailabel_app.jobs import Jobs
from monailabel_app.models import ModelStore
from monailabel_app.params import InferParams, infer_config, plain
from monailabel_app.problems import sentence
from monailabel_app.results import ResultCache

LABELS = {"anomaly": 1}
DESCRIPTIONS = {
    "mediclip": "MediCLIP: anomaly map of a volume, learned from normal slices",
    "mvfa": "MVFA-AD: anomaly map of a volume, learned from normal and abnormal slices",
}
jobs = Jobs()


class AnomalyInferTask(InferTask):
    """`request`: {"image": path of a volume, "id": its id in the studies, if it is there, ...InferParams}.

    Returns (path of a new file, JSON-safe dict).
    """

    def __init__(self, method: str, store: ModelStore, inferences: Inferences, results: ResultCache) -> None:
        super().__init__(InferType.SEGMENTATION, LABELS, 3, DESCRIPTIONS[method])
        self._method, self._store, self._inferences, self._results = method, store, inferences, results

    def is_valid(self) -> bool:
        """Only a method with a detector is listed: stock clients offer whatever they see."""
        return self._store.current(self._method) is not None

    def config(self) -> dict[str, Any]:
        return infer_config(self._store.versions(self._method))

    def info(self) -> dict[str, Any]:
        return {
            **super().info(),
            "current": self._store.current(self._method),
            "versions": self._store.versions(self._method),
            "schema": _SCHEMA,
        }

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        params = self.parameters(request)
        analysis, answer = self.analyse(request, params)
        return str(self._file(analysis, params)), answer

    def parameters(self, request: dict[str, Any]) -> InferParams:
        """The request's parameters; RequestError 422 if one is wrong."""
        try:
            return InferParams.model_validate(request)
        except ValidationError as error:
            raise RequestError(sentence(error), 422) from error

    def analyse(self, request: dict[str, Any], params: InferParams) -> tuple[Analysis, dict[str, Any]]:
        """(map and scores, the answer's `params`), computed or found; no file is written."""
        folder = self._store.path(self._method, params.detector)
        with jobs.open(params.request_id) as job:
            started = time.perf_counter()
            info = read_info(folder)
            plane = info.plane if params.plane == "default" else params.plane
            path, question = request["image"], None
            if request.get("id"):
                question = self._inferences.question(request["id"], path, folder, plane)
            analysis = self._inferences.known(question, path, info.encoder) if question else None
            if analysis is None:
                analysis = self._inferences.analyse(path, folder, plane, job, question)
            seconds = time.perf_counter() - started
        return analysis, plain(
            {
                "label_names": LABELS,
                "result": params.result,
                **analysis.scores,
                "method": self._method,
                "detector": folder.name,
                "encoder": analysis.encoder,
                "request_id": job.name,
                "seconds": round(seconds, 3),
                "cached": analysis.cached,
            }
        )

    def _file(self, analysis: Analysis, params: InferParams) -> Path:
        """A new temporary file with the map or the labelmap."""
        wants_map = params.result == "map"
        handle, name = tempfile.mkstemp(prefix="medclipad-", suffix=".nii.gz" if wants_map else params.result_extension)
        os.close(handle)
        path = Path(name)
        try:
            if not wants_map:
                write_volume(labelmap(analysis), path)
            elif analysis.question is None or not self._results.copy_map(analysis.question, path):
                write_volume(analysis.anomaly_map, path)
        except BaseException:
            path.unlink()
            raise
        return path


def labelmap(analysis: Analysis) -> Volume:
    """Mask uint8, 1 where the map exceeds the detector's threshold."""
    above = analysis.anomaly_map.array > analysis.scores["threshold"]
    return analysis.anomaly_map.with_array(above.astype(np.uint8))


_SCHEMA = InferParams.model_json_schema()
