"""Anomaly maps that were computed before, on disk, so that neither the next client nor the next server waits again.

    <models>/results/<image>/<key>/map.nii.gz + result.json

Both folder names are hashes: of the image's id, and of the state of its file, the detector's identity and the plane. A
changed image, or a detector that was trained again under an old name, thus has another key. Results are not labels:
lists of labels and trainings never see them.
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
LIMIT = 4 * 1024**3  # bytes of all results together
MAP_FILE = "map.nii.gz"
_RECORD_FILE = "result.json"


@dataclass(frozen=True)
class CacheKey:
    """What a result depends on.

    Attributes
    ----------
    image
        Id in the studies.
    state
        State of the image's file, see `file_state`.
    detector
        Identity of the detector, see `versions.identity`.
    plane
        Plane as requested.
    options
        Further choices of the request, such as a time point; "" if it made none.
    """

    image: str
    state: str
    detector: str
    plane: str
    options: str = ""


@dataclass(frozen=True)
class CachedResult:
    """A map on its image's grid, and the record that was stored with it."""

    anomaly_map: Volume
    record: dict[str, Any]


class ResultCache:
    """Anomaly maps on disk. Thread-safe.

    A result that cannot be written is not stored, with a warning: a full disk must not make a request fail.

    Parameters
    ----------
    folder
        Folder of the results.
    limit
        Size in bytes above which the results that were not requested for longest are removed.
    """

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.RLock()

    def copy_map(self, key: CacheKey, target: Path) -> bool:
        """Copy the map's file to `target`; return False if there is none."""
        try:
            with self._lock:
                shutil.copyfile(self._result_folder(key) / MAP_FILE, target)
        except FileNotFoundError:
            return False
        return True

    def get(self, key: CacheKey) -> CachedResult | None:
        """Return the map and record of a key; None if there are none or they are damaged."""
        folder = self._result_folder(key)
        with self._lock:
            try:
                record = json.loads((folder / _RECORD_FILE).read_text(encoding="utf-8"))
                array = read_volume(folder / MAP_FILE).array
                grid = record.pop("grid")
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, MedCLIPADError):  # damaged by something else than this server
                shutil.rmtree(folder, ignore_errors=True)
                return None
        return CachedResult(Volume(array, np.array(grid["affine"]), grid["name"], metadata=grid["metadata"]), record)

    def get_record(self, key: CacheKey) -> dict[str, Any] | None:
        """Return the record of a key without reading a voxel; None if there is none."""
        folder = self._result_folder(key)
        try:
            record = json.loads((folder / _RECORD_FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        with contextlib.suppress(OSError):  # a read-only disk
            os.utime(folder)  # its time tells when it was last requested
        return record if (folder / MAP_FILE).is_file() else None

    def put(self, key: CacheKey, anomaly_map: Volume, record: dict[str, Any]) -> None:
        """Store a result, and remove those of earlier states of the image.

        Parameters
        ----------
        key
            Key to store it under.
        anomaly_map
            The map, on the image's grid.
        record
            What to store with it, in JSON's types.
        """
        folder = self._result_folder(key)
        metadata = {key: value for key, value in anomaly_map.metadata.items() if key in ("format", "nifti", "notes")}
        grid = {"affine": anomaly_map.affine.tolist(), "name": anomaly_map.name, "metadata": metadata}
        text = json.dumps({**record, "state": key.state, "grid": grid})
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            with self._lock, atomic_folder(folder) as temp_folder:
                write_volume(anomaly_map, temp_folder / MAP_FILE)
                (temp_folder / _RECORD_FILE).write_text(text, encoding="utf-8")
                self._remove_other_states(folder.parent, key.state)
                shutil.rmtree(folder, ignore_errors=True)
            with self._lock:
                self._shrink()
        except (OSError, MedCLIPADError) as error:
            logger.warning("A result could not be stored: %s", type(error).__name__)  # the message names the file

    def newest(self, image: str, state: str) -> Path | None:
        """Return the folder of the last result of an image in its present state; None if there is none."""
        folders = [folder for folder in self._image_folder(image).glob("[!.]*") if _state_of(folder) == state]
        return max(folders, key=lambda folder: folder.stat().st_mtime_ns, default=None)

    def remove_image(self, image: str) -> None:
        """Remove all results of an image."""
        with self._lock:
            shutil.rmtree(self._image_folder(image), ignore_errors=True)

    def prune(self, images: Iterable[str]) -> None:
        """Remove the results of all images but these."""
        kept = {sha256_of_text(image) for image in images}
        with self._lock:
            for folder in self._folder.glob("*"):
                if folder.name not in kept and not folder.name.startswith("."):
                    shutil.rmtree(folder, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a killed server left half-written; call it only while nothing is being stored."""
        for folder in self._folder.glob("[!.]*"):
            remove_leftovers(folder)

    def _image_folder(self, image: str) -> Path:
        return self._folder / sha256_of_text(image)

    def _result_folder(self, key: CacheKey) -> Path:
        return self._image_folder(key.image) / sha256_of_text(f"{key.state} {key.detector} {key.plane}{key.options}")

    def _remove_other_states(self, image_folder: Path, state: str) -> None:
        for folder in image_folder.glob("[!.]*"):
            if _state_of(folder) != state:
                shutil.rmtree(folder, ignore_errors=True)

    def _shrink(self) -> None:
        """Remove the results that were not requested for longest until the rest is within the limit."""
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
        return json.loads((folder / _RECORD_FILE).read_text(encoding="utf-8")).get("state")
    except (OSError, ValueError):
        return None
