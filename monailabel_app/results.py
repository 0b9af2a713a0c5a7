"""Anomaly maps that were computed before, on disk, so that neither the next client nor the next server pays again.

    <models>/results/<image>/<question>/map.nii.gz + result.json

Both folder names are hashes: of the image's id, and of its file's state, the detector's identity and the plane. So a
changed image, or a detector trained anew under an old name, is another question. No label is made of them: trainings
and lists of labels never see them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import threading
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from medclipad.errors import MedCLIPADError
from medclipad.volume import Volume, read_volume, write_volume

logger = logging.getLogger(__name__)
LIMIT = 4 * 1024**3  # bytes of all kept results together
_MAP, _RECORD = "map.nii.gz", "result.json"


@dataclass(frozen=True)
class Question:
    """What a result answers.

    image: id in the studies; state: of its file, see `file_state`; detector: `models.identity`; plane: as asked for.
    """

    image: str
    state: str
    detector: str
    plane: str


@dataclass(frozen=True)
class Found:
    """A map on its image's grid, and the record that was kept with it."""

    anomaly_map: Volume
    record: dict[str, Any]


def file_state(path: str | os.PathLike) -> str:
    """Changes when the file, or a file of the DICOM folder, at `path` does; raises OSError if there is none."""
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    states = [(file.name, (stat := file.stat()).st_size, stat.st_mtime_ns) for file in files]
    return _hash(json.dumps(states))


class ResultCache:
    """Thread-safe. What cannot be written is not kept, with a warning: a full disk must not cost an answer."""

    def __init__(self, folder: Path, limit: int = LIMIT) -> None:
        self._folder, self._limit = folder, limit
        self._lock = threading.RLock()

    def copy_map(self, question: Question, target: Path) -> bool:
        """Copy the map's file to `target`; False if there is none."""
        try:
            with self._lock:
                shutil.copyfile(self._place(question) / _MAP, target)
        except FileNotFoundError:
            return False
        return True

    def find(self, question: Question) -> Found | None:
        """The map and record kept for a question."""
        place = self._place(question)
        with self._lock:
            try:
                record = json.loads((place / _RECORD).read_text(encoding="utf-8"))
                array = read_volume(place / _MAP).array
                grid = record.pop("grid")
            except FileNotFoundError:
                return None
            except (ValueError, KeyError, MedCLIPADError):  # damaged from outside
                shutil.rmtree(place, ignore_errors=True)
                return None
        return Found(Volume(array, np.array(grid["affine"]), grid["name"], metadata=grid["metadata"]), record)

    def record(self, question: Question) -> dict[str, Any] | None:
        """The record alone: no voxel is read."""
        place = self._place(question)
        try:
            record = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        with contextlib.suppress(OSError):  # a read-only disk
            os.utime(place)  # those longest not asked for are dropped first
        return record if (place / _MAP).is_file() else None

    def keep(self, question: Question, anomaly_map: Volume, record: dict[str, Any]) -> None:
        """Keep a map and a record of JSON's types; results of earlier states of the image go."""
        place = self._place(question)
        metadata = {key: value for key, value in anomaly_map.metadata.items() if key in ("format", "nifti", "notes")}
        grid = {"affine": anomaly_map.affine.tolist(), "name": anomaly_map.name, "metadata": metadata}
        aside = self._folder / f".{uuid.uuid4().hex}"
        try:
            aside.mkdir(parents=True)
            write_volume(anomaly_map, aside / _MAP)
            text = json.dumps({**record, "state": question.state, "grid": grid})
            (aside / _RECORD).write_text(text, encoding="utf-8")
            with self._lock:
                self._drop_other_states(place.parent, question.state)
                place.parent.mkdir(exist_ok=True)
                shutil.rmtree(place, ignore_errors=True)
                os.rename(aside, place)
                self._shrink()
        except (OSError, MedCLIPADError) as error:
            logger.warning("A result could not be kept: %s", type(error).__name__)  # its message names the file
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    def newest(self, image: str, state: str) -> Path | None:
        """Folder of the last result of an image as it is now."""
        places = [place for place in self._home(image).glob("*") if _state_of(place) == state]
        return max(places, key=lambda place: place.stat().st_mtime_ns, default=None)

    def forget(self, image: str) -> None:
        """Drop all results of an image."""
        with self._lock:
            shutil.rmtree(self._home(image), ignore_errors=True)

    def prune(self, images: Iterable[str]) -> None:
        """Drop the results of all images but these, and what a killed server left half-written."""
        kept = {_hash(image) for image in images}
        with self._lock:
            for home in self._folder.glob("*"):
                if home.name not in kept and not home.name.startswith("."):
                    shutil.rmtree(home, ignore_errors=True)

    def clean(self) -> None:
        """Remove what a killed server left half-written; only while nothing is kept."""
        for leftover in self._folder.glob(".*"):
            shutil.rmtree(leftover, ignore_errors=True)

    def _home(self, image: str) -> Path:
        return self._folder / _hash(image)

    def _place(self, question: Question) -> Path:
        return self._home(question.image) / _hash(f"{question.state} {question.detector} {question.plane}")

    def _drop_other_states(self, home: Path, state: str) -> None:
        for place in home.glob("*"):
            if _state_of(place) != state:
                shutil.rmtree(place, ignore_errors=True)

    def _shrink(self) -> None:
        """Drop the results that were longest not asked for until the rest fits."""
        places = [(place.stat().st_mtime_ns, place) for place in self._folder.glob("[!.]*/*")]
        sizes = {place: sum(file.stat().st_size for file in place.iterdir()) for _, place in places}
        total = sum(sizes.values())
        for _, place in sorted(places):
            if total <= self._limit:
                return
            shutil.rmtree(place, ignore_errors=True)
            total -= sizes[place]


def _state_of(place: Path) -> str | None:
    try:
        return json.loads((place / _RECORD).read_text(encoding="utf-8")).get("state")
    except (OSError, ValueError):
        return None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]
