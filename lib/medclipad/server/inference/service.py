"""Inference requests of a method: their parameters, their answer, and the file that goes with it."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from medclipad.detection.storage import read_info
from medclipad.server.errors import RequestError, first_error
from medclipad.server.inference.jobs import Jobs
from medclipad.server.inference.queue import Analysis, DetectionQueue
from medclipad.server.inference.result_cache import ResultCache
from medclipad.server.params import InferParams, infer_config, to_json
from medclipad.server.training.versions import VersionStore
from medclipad.volume import write_volume

LABELS = {"anomaly": 1}


class InferenceService:
    """Answer the inference requests of one method.

    A request is a dict with "image", the path of a volume; "id", its id in the studies, or "" for a volume that came
    with the request; and the fields of `InferParams`.

    Parameters
    ----------
    method
        Name of the method.
    versions
        Detector versions on disk.
    detections, results
        The queue that detects, and the stored results.
    jobs
        Running requests.

    Attributes
    ----------
    description
        One line for GET /info/.
    """

    def __init__(
        self, method: str, versions: VersionStore, detections: DetectionQueue, results: ResultCache, jobs: Jobs
    ) -> None:
        self._method, self._versions = method, versions
        self._detections, self._results, self._jobs = detections, results, jobs
        self.description = f"{method}: anomaly map of a volume"

    @property
    def current(self) -> str | None:
        """Name of the version in use; None if there is none."""
        return self._versions.current(self._method)

    def config(self) -> dict[str, Any]:
        """Return the parameters as a form of MONAI Label's clients."""
        return infer_config(self._versions.names(self._method))

    def info(self) -> dict[str, Any]:
        """Return what GET /info/ shows."""
        return {"current": self.current, "versions": self._versions.names(self._method), "schema": _SCHEMA}

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Return the path of a new file, map or labelmap, and the answer's `params`."""
        params = self.parameters(request)
        analysis, answer = self.analyse(request, params)
        return str(self._write_file(analysis, params)), answer

    def parameters(self, request: dict[str, Any]) -> InferParams:
        """Return the request's parameters; raise RequestError 422 if one is not valid."""
        try:
            return InferParams.model_validate(request)
        except ValidationError as error:
            raise RequestError(first_error(error), 422) from error

    def analyse(self, request: dict[str, Any], params: InferParams) -> tuple[Analysis, dict[str, Any]]:
        """Detect, or take the stored result, and return it with the answer's `params`; no file is written."""
        folder = self._versions.path(self._method, params.detector)
        with self._jobs.open(params.request_id) as job:
            started = time.perf_counter()
            info = read_info(folder)
            plane = info.config.planes if params.plane == "default" else params.plane
            target = self._detections.target(
                request.get("id") or "", request["image"], folder, plane, params.reading(), params.force_modality
            )
            analysis = self._detections.find(target, info) or self._detections.analyse(target, job)
            seconds = time.perf_counter() - started
        rate = params.false_regions_per_scan
        chosen = {} if rate is None else analysis.result.chosen(rate)
        largest = (chosen or analysis.scores)["regions"][:1]
        answer = {
            "label_names": LABELS,
            "centroids": {name: [value, *largest[0]["ijk"]] for name, value in LABELS.items() if largest},
            "result": params.result,
            **analysis.scores,
            **chosen,
            "method": self._method,
            "detector": folder.name,
            "encoder": analysis.encoder,
            "request_id": job.name,
            "seconds": round(seconds, 3),
            "cached": analysis.cached,
        }
        return analysis, to_json(answer)

    def _write_file(self, analysis: Analysis, params: InferParams) -> Path:
        """Write the map or the labelmap to a new temporary file and return its path."""
        is_map = params.result == "map"
        suffix = ".nii.gz" if is_map else params.result_extension
        handle, name = tempfile.mkstemp(prefix="medclipad-", suffix=suffix)
        os.close(handle)
        path = Path(name)
        try:
            if not is_map:
                mask = analysis.result.segmentation(false_per_scan=params.false_regions_per_scan)
                mask = mask.with_array(mask.array.astype(params.result_dtype, copy=False))
                write_volume(mask, path, params.result_compress)
            elif analysis.key is None or not self._results.copy_map(analysis.key, path):
                write_volume(analysis.anomaly_map, path)
        except BaseException:
            path.unlink()
            raise
        return path


_SCHEMA = InferParams.model_json_schema()
