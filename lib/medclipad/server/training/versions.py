"""Detectors on disk, their versions, and the ones that are loaded.

    <models>/<method>/<version>/detector.json + weights.safetensors     written once, never changed
    <models>/<method>/current                                           the name of the version that serves

A version appears with one rename and starts to serve with another, so whatever happens to a training, what served
before goes on serving. The app's own `starter/` folder is one more detector, named "starter"; it serves its method
until a first version is trained.
"""

from __future__ import annotations

import errno
import functools
import json
import re
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medclipad.detection.storage import INFO, WEIGHTS, read_info
from medclipad.errors import DetectorError
from medclipad.files import remove_folder, remove_leftovers, sha256_of_file, sha256_of_text, write_text
from medclipad.server.errors import RequestError

if TYPE_CHECKING:
    from medclipad.detection.detector import AnomalyDetector

STARTER = "starter"
CURRENT = "current"
VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_moving = threading.Lock()  # select and delete: what is made current must not vanish meanwhile


@dataclass(frozen=True)
class VersionStore:
    """The detectors of one server: `folder` holds the trained versions, `starter` the one that ships with the app."""

    folder: Path
    starter: Path | None = None

    def names(self, method: str) -> list[str]:
        """Names that can be asked for, newest first, the starter detector last."""
        folders = [path for path in (self.folder / method).glob("*") if _is_version(path)]
        names = [path.name for path in sorted(folders, key=lambda path: path.stat().st_mtime_ns, reverse=True)]
        return [*names, STARTER] if self._starter_method() == method else names

    def current(self, method: str) -> str | None:
        """Name of the version that serves; None while the method has none."""
        try:
            name = (self.folder / method / CURRENT).read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            name = ""
        if name and _is_version(self.folder / method / name):
            return name
        return STARTER if self._starter_method() == method else None

    def changed(self, method: str) -> float:
        """When another version was last made current, in seconds; 0 if that never happened."""
        try:
            return (self.folder / method / CURRENT).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def path(self, method: str, name: str = CURRENT) -> Path:
        """Folder of a version by name. An unknown name raises RequestError 404 with the names there are."""
        chosen = self.current(method) if name == CURRENT else name
        if chosen is None:
            raise RequestError(f"No {method} detector has been trained yet: start a training first.", 409)
        if chosen not in self.names(method):
            known = ", ".join(self.names(method)) or "none"
            raise RequestError(f"There is no {method} detector {chosen!r}; there are: {known}.", 404)
        return self._folder_of(method, chosen)

    def check_new(self, method: str, name: str) -> None:
        """RequestError if a training cannot store its result under `name`."""
        if not VERSION_NAME.fullmatch(name) or name in (STARTER, CURRENT):
            raise RequestError(
                "The name of a detector must be 1 to 64 letters, digits, dots, hyphens or underscores, "
                f"and not {STARTER!r} or {CURRENT!r}.",
                422,
            )
        if (self.folder / method / name).exists():
            raise RequestError(f"There is already a {method} detector {name!r}: versions are never overwritten.", 409)

    def check_writable(self) -> None:
        """RequestError 409 if no version can be stored: better said before a training than after it."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise RequestError(
                f"The server cannot store a detector ({error.strerror}): make room, or its models folder writable.",
                507 if full else 409,
            ) from error

    def publish(self, detector: AnomalyDetector, method: str, name: str) -> Path:
        """Store a detector as a new version; which one serves does not change."""
        self.check_new(method, name)
        detector.save(self.folder / method / name)
        return self.folder / method / name

    def select(self, method: str, name: str) -> None:
        """Let version `name` serve next. RequestError 404 if there is none, 409 if it is damaged."""
        with _moving:
            chosen = self.path(method, name)
            if self.entry(method, name) is None:
                raise RequestError(f"The {method} detector {name!r} is damaged: select another one.", 409)
            pointer = self.folder / method / CURRENT
            pointer.parent.mkdir(parents=True, exist_ok=True)
            write_text(pointer, chosen.name)

    def delete(self, method: str, name: str) -> None:
        """Remove a version for good. RequestError 404 if there is none, 409 if it serves now or ships with the app."""
        with _moving:
            folder = self.path(method, name)
            if name == STARTER:
                raise RequestError("The starter detector ships with the app and cannot be deleted.", 409)
            if name == self.current(method):
                raise RequestError(f"{name!r} serves now: let another {method} detector serve first.", 409)
            remove_folder(folder)

    def entries(self, method: str) -> dict[str, Any]:
        """{"current": name or None, "versions": [entry, ...]}, newest first; damaged versions are left out."""
        found = [self.entry(method, name) for name in self.names(method)]
        return {"current": self.current(method), "versions": [entry for entry in found if entry is not None]}

    def entry(self, method: str, name: str) -> dict[str, Any] | None:
        """What is known of a version, in JSON's types; None if its detector.json is damaged."""
        folder = self._folder_of(method, name)
        try:
            info, size = _summary(folder, _stamp(folder))
        except (DetectorError, OSError):
            return None
        return {**info, "name": name, "bytes": size, "starter": name == STARTER}

    def clean(self) -> None:
        """Remove what a killed training or deletion left behind; only while none is running."""
        for folder in (self.folder, *self.folder.glob("[!.]*")):
            remove_leftovers(folder)

    def _folder_of(self, method: str, name: str) -> Path:
        return self.starter if name == STARTER and self.starter else self.folder / method / name

    def _starter_method(self) -> str | None:
        if self.starter is None or not _is_version(self.starter):
            return None
        return json.loads((self.starter / INFO).read_text(encoding="utf-8"))["method"]


