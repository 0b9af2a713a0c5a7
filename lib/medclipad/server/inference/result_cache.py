"""Anomaly maps that were computed before, on disk, so that neither the next client nor the next server pays again.

    <models>/results/<image>/<key>/map.nii.gz + result.json

Both folder names are hashes: of the image's id, and of its file's state, the detector's identity and the plane. So a
changed image, or a detector trained anew under an old name, is another key. No label is made of them: trainings
and lists of labels never see them.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medclipad.errors import MedCLIPADError
from medclipad.files import atomic_folder, remove_leftovers, sha256_of_text
from medclipad.volume import Volume, read_volume, write_volume

logger = logging.getLogger(__name__)
LIMIT = 4 * 1024**3  # bytes of all kept results together
_MAP, _RECORD = "map.nii.gz", "result.json"


@dataclass(frozen=True)
class CacheKey:
    """What a result answers.

    image: id in the studies; state: of its file, see `file_state`; detector: `versions.identity`; plane: as asked for.
    """

    image: str
    state: str
    detector: str
    plane: str


@dataclass(frozen=True)
class CachedResult:
    """A map on its image's grid, and the record that was kept with it."""

    anomaly_map: Volume
    record: dict[str, Any]


def file_state(path: str | os.PathLike) -> str:
    """Changes when the file, or a file of the DICOM folder, at `path` does; raises OSError if there is none."""
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return sha256_of_text(json.dumps(states))


class ResultCache:
    """Thread-safe. What cannot be written is not kept, with a warning: a full disk must not cost an answer."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.RLock()

    def copy_map(self, key: CacheKey, target: Path) -> bool:
        """Copy the map's file to `target`; False if there is none."""
        try:
            with self._lock:
                shutil.copyfile(self._place(key) / _MAP, target)
        except FileNotFoundError:
            return False
        return True

    def find(self, key: CacheKey) -> CachedResult | None:
        """The map and record kept for a key."""
        folder = self._place(key)
        with self._lock:
            try:
                record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
                array = read_volume(folder / _MAP).array
                grid = record.pop("grid")
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, MedCLIPADError):  # damaged from outside
                shutil.rmtree(folder, ignore_errors=True)
                return None
        return CachedResult(Volume(array, np.array(grid["affine"]), grid["name"], metadata=grid["metadata"]), record)

    def record(self, key: CacheKey) -> dict[str, Any] | None:
        """The record alone: no voxel is read."""
        folder = self._place(key)
        try:
            record = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        with contextlib.suppress(OSError):  # a read-only disk
            os.utime(folder)  # those longest not asked for are dropped first
        return record if (folder / _MAP).is_file() else None

    def keep(self, key: CacheKey, anomaly_map: Volume, record: dict[str, Any]) -> None:
        """Keep a map and a record of JSON's types; results of earlier states of the image go."""
        folder = self._place(key)
        metadata = {key: value for key, value in anomaly_map.metadata.items() if key in ("format", "nifti", "notes")}
        grid = {"affine": anomaly_map.affine.tolist(), "name": anomaly_map.name, "metadata": metadata}
        text = json.dumps({**record, "state": key.state, "grid": grid})
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, atomic_folder(folder) as temp_folder:
                write_volume(anomaly_map, temp_folder / _MAP)
                (temp_folder / _RECORD).write_text(text, encoding="utf-8")
                self._drop_other_states(folder.parent, key.state)
                shutil.rmtree(folder, ignore_errors=True)
            with self._lock:
                self._shrink()
        except (OSError, MedCLIPADError) as error:
            logger.warning("A result could not be kept: %s", type(error).__name__)  # its message names the file

    def newest(self, image: str, state: str) -> Path | None:
        """Folder of the last result of an image as it is now."""
        folders = [folder for folder in self._home(image).glob("[!.]*") if _state_of(folder) == state]
        return max(folders, key=lambda folder: folder.stat().st_mtime_ns, default=None)

    def forget(self, image: str) -> None:
        """Drop all results of an image."""
        with self._lock:
            shutil.rmtree(self._home(image), ignore_errors=True)

    def prune(self, images: Iterable[str]) -> None:
        """Drop the results of all images but these, and what a killed server left half-written."""
        kept = {sha256_of_text(image) for image in images}
        with self._lock:
            for home in self._folder.glob("*"):
                if home.name not in kept and not home.name.startswith("."):
                    shutil.rmtree(home, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a killed server left half-written; only while nothing is kept."""
        for home in self._folder.glob("[!.]*"):
            remove_leftovers(home)

    def _home(self, image: str) -> Path:
        return self._folder / sha256_of_text(image)

    def _place(self, key: CacheKey) -> Path:
        return self._home(key.image) / sha256_of_text(f"{key.state} {key.detector} {key.plane}")

    def _drop_other_states(self, home: Path, state: str) -> None:
        for folder in home.glob("[!.]*"):
            if _state_of(folder) != state:
                shutil.rmtree(folder, ignore_errors=True)

    def _shrink(self) -> None:
        """Drop the results that were longest not asked for until the rest fits."""
        folders = [(folder.stat().st_mtime_ns, folder) for folder in self._folder.glob("[!.]*/[!.]*")]
        sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for _, folder in folders}
        total = sum(sizes.values())
        for _, folder in sorted(folders):
            if total <= self._limit:
                return
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]


def _state_of(folder: Path) -> str | None:
    try:
        return json.loads((folder / _RECORD).read_text(encoding="utf-8")).get("state")
    except (OSError, ValueError):
        return None
