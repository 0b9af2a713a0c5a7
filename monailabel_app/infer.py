"""MONAI Label's inference tasks `mvfa` and `mediclip`: one detector, one volume, one file back.

They are of type "segmentation" and answer with a labelmap, because a stock client lists no other type and imports every
result as one; with params.result = "map" the file is the float32 anomaly map.
"""

from __future__ import annotations

import os
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType
from pydantic import ValidationError

from medclipad.volume import read_volume, write_volume

from .jobs import Jobs
from .models import DetectorCache, ModelStore
from .params import InferParams, infer_config, plain
from .problems import RequestError, sentence

LABELS = {"anomaly": 1}
DESCRIPTIONS = {
    "mediclip": "MediCLIP: anomaly map of a volume, learned from normal slices",
    "mvfa": "MVFA-AD: anomaly map of a volume, learned from normal and abnormal slices",
}
jobs = Jobs()
_device = threading.Lock()  # one inference at a time: a second one would only slow both down


class AnomalyInferTask(InferTask):
    """`request`: {"image": path of a volume, ...InferParams}. Returns (path of a new file, JSON-safe dict)."""

    def __init__(self, method: str, store: ModelStore, cache: DetectorCache) -> None:
        super().__init__(InferType.SEGMENTATION, LABELS, 3, DESCRIPTIONS[method])
        self._method, self._store, self._cache = method, store, cache

    def is_valid(self) -> bool:
        """Only a method with a detector is listed: stock clients offer whatever they see."""
        return self._store.current(self._method) is not None

    def config(self) -> dict[str, Any]:
        return infer_config(self._store.versions(self._method))

    def info(self) -> dict[str, Any]:
        return {**super().info(), "current": self._store.current(self._method), "schema": _SCHEMA}

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        try:
            params = InferParams.model_validate(request)
        except ValidationError as error:
            raise RequestError(sentence(error), 422) from error
        folder = self._store.path(self._method, params.detector)
        with jobs.open(params.request_id) as job:
            while not _device.acquire(timeout=0.2):
                job.check()
            try:
                started = time.perf_counter()
                job.report("load", 0, 1)
                volume = read_volume(request["image"])
                detector = self._cache.get(folder)
                plane = None if params.plane == "default" else params.plane
                result = detector.detect(volume, plane=plane, progress=job.report)
                wants_map = params.result == "map"
                file = _write(
                    result.anomaly_map if wants_map else result.segmentation(),
                    ".nii.gz" if wants_map else params.result_extension,
                )
                seconds = time.perf_counter() - started
            finally:
                _device.release()
            return str(file), plain(
                {
                    "label_names": LABELS,
                    "result": params.result,
                    **result.summary(),
                    "method": self._method,
                    "detector": folder.name,
                    "encoder": detector.info.encoder,
                    "request_id": job.name,
                    "seconds": round(seconds, 3),
                }
            )


_SCHEMA = InferParams.model_json_schema()


def _write(volume: Any, suffix: str) -> Path:
    handle, name = tempfile.mkstemp(prefix="medclipad-", suffix=suffix)
    os.close(handle)
    try:
        write_volume(volume, name)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)