def starter_folder(app_folder: Path) -> Path:
    """Return where the MONAI Label app keeps the detector that it ships."""
    return app_folder / STARTER


def is_whole(folder: Path) -> bool:
    """Whether both files of a version are there."""
    return all((folder / name).is_file() for name in (INFO, WEIGHTS))


def identity(folder: Path) -> str:
    """SHA-256 (hex) of a version's files: two versions with the same say the same of every volume."""
    return _identity(folder, _stamp(folder))


@functools.lru_cache(maxsize=256)
def _identity(folder: Path, _: tuple) -> str:
    return sha256_of_text(" ".join(sha256_of_file(folder / name) for name in (INFO, WEIGHTS)))


@functools.lru_cache(maxsize=1024)
def _summary(folder: Path, _: tuple) -> tuple[dict[str, Any], int]:
    info = read_info(folder)
    kept = ("method", "encoder", "plane", "intensity", "image_size", "shots", "abnormal_shots", "description")
    fields = {
        **{name: getattr(info, name) for name in kept},
        "created": info.created.isoformat(),
        "threshold": info.calibration.threshold,
        "metrics": info.metrics or None,
    }
    return fields, sum(file.stat().st_size for file in folder.iterdir())


def _stamp(folder: Path) -> tuple:
    """Changes if a version's files are replaced, which should never happen, and if they are gone raises OSError."""
    stats = [(folder / name).stat() for name in (INFO, WEIGHTS)]
    return tuple((stat.st_mtime_ns, stat.st_size) for stat in stats)


def _is_version(path: Path) -> bool:
    return VERSION_NAME.fullmatch(path.name) is not None and (path / INFO).is_file()


class DetectorCache:
    """The detectors last used, loaded once each and shared by all requests."""

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._loaded: OrderedDict[Path, AnomalyDetector] = OrderedDict()

    def get(self, path: Path) -> AnomalyDetector:
        """The detector in folder `path`; a damaged one raises DetectorError."""
        from medclipad.detection.detector import load_detector  # imports torch models: not before the first request

        with self._lock:
            if path not in self._loaded:
                self._loaded[path] = load_detector(path)
            self._loaded.move_to_end(path)
            while len(self._loaded) > self._size:
                self._loaded.popitem(last=False)
            return self._loaded[path]

    def forget(self, path: Path) -> None:
        """Drop a detector that was deleted."""
        with self._lock:
            self._loaded.pop(path, None)
