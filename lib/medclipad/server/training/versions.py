"""Detector versions on disk, and the detectors in memory.

    <models>/<method>/<version>/detector.json + weights.safetensors     written once, never changed
    <models>/<method>/current                                           the name of the version in use

A version appears with one rename and is put to use with another, so the previous detector stays in use whatever happens
to a training. The detector that ships with the app is one more version, named "starter"; it is in use until the first
version of its method is trained.
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
DAMAGED = "?"  # in place of the name of the version in use, if the file that should hold it does not
_Stamp = tuple[tuple[int, ...], ...]
VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_selection_lock = threading.Lock()  # a version must not be deleted while it is being selected


@dataclass(frozen=True)
class VersionStore:
    """The detector versions of a server.

    Attributes
    ----------
    folder
        Folder of the trained versions.
    starter
        Folder of the detector that ships with the app; None for none.
    """

    folder: Path
    starter: Path | None = None

    def names(self, method: str) -> list[str]:
        """Return the names of all versions of a method, newest first, the starter detector last."""
        folders = [path for path in (self.folder / method).glob("*") if _is_version(path)]
        names = [path.name for path in sorted(folders, key=lambda path: path.stat().st_mtime_ns, reverse=True)]
        return [*names, STARTER] if self._starter_method() == method else names

    def current(self, method: str) -> str | None:
        """Return the name of the version in use; None while the method has none.

        It may be damaged or missing, as `path` then says: who selected it must not be shown another one's maps.
        """
        try:
            name = (self.folder / method / CURRENT).read_text(encoding="utf-8", errors="replace").strip()
        except FileNotFoundError:
            return STARTER if self._starter_method() == method else None
        return name or DAMAGED

    def selected_at(self, method: str) -> float:
        """Return when a version was last selected, in seconds since 1970; 0 if that never happened."""
        try:
            return (self.folder / method / CURRENT).stat().st_mtime
        except FileNotFoundError:
            return 0.0

    def path(self, method: str, name: str = CURRENT) -> Path:
        """Return the folder of a version by name, by default the one in use.

        Raises
        ------
        RequestError
            404 for an unknown name, 409 if no version is in use.
        """
        chosen = self.current(method) if name == CURRENT else name
        if chosen is None:
            raise RequestError(f"No {method} detector has been trained yet: start a training first.", 409)
        if name == CURRENT and (chosen not in self.names(method) or not is_complete(self._folder_of(method, chosen))):
            raise RequestError(
                f"The {method} detector in use, {chosen!r}, is missing or damaged: "
                "restore it, or select another version.",
                409,
            )
        if chosen not in self.names(method):
            available = ", ".join(self.names(method)) or "none"
            raise RequestError(f"The {method} detector {chosen!r} was not found; available: {available}.", 404)
        return self._folder_of(method, chosen)

    def check_new(self, method: str, name: str) -> None:
        """Raise RequestError if a new version cannot have this name: 422 if it is not valid, 409 if it is in use."""
        if not VERSION_NAME.fullmatch(name) or name in (STARTER, CURRENT):
            raise RequestError(
                "The name of a detector must have 1 to 64 letters, digits, dots, hyphens or underscores, "
                f"and must not be {STARTER!r} or {CURRENT!r}.",
                422,
            )
        if (self.folder / method / name).exists():
            raise RequestError(
                f"A {method} detector {name!r} already exists and is never overwritten: choose another name.", 409
            )

    def check_writable(self) -> None:
        """Raise RequestError if no version can be stored: 507 if the disk is full, otherwise 409.

        This is checked before a training, so that the training does not fail at its end.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise RequestError(
                f"The server cannot store a detector ({error.strerror}): "
                "free disk space, or make its models folder writable.",
                507 if full else 409,
            ) from error

    def publish(self, detector: AnomalyDetector, method: str, name: str) -> Path:
        """Store a detector as a new version and return its folder; the version in use does not change."""
        self.check_new(method, name)
        detector.save(self.folder / method / name)
        return self.folder / method / name

    def select(self, method: str, name: str) -> None:
        """Put a version to use; raise RequestError 404 if there is none of this name, 409 if it is damaged."""
        with _selection_lock:
            chosen = self.path(method, name)
            if self.entry(method, name) is None:
                raise RequestError(f"The {method} detector {name!r} is damaged: select another version.", 409)
            pointer = self.folder / method / CURRENT
            pointer.parent.mkdir(parents=True, exist_ok=True)
            write_text(pointer, chosen.name)

    def delete(self, method: str, name: str) -> None:
        """Delete a version for good.

        Raises
        ------
        RequestError
            404 if there is none of this name, 409 if it is in use or ships with the app.
        """
        with _selection_lock:
            folder = self.path(method, name)
            if name == STARTER:
                raise RequestError("The starter detector ships with the app and cannot be deleted.", 409)
            if name == self.current(method):
                raise RequestError(f"{name!r} is in use: select another {method} detector first.", 409)
            remove_folder(folder)

    def entries(self, method: str) -> dict[str, Any]:
        """Return {"current": name or None, "versions": [entry, ...]}, newest first, without damaged versions."""
        entries = [self.entry(method, name) for name in self.names(method)]
        return {"current": self.current(method), "versions": [entry for entry in entries if entry is not None]}

    def entry(self, method: str, name: str) -> dict[str, Any] | None:
        """Return what is known about a version, in JSON's types; None if its detector.json is damaged."""
        folder = self._folder_of(method, name)
        try:
            info, size = _summary(folder, _stamp(folder))
        except (DetectorError, OSError):
            return None
        return {**info, "name": name, "bytes": size, "starter": name == STARTER}

    def clean(self) -> None:
        """Remove what a killed training or deletion left; call it only while none is running."""
        for folder in (self.folder, *self.folder.glob("[!.]*")):
            remove_leftovers(folder)

    def _folder_of(self, method: str, name: str) -> Path:
        return self.starter if name == STARTER and self.starter else self.folder / method / name

    def _starter_method(self) -> str | None:
        if self.starter is None or not _is_version(self.starter):
            return None
        return _method(self.starter, _stamp(self.starter, INFO))


