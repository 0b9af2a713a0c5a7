"""Score every image with the detector in use, in the background.

    <models>/scores/<detector>/<image>.safetensors      one small file per detector identity and image, both hashed

The strategies of active learning only read what has been scored.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from monailabel.interfaces.datastore import Datastore
from safetensors import SafetensorError
from safetensors.numpy import load, save

from medclipad.active_learning import Candidate, project
from medclipad.errors import Cancelled, MedCLIPADError
from medclipad.files import atomic_file, sha256_of_text
from medclipad.methods import method_names
from medclipad.server.inference.queue import DetectionQueue
from medclipad.server.inference.result_cache import ResultCache
from medclipad.server.security.upload_limits import read_image
from medclipad.server.stores.image_state import image_states
from medclipad.server.training.versions import DetectorCache, VersionStore, identity, is_complete

logger = logging.getLogger(__name__)
IDLE = 2.0  # seconds without an inference or training before the next image is scored
_SUFFIX = ".safetensors"
_CHECK_INTERVAL = 5.0  # seconds until a new image or version is noticed that no request announced


class ScoreStore:
    """Scores on disk and in memory, by detector identity, image and state of its file. Thread-safe.

    Parameters
    ----------
    folder
        Folder of the scores.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._loaded: dict[tuple[str, str], tuple[str, Candidate | None]] = {}

    def all(self, detector: str, images: Iterable[str]) -> dict[str, tuple[str, Candidate]]:
        """Return state and scores of those of some images that have any, by image; no image's file is looked at."""
        on_disk = {file.stem for file in (self._folder / sha256_of_text(detector)).glob(f"*{_SUFFIX}")}
        found = {}
        for image in images:
            with self._lock:
                known = self._loaded.get((detector, image))
            if known is None and sha256_of_text(image) in on_disk:
                known = self._find(detector, image)
            if known is not None and known[1] is not None:
                found[image] = (known[0], known[1])
        return found

    def has(self, detector: str, image: str, state: str) -> bool:
        """Return whether an image was scored, with success or not: an attempt that failed would fail again."""
        found = self._find(detector, image)
        return found is not None and found[0] == state

    def put(self, detector: str, image: str, state: str, candidate: Candidate | None) -> None:
        """Store the scores of an image.

        Parameters
        ----------
        detector
            Identity of the detector.
        image
            Id in the studies.
        state
            State of the image's file.
        candidate
            The scores; None if the image cannot be scored.
        """
        with self._lock:
            self._loaded[detector, image] = (state, candidate)
        if candidate is None:
            return  # only in memory: another program may replace a damaged file, so a restart tries again
        path = self._path(detector, image)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with atomic_file(path) as temp_path:
                temp_path.write_bytes(_packed(state, candidate))
        except OSError as error:
            logger.warning("Scores could not be stored: %s", error.strerror)

    def prune(self, versions: Iterable[Path]) -> None:
        """Remove the scores of all detectors but those in these folders."""
        kept = {sha256_of_text(identity(folder)) for folder in versions if is_complete(folder)}
        for folder in self._folder.glob("*"):
            if folder.name not in kept:
                shutil.rmtree(folder, ignore_errors=True)

    def _find(self, detector: str, image: str) -> tuple[str, Candidate | None] | None:
        with self._lock:
            if (detector, image) in self._loaded:
                return self._loaded[detector, image]
        try:
            found = _unpacked(self._path(detector, image).read_bytes(), image)
        except (OSError, SafetensorError, KeyError, ValueError):
            return None
        with self._lock:
            return self._loaded.setdefault((detector, image), found)

    def _path(self, detector: str, image: str) -> Path:
        return self._folder / sha256_of_text(detector) / f"{sha256_of_text(image)}{_SUFFIX}"


def _packed(state: str, candidate: Candidate) -> bytes:
    """Return state and scores of an image as a file; reading thousands of .npz files would take seconds."""
    return save(
        {
            "state": np.frombuffer(state.encode(), np.uint8),
            "numbers": np.array([candidate.volume_score, candidate.boundary]),
            "slice_scores": np.asarray(candidate.slice_scores, dtype=float),
            "features": candidate.features,
        }
    )


def _unpacked(data: bytes, image: str) -> tuple[str, Candidate]:
    """Return what `_packed` made a file of."""
    arrays = load(data)
    volume_score, boundary = map(float, arrays["numbers"])
    candidate = Candidate(image, volume_score, arrays["slice_scores"], boundary, arrays["features"])
    return arrays["state"].tobytes().decode(), candidate


