"""What the serving detector says of every image, computed in the background and kept.

    <models>/scores/<detector>/<image>.npz      one small file per detector identity and image, both hashed

The strategies of active learning only ever read what is there.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore

from medclipad.active_learning import Candidate, project
from medclipad.errors import Cancelled, MedCLIPADError
from medclipad.files import atomic_file, sha256_of_text
from medclipad.methods import METHODS
from medclipad.server.inference.queue import DetectionQueue
from medclipad.server.inference.result_cache import ResultCache
from medclipad.server.stores.content import state_of
from medclipad.server.training.versions import DetectorCache, VersionStore, identity, is_whole
from medclipad.volume import read_volume

logger = logging.getLogger(__name__)
IDLE = 2.0  # seconds without an inference or training before the next image is scored
_LOOK = 5.0  # seconds until a new image or version is noticed, if nobody tells


class ScoreStore:
    """Candidates on disk and in memory, by detector identity, image and state of its file. Thread-safe."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], tuple[str, Candidate | None]] = {}

    def get(self, detector: str, image: str, state: str) -> Candidate | None:
        """The scores of an image; None if there are none or they are of an earlier file."""
        found = self._find(detector, image)
        return found[1] if found and found[0] == state else None

    def has(self, detector: str, image: str, state: str) -> bool:
        """Whether an image was scored; also if that failed, since it would fail again."""
        found = self._find(detector, image)
        return found is not None and found[0] == state

    def put(self, detector: str, image: str, state: str, candidate: Candidate | None) -> None:
        """Keep scores; None says that the image cannot be scored."""
        with self._lock:
            self._known[detector, image] = (state, candidate)
        if candidate is None:
            return  # a damaged file may be replaced by another program: try again after a restart
        path = self._path(detector, image)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as temp_path, temp_path.open("wb") as stream:
                np.savez(
                    stream,
                    state=state,
                    volume_score=candidate.volume_score,
                    slice_scores=candidate.slice_scores,
                    boundary=candidate.boundary,
                    features=candidate.features,
                )
        except OSError as error:
            logger.warning("Scores could not be kept: %s", error.strerror)

    def prune(self, versions: Iterable[Path]) -> None:
        """Drop the scores of all detectors but those in these folders."""
        kept = {sha256_of_text(identity(folder)) for folder in versions if is_whole(folder)}
        for folder in self._folder.glob("*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _find(self, detector: str, image: str) -> tuple[str, Candidate | None] | None:
        with self._lock:
            if (detector, image) in self._known:
                return self._known[detector, image]
        try:
            with np.load(self._path(detector, image), allow_pickle=False) as held:
                candidate = Candidate(
                    image, float(held["volume_score"]), held["slice_scores"], float(held["boundary"]), held["features"]
                )
                found = (str(held["state"]), candidate)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            return None
        with self._lock:
            return self._known.setdefault((detector, image), found)

    def _path(self, detector: str, image: str) -> Path:
        return self._folder / sha256_of_text(detector) / f"{sha256_of_text(image)}.npz"


class Scorer:
    """A thread that scores what is not scored yet, one image at a time, and steps aside for every request."""

    def __init__(
        self,
        versions: VersionStore,
        detectors: DetectorCache,
        detections: DetectionQueue,
        results: ResultCache,
        busy: Callable[[], bool],
    ) -> None:
        self.scores = ScoreStore(versions.folder / "scores")
        self._versions, self._detectors, self._detections, self._results = versions, detectors, detections, results
        self._busy = busy
        self._wake, self._stop = threading.Event(), threading.Event()
        self._wanted: str | None = None  # the method
        self._running = False
        self._thread: threading.Thread | None = None
        self._tidied: tuple[list[str], list[Path]] | None = None

    def request_scoring(self, method: str | None, datastore: Datastore) -> None:
        """Score the images of the studies with the method's current detector, from now on."""
        self._wanted = method or self._wanted
        if self._thread is None and method:
            self._thread = threading.Thread(target=self._work, args=(datastore,), name="scorer", daemon=True)
            self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5)

    def detector(self, method: str) -> str | None:
        """Identity of the method's current detector."""
        if self._versions.current(method) is None:
            return None
        try:
            return identity(self._versions.path(method))
        except (OSError, MedCLIPADError):
            return None

    def plane(self, method: str) -> str | None:
        """Plane that the slices of the method's candidates are numbered in."""
        entry = self._versions.entry(method, self._versions.current(method) or "")
        return entry["plane"] if entry else None

    def candidate(self, method: str, image: str, datastore: Datastore) -> Candidate | None:
        """What is known of an image; no image is read nor fetched for it."""
        detector, state = self.detector(method), state_of(datastore, image)
        return self.scores.get(detector, image, state) if detector and state else None

    def status(self, method: str, datastore: Datastore) -> dict[str, Any]:
        """GET /scoring/. An image that cannot be read counts as done: it will not be tried again."""
        images, detector = datastore.list_images(), self.detector(method)
        states = ((image, state_of(datastore, image)) for image in images)
        done = sum(bool(detector and state and self.scores.has(detector, image, state)) for image, state in states)
        return {
            "method": method,
            "detector": self._versions.current(method),
            "done": done,
            "total": len(images),
            "running": self._running,
        }

    def _work(self, datastore: Datastore) -> None:
        while not self._stop.is_set():
            try:
                self._running = self._next(datastore)
            except Cancelled:
                return
            except Exception as error:  # the thread must live on; the image's name must not be logged
                logger.warning("Scoring failed unexpectedly: %s", type(error).__name__)
                self._running = False
            if not self._running:
                self._wake.wait(_LOOK)
                self._wake.clear()

    def _next(self, datastore: Datastore) -> bool:
        """Score one image; False if all are."""
        method = self._wanted
        if method is None or self.detector(method) is None:
            return False
        folder = self._versions.path(method)
        detector = identity(folder)
        images = datastore.list_images()
        unlabelled = set(datastore.get_unlabeled_images())
        for image in sorted(images, key=lambda name: (name not in unlabelled, name)):
            state = state_of(datastore, image)
            if state and not self.scores.has(detector, image, state):
                self._running = True
                self._step_aside()
                self.scores.put(detector, image, state, self._score(folder, image, datastore))
                return True
        self._tidy(images)
        return False

    def _tidy(self, images: list[str]) -> None:
        """Drop what is kept of images and versions that are no more."""
        versions = [self._versions.path(one, name) for one in METHODS for name in self._versions.names(one)]
        if self._tidied != (images, versions):
            self._results.prune(images)
            self.scores.prune(versions)
            self._tidied = (images, versions)

    def _score(self, folder: Path, image: str, datastore: Datastore) -> Candidate | None:
        path = datastore.get_image_uri(image)
        try:
            detector, volume = self._detectors.get(folder), read_volume(path)
            plane = detector.info.plane
            key = self._detections.cache_key(image, path, folder, plane)
            scores = self._detections.scores(key)
            if scores is None:
                scores = self._detections.run_detection(volume, path, folder, plane, self._step_aside, key).scores
            features = detector.features(volume, progress=self._step_aside)
        except Cancelled:
            raise
        except (MedCLIPADError, OSError):
            return None  # a damaged file: the one who opens it is told why
        normal = detector.info.calibration.normal_scores
        return Candidate(
            name=image,
            volume_score=np.nan if scores["volume_score"] is None else scores["volume_score"],
            slice_scores=np.array([np.nan if score is None else score for score in scores["slice_scores"]]),
            boundary=float(np.quantile(normal, 0.95)) if normal else detector.info.calibration.threshold,
            features=project(features),
        )

    def _step_aside(self, *_: Any) -> None:
        """Wait while anybody else needs the processor; Cancelled once the server stops."""
        while not self._stop.is_set() and self._busy():
            quiet_until = time.monotonic() + IDLE
            while not self._stop.is_set() and time.monotonic() < quiet_until:
                self._stop.wait(0.1)
        if self._stop.is_set():
            raise Cancelled("The server stops.")
