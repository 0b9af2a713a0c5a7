"""Detections for requests: one at a time per device, off the event loop, each key answered once.

A request waits for a piece of work. A second request for the same thing joins the first one's; the work ends early only
when all who wait for it have cancelled.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from medclipad.errors import Cancelled
from medclipad.methods.base import Progress
from medclipad.server.errors import RequestError
from medclipad.server.inference.jobs import Job
from medclipad.server.inference.result_cache import CacheKey, ResultCache, file_state
from medclipad.server.params import to_json
from medclipad.server.training.versions import DetectorCache, identity
from medclipad.volume import Volume, read_volume

_LOOK = 0.1  # seconds between two looks whether the request was cancelled


@dataclass(frozen=True)
class Analysis:
    """What a detector says of an image.

    path: of the image's file or DICOM folder. scores: `AnomalyResult.summary()`, in JSON's types. encoder: of the
    detector. key: what it is kept under, None for an image that was sent along. cached: whether it had been
    computed before. load_map: gives the map, which is read from the disk only if somebody wants it.
    """

    path: str
    scores: dict[str, Any]
    encoder: str
    key: CacheKey | None
    cached: bool
    load_map: Callable[[], Volume]

    @cached_property
    def anomaly_map(self) -> Volume:
        """Float32 in [0, 1], on the image's grid."""
        return self.load_map()


class _Detection:
    """A detection under way, and the requests that wait for it."""

    def __init__(self) -> None:
        self.future: Future[Analysis] = Future()
        self._lock = threading.Lock()
        self._jobs: list[Job] = []
        self._over = False

    def join(self, job: Job) -> bool:
        """Wait for it too; False if it has just been given up."""
        with self._lock:
            if not self._over:
                self._jobs.append(job)
            return not self._over

    def report(self, phase: str, done: int, total: int, info: dict[str, Any] | None = None) -> None:
        """Progress callback: tells all who wait; raises Cancelled once nobody does."""
        with self._lock:
            self._jobs = [job for job in self._jobs if not job.cancelled and job.active]
            self._over = not self._jobs
            if self._over:
                raise Cancelled("The inference was cancelled.")
            for job in self._jobs:
                job.update(phase, done, total, info)


class DetectionQueue:
    """The detections of a server."""

    def __init__(self, detectors: DetectorCache, results: ResultCache) -> None:
        self._detectors, self._results = detectors, results
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="detect")  # a second one would only slow both down
        self._lock = threading.Lock()
        self._running: dict[CacheKey, _Detection] = {}

    def cache_key(self, image: str, path: str, folder: Path, plane: str) -> CacheKey:
        """The key that an inference of an image of the studies answers."""
        return CacheKey(image, file_state(path), identity(folder), plane)

    def find(self, key: CacheKey, path: str, encoder: str) -> Analysis | None:
        """The answer, if it was computed before."""
        scores = self.scores(key)
        if scores is None:
            return None
        return Analysis(path, scores, encoder, key, True, lambda: self._kept_map(key))

    def _kept_map(self, key: CacheKey) -> Volume:
        found = self._results.find(key)
        if found is None:  # dropped since, to make room, or damaged
            raise RequestError("The kept result has just gone: ask again.", 503, {"Retry-After": "1"})
        return found.anomaly_map

    def scores(self, key: CacheKey) -> dict[str, Any] | None:
        """The scores alone, if the key was answered before; no voxel is read."""
        record = self._results.record(key)
        return record["scores"] if record else None

    def analyse(self, path: str, folder: Path, plane: str, job: Job, key: CacheKey | None) -> Analysis:
        """Detect, or wait for another request's detection; without a `key` the result is not kept.

        Raises Cancelled when `job` is cancelled, whatever the work itself does.
        """
        work = self._work(path, folder, plane, job, key)
        while True:
            try:
                return work.future.result(_LOOK)
            except NotYet:
                job.check()

    def _work(self, path: str, folder: Path, plane: str, job: Job, key: CacheKey | None) -> _Detection:
        with self._lock:
            if key is not None and key in self._running and self._running[key].join(job):
                return self._running[key]
            work = _Detection()
            work.join(job)
            if key is not None:
                self._running[key] = work
        self._pool.submit(self._run, work, path, folder, plane, key)
        return work

    def _run(self, work: _Detection, path: str, folder: Path, plane: str, key: CacheKey | None) -> None:
        try:
            work.report("load", 0, 1)
            analysis = self.run_detection(read_volume(path), path, folder, plane, work.report, key)
        except BaseException as error:  # whoever waits gets it
            work.future.set_exception(error)
        else:
            work.future.set_result(analysis)
        finally:
            with self._lock:
                if key is not None and self._running.get(key) is work:
                    del self._running[key]

    def run_detection(
        self, volume: Volume, path: str, folder: Path, plane: str, report: Progress, key: CacheKey | None
    ) -> Analysis:
        """Detect in this thread, and keep the result if there is a key."""
        detector = self._detectors.get(folder)
        result = detector.detect(volume, plane=plane, progress=report)
        scores = to_json(result.summary())
        if key is not None:
            self._results.keep(key, result.anomaly_map, {"scores": scores})
        return Analysis(path, scores, detector.info.encoder, key, False, lambda: result.anomaly_map)