class Scorer:
    """Thread that scores images one at a time, and pauses for every inference and training.

    Parameters
    ----------
    versions, detectors
        Detector versions on disk, and detectors in memory.
    detections, results
        The queue that detects, and the stored results.
    is_busy
        Called for whether an inference or training is running.
    enabled
        Whether images are scored at all; if not, the scores of an earlier server still count.

    Attributes
    ----------
    scores
        The scores so far.
    """

    def __init__(
        self,
        versions: VersionStore,
        detectors: DetectorCache,
        detections: DetectionQueue,
        results: ResultCache,
        is_busy: Callable[[], bool],
        enabled: bool = True,
    ) -> None:
        self._enabled = enabled
        self.scores = ScoreStore(versions.folder / "scores")
        self._versions, self._detectors, self._detections, self._results = versions, detectors, detections, results
        self._is_busy = is_busy
        self._wake, self._stop = threading.Event(), threading.Event()
        self._method: str | None = None
        self._running = False
        self._thread: threading.Thread | None = None
        self._pruned_for: tuple[list[str], list[Path]] | None = None

    def request_scoring(self, method: str | None, datastore: Datastore) -> None:
        """Score the images of the studies with the method's current detector from now on, unless scoring is off."""
        if not self._enabled:
            return
        self._method = method or self._method
        if self._thread is None and method:
            self._thread = threading.Thread(target=self._run, args=(datastore,), name="scorer", daemon=True)
            self._thread.start()
        self._wake.set()

    def stop(self) -> None:
        """Stop the thread."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join(5)

    def detector(self, method: str) -> str | None:
        """Return the identity of the method's current detector; None if it has none."""
        if self._versions.current(method) is None:
            return None
        try:
            return identity(self._versions.path(method))
        except (OSError, MedCLIPADError):
            return None

    def plane(self, method: str) -> str | None:
        """Return the plane in which the slices of the method's candidates are numbered."""
        entry = self._versions.entry(method, self._versions.current(method) or "")
        return entry["plane"] if entry else None

    def candidates(self, method: str, images: Iterable[str]) -> dict[str, tuple[str, Candidate]]:
        """Return state and scores of those of some images that were scored; see `ScoreStore.all`."""
        detector = self.detector(method)
        return self.scores.all(detector, images) if detector else {}

    def status(self, method: str, datastore: Datastore) -> dict[str, Any]:
        """Return what GET /scoring/ answers; an image that cannot be read counts as done, since it is not retried."""
        detector, states = self.detector(method), dict(image_states(datastore))
        done = sum(
            bool(detector and state and self.scores.has(detector, image, state)) for image, state in states.items()
        )
        return {
            "method": method,
            "detector": self._versions.current(method),
            "done": done,
            "total": len(states),
            "running": self._running,
        }

    def _run(self, datastore: Datastore) -> None:
        while not self._stop.is_set():
            try:
                self._running = self._score_next(datastore)
            except Cancelled:
                return
            except Exception as error:  # the thread must survive; the message may name an image, so it is not logged
                logger.warning("Scoring failed unexpectedly: %s", type(error).__name__)
                self._running = False
            if not self._running:
                self._wake.wait(_CHECK_INTERVAL)
                self._wake.clear()

    def _score_next(self, datastore: Datastore) -> bool:
        """Score one image, unlabelled ones first; return False if all are scored."""
        method = self._method
        if method is None or self.detector(method) is None:
            return False
        folder = self._versions.path(method)
        detector = identity(folder)
        unlabelled, states = set(datastore.get_unlabeled_images()), dict(image_states(datastore))
        for image, state in sorted(states.items(), key=lambda pair: (pair[0] not in unlabelled, pair[0])):
            if state and not self.scores.has(detector, image, state):
                self._running = True
                self._wait_until_idle()
                self.scores.put(detector, image, state, self._score(folder, image, datastore))
                return True
        self._prune(list(states))
        return False

    def _prune(self, images: list[str]) -> None:
        """Remove what is stored for images and versions that no longer exist."""
        versions = [
            self._versions.path(method, name) for method in method_names() for name in self._versions.names(method)
        ]
        if self._pruned_for != (images, versions):
            self._results.prune(images)
            self.scores.prune(versions)
            self._pruned_for = (images, versions)

    def _score(self, folder: Path, image: str, datastore: Datastore) -> Candidate | None:
        path = datastore.get_image_uri(image)
        try:
            detector, volume = self._detectors.get(folder), read_image(path)
            target = self._detections.target(image, path, folder, detector.info.config.planes)
            scores = self._detections.scores(target)
            if scores is None:
                scores = self._detections.run_detection(volume, target, self._wait_until_idle).scores
            features = detector.features(volume, progress=self._wait_until_idle)
        except Cancelled:
            raise
        except (MedCLIPADError, OSError):
            return None  # a damaged file: whoever opens it is told why
        return Candidate(
            name=image,
            volume_score=np.nan if scores["volume_score"] is None else scores["volume_score"],
            slice_scores=np.array([np.nan if score is None else score for score in scores["slice_scores"]]),
            boundary=detector.info.calibration.slice_limit,
            features=project(features),
        )

    def _wait_until_idle(self, *_: Any) -> None:
        """Wait while an inference or training runs; raise Cancelled once the server stops."""
        while not self._stop.is_set() and self._is_busy():
            quiet_until = time.monotonic() + IDLE
            while not self._stop.is_set() and time.monotonic() < quiet_until:
                self._stop.wait(0.1)
        if self._stop.is_set():
            raise Cancelled("The server is stopping.")