def starter_folder(app_folder: Path) -> Path:
    """Return where the MONAI Label app keeps the detector that it ships."""
    return app_folder / STARTER


def is_complete(folder: Path) -> bool:
    """Return whether both files of a version exist."""
    return all((folder / name).is_file() for name in (INFO, WEIGHTS))


def identity(folder: Path) -> str:
    """Return the SHA-256 (hex) of a version's files: versions with the same identity give the same results."""
    return _identity(folder, _stamp(folder))


@functools.lru_cache(maxsize=256)
def _identity(folder: Path, _: _Stamp) -> str:
    return sha256_of_text(" ".join(sha256_of_file(folder / name) for name in (INFO, WEIGHTS)))


@functools.lru_cache(maxsize=1024)
def _summary(folder: Path, _: _Stamp) -> tuple[dict[str, Any], int]:
    info = read_info(folder)
    kept = ("method", "encoder", "plane", "intensity", "image_size", "description")
    fields = {
        **{name: getattr(info, name) for name in kept},
        "shots": info.normal_slices,
        "abnormal_shots": info.abnormal_slices,
        "created": info.created.isoformat(),
        "planes": info.config.planes,
        "normal_scans": info.calibration.n,
        "metrics": info.metrics or None,
    }
    return fields, sum(file.stat().st_size for file in folder.iterdir())


@functools.lru_cache(maxsize=16)
def _method(folder: Path, _: _Stamp) -> str:
    return json.loads((folder / INFO).read_text(encoding="utf-8"))["config"]["method"]


def _stamp(folder: Path, *names: str) -> _Stamp:
    """Return what changes if a version's files are replaced, though they never should be; raise OSError without them.

    It is part of the keys of the caches above. `names` are the files to look at, by default both.
    """
    stats = [(folder / name).stat() for name in names or (INFO, WEIGHTS)]
    return tuple((stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino) for stat in stats)


def _is_version(path: Path) -> bool:
    return VERSION_NAME.fullmatch(path.name) is not None and (path / INFO).is_file()


class DetectorCache:
    """The detectors that were used last, each loaded once and shared by all requests.

    Parameters
    ----------
    size
        Largest number of detectors in memory.
    """

    def __init__(self, size: int = 4) -> None:
        self._size = size
        self._lock = threading.Lock()
        self._loaded: OrderedDict[Path, tuple[str, AnomalyDetector]] = OrderedDict()  # with its identity

    def get(self, path: Path) -> AnomalyDetector:
        """Return the detector in a folder; raise DetectorError if it is damaged.

        A version that was deleted and made again under its name is another one: it is loaded anew.
        """
        from medclipad.detection.detector import load_detector  # imports torch: not before the first request

        with self._lock:
            try:
                found = identity(path)
            except OSError as error:
                raise DetectorError("The detector was removed: select another version.") from error
            if path not in self._loaded or self._loaded[path][0] != found:
                self._loaded[path] = (found, load_detector(path))
            self._loaded.move_to_end(path)
            while len(self._loaded) > self._size:
                self._loaded.popitem(last=False)
            return self._loaded[path][1]

    def remove(self, path: Path) -> None:
        """Remove a detector, whose folder was deleted, from memory."""
        with self._lock:
            self._loaded.pop(path, None)
