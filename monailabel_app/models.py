"""Detectors on disk, their versions, and the ones that are loaded.

    <models>/<method>/<version>/detector.json + weights.safetensors     written once, never changed
    <models>/<method>/current                                           the name of the version that serves

A version appears with one rename and starts to serve with another, so whatever happens to a training, what served
before goes on serving. The app's own `starter/` folder is one more detector, named "starter"; it serves its method
until a first version is trained.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .problems import RequestError

if TYPE_CHECKING:
    from medclipad.detector import AnomalyDetector

STARTER = "starter"
CURRENT = "current"
VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_INCOMING = ".incoming-"


@dataclass(frozen=True)
class ModelStore:
    """The detectors of one server: `folder` holds the trained versions, `starter` the one that ships with the app."""

    folder: Path
    starter: Path = Path(__file__).parent / STARTER

    def versions(self, method: str) -> list[str]:
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

    def path(self, method: str, name: str = CURRENT) -> Path:
        """Folder of a version by name. An unknown name raises RequestError 404 with the names there are."""
        chosen = self.current(method) if name == CURRENT else name
        if chosen is None:
            raise RequestError(f"No {method} detector has been trained yet: start a training first.", 409)
        if chosen not in self.versions(method):
            known = ", ".join(self.versions(method)) or "none"
            raise RequestError(f"There is no {method} detector {chosen!r}; there are: {known}.", 404)
        return self.starter if chosen == STARTER else self.folder / method / chosen

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
            raise RequestError(
                f"The server cannot store a detector ({error.strerror}): make room, or its models folder writable.",
                409,
            ) from error

    def publish(self, detector: AnomalyDetector, method: str, name: str) -> Path:
        """Store a detector as a new version, then let it serve."""
        self.check_new(method, name)
        home = self.folder / method
        aside = home / f"{_INCOMING}{os.getpid()}"
        home.mkdir(parents=True, exist_ok=True)
        try:
            detector.save(aside)
            os.rename(aside, home / name)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
        self.select(method, name)
        return home / name

    def select(self, method: str, name: str) -> None:
        """Let version `name` serve from the next request on."""
        self.path(method, name)
        aside = self.folder / method / f".{CURRENT}.{os.getpid()}"
        with open(aside, "w", encoding="utf-8") as stream:
            stream.write(name)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(aside, self.folder / method / CURRENT)

    def clean(self) -> None:
        """Remove what a killed training left behind; only while none is running."""
        for leftover in self.folder.glob(f"*/{_INCOMING}*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _starter_method(self) -> str | None:
        if not _is_version(self.starter):
            return None
        return json.loads((self.starter / "detector.json").read_text(encoding="utf-8"))["method"]


def _is_version(path: Path) -> bool:
    return VERSION_NAME.fullmatch(path.name) is not None and (path / "detector.json").is_file()


class DetectorCache:
    """The detectors last used, loaded once each and shared by all requests."""

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._loaded: OrderedDict[Path, AnomalyDetector] = OrderedDict()

    def get(self, path: Path) -> AnomalyDetector:
        """The detector in folder `path`; a damaged one raises DetectorError."""
        from medclipad.detector import load_detector  # imports torch models: not before the first request

        with self._lock:
            if path not in self._loaded:
                self._loaded[path] = load_detector(path)
            self._loaded.move_to_end(path)
            while len(self._loaded) > self._size:
                self._loaded.popitem(last=False)
            return self._loaded[path]
