"""The detections of a server: one at a time per device, off the event loop, each key computed once.

A request waits for a detection. A second request for the same image, detector and plane joins the first one's
detection, which ends early only when all requests that wait for it are cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medclipad.detection.calibration import Calibration
from medclipad.detection.cases import AS_IS, Reading
from medclipad.detection.result import AnomalyResult
from medclipad.detection.storage import DetectorInfo
from medclipad.errors import Cancelled
from medclipad.server.errors import RequestError
from medclipad.server.inference.jobs import Job
from medclipad.server.inference.result_cache import CacheKey, ResultCache
from medclipad.server.params import to_json
from medclipad.server.security.upload_limits import read_image
from medclipad.server.stores.file_state import file_state
from medclipad.server.training.versions import DetectorCache, identity
from medclipad.volume import Slicing, Volume
from medclipad.volume.progress import Progress

_POLL = 0.1  # seconds between two checks whether the request was cancelled


@dataclass(frozen=True)
class Target:
    """What to detect on, and with what.

    Attributes
    ----------
    path
        File or DICOM folder of the image.
    folder
        Folder of the detector version.
    plane
        Plane to analyse, as `AnomalyDetector.detect` takes it.
    reading
        Which of several volumes it is, and the like.
    force_modality
        Whether a volume of another modality is analysed.
    key
        Key to store the result under; None for an image that came with the request, whose result is not stored.
    """

    path: str
    folder: Path
    plane: str
    reading: Reading
    force_modality: bool
    key: CacheKey | None


@dataclass(frozen=True)
class Analysis:
    """What a detector found in an image.

    Attributes
    ----------
    path
        File or DICOM folder of the image.
    scores
        `AnomalyResult.summary()`, in JSON's types.
    encoder
        Name of the detector's encoder.
    calibration
        What the detector said of normal scans.
    key
        Key that the result is stored under; None for an image that came with the request.
    cached
        Whether the result had been computed before.
    load_map
        Returns the map, which is read from the disk only when it is needed.
    """

    path: str
    scores: dict[str, Any]
    encoder: str
    calibration: Calibration
    key: CacheKey | None
    cached: bool
    load_map: Callable[[], Volume]

    @cached_property
    def anomaly_map(self) -> Volume:
        """The map, float32 in [0, 1], on the image's grid."""
        return self.load_map()

    @property
    def result(self) -> AnomalyResult:
        """The result, with the map."""
        slicing = Slicing(self.anomaly_map, self.scores["plane"])
        return AnomalyResult.from_summary(self.anomaly_map, slicing, self.scores, self.calibration)


class _Detection:
    """A running detection, and the jobs that wait for it."""

    def __init__(self) -> None:
        self.future: Future[Analysis] = Future()
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._abandoned = False

    def join(self, job: Job) -> bool:
        """Let a job wait for this detection; return False if it has just been abandoned."""
        with self._lock:
            if not self._abandoned:
                self._jobs.append(job)
            return not self._abandoned

    def report(self, phase: str, done: int, total: int, info: dict[str, Any] | None = None) -> None:
        """Pass the progress on to all waiting jobs; raise Cancelled once none is left."""
        with self._lock:
            self._jobs = [job for job in self._jobs if not job.cancelled and job.active]
            self._abandoned = not self._jobs
            if self._abandoned:
                raise Cancelled("The inference was cancelled.")
            for job in self._jobs:
                job.update(phase, done, total, info)


class DetectionQueue:
    """The detections of a server.

    Parameters
    ----------
    detectors
        Detectors in memory.
    results
        Stored results; new ones are added.
    """

    def __init__(self, detectors: DetectorCache, results: ResultCache) -> None:
        self._detectors, self._results = detectors, results
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="detect")  # a second thread would only slow both down
        self._lock = threading.Lock()
        self._running: dict[CacheKey, _Detection] = {}

    def target(
        self,
        image: str,
        path: str,
        folder: Path,
        plane: str,
        reading: Reading = AS_IS,
        force_modality: bool = False,
    ) -> Target:
        """Return a detection target for an image of the studies, or with `image` "" for one that came with a request.

        Parameters
        ----------
        image
            Id in the studies, or "".
        path
            File or DICOM folder of the image.
        folder
            Folder of the detector version.
        plane
            Plane to analyse.
        reading
            Which of several volumes it is, and the like.
        force_modality
            Whether a volume of another modality is analysed.
        """
        options = "" if (reading, force_modality) == (AS_IS, False) else f" {reading} {force_modality}"
        key = CacheKey(image, file_state(path), identity(folder), plane, options) if image else None
        return Target(path, folder, plane, reading, force_modality, key)

    def find(self, target: Target, info: DetectorInfo) -> Analysis | None:
        """Return the stored result of a target, by the detector that `info` describes; None if there is none."""
        key, scores = target.key, self.scores(target)
        if key is None or scores is None:
            return None
        return Analysis(target.path, scores, info.encoder, info.calibration, key, True, lambda: self._load_map(key))

    def scores(self, target: Target) -> dict[str, Any] | None:
        """Return the stored scores of a target without reading a voxel; None if there are none."""
        record = self._results.get_record(target.key) if target.key else None
        return record["scores"] if record else None

    def analyse(self, target: Target, job: Job) -> Analysis:
        """Detect, or wait for another request's detection of the same target.

        Raises
        ------
        Cancelled
            When `job` is cancelled, whatever the detection itself does.
        """
        detection = self._start_or_join(target, job)
        while True:
            try:
                return detection.future.result(_POLL)
            except FutureTimeoutError:
                job.check()

    def run_detection(self, volume: Volume, target: Target, report: Progress) -> Analysis:
        """Detect in this thread, and store the result if the target has a key."""
        detector = self._detectors.get(target.folder)
        result = detector.detect(volume, target.plane, report, force_modality=target.force_modality)
        scores = to_json(result.summary())
        if target.key is not None:
            self._results.put(target.key, result.anomaly_map, {"scores": scores})
        info = detector.info
        return Analysis(
            target.path, scores, info.encoder, info.calibration, target.key, False, lambda: result.anomaly_map
        )

    def _load_map(self, key: CacheKey) -> Volume:
        result = self._results.get(key)
        if result is None:  # removed since, to make room, or damaged
            raise RequestError("The stored result has just been removed: try again.", 503, {"Retry-After": "1"})
        return result.anomaly_map

    def _start_or_join(self, target: Target, job: Job) -> _Detection:
        key = target.key
        with self._lock:
            if key is not None and key in self._running and self._running[key].join(job):
                return self._running[key]
            detection = _Detection()
            detection.join(job)
            if key is not None:
                self._running[key] = detection
        self._pool.submit(self._run, detection, target)
        return detection

    def _run(self, detection: _Detection, target: Target) -> None:
        try:
            detection.report("load", 0, 1)
            volume = read_image(target.path, target.reading, lambda: detection.report("load", 0, 1))
            analysis = self.run_detection(volume, target, detection.report)
        except BaseException as error:  # the waiting requests raise it
            detection.future.set_exception(error)
        else:
            detection.future.set_result(analysis)
        finally:
            with self._lock:
                if target.key is not None and self._running.get(target.key) is detection:
                    del self._running[target.key]
