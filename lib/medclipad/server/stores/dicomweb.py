"""The studies of an archive (PACS, Orthanc) as MONAI Label's datastore: an image is a series, named by its UID.

Labels are DICOM Segmentations in the archive, in series called "MedCLIPAD label <tag>"; the newest one of an image and
tag counts, and those that others made do not. What DICOM has no place for (image info, marks) and the series fetched
so far lie in a folder beside the detectors:

    <models>/dicomweb/<archive>/notes.json         info of images and labels, labels that were removed
    <models>/dicomweb/<archive>/series/<UID>/      a fetched series, dropped when longest not used and over LIMIT
    <models>/dicomweb/<archive>/labels/<UID>.nii.gz
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
from filelock import FileLock
from monailabel.interfaces.datastore import Datastore, DefaultLabelTag
from pydicom.dataset import Dataset

from medclipad.export.dicom import read_source, segmentation, segmentation_to_mask
from medclipad.files import atomic_folder, remove_leftovers, sha256_of_text, write_text
from medclipad.server.errors import RequestError
from medclipad.server.process_lifetime import is_stale
from medclipad.server.stores.folder import check_tag
from medclipad.server.stores.pacs import Pacs, RemoteSeries
from medclipad.volume import read_volume, write_volume

LIMIT = 20 * 1024**3  # bytes of fetched series
FRESH = 3.0  # seconds that a list of the archive counts as new
LABEL = "MedCLIPAD label "
FINAL = DefaultLabelTag.FINAL.value
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


@dataclass(frozen=True)
class Label:
    """A label in the archive: the series of its segmentation, its image, and when it was made."""

    series: RemoteSeries
    image: str
    tag: str
    made: str


class DicomWebDatastore(Datastore):
    """`folder` is ours to keep things in. Thread-safe; several processes may share the folder."""

    def __init__(self, pacs: Pacs, url: str, folder: Path) -> None:
        self._pacs, self._url = pacs, url
        self._folder = folder / sha256_of_text(url)[:16]
        self._lock = threading.RLock()
        self._fetching: dict[str, threading.Lock] = {}
        self._listed: tuple[float, dict[str, RemoteSeries], list[Label]] | None = None
        self._labels: dict[str, Label | None] = {}  # by series UID; None for segmentations that are no labels of ours

    # --- what there is ---
    def name(self) -> str:
        return self._url

    def set_name(self, name: str) -> None:
        raise RequestError("The archive's name is its own.", 405)

    def description(self) -> str:
        return "Studies of an archive, over DICOMweb"

    def set_description(self, description: str) -> None:
        raise RequestError("The archive's description is its own.", 405)

    def list_images(self) -> list[str]:
        return list(self._list()[0])

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        labelled = {label.image for label in self._list()[1] if label.tag == (label_tag or FINAL)}
        return [image for image in self.list_images() if image in labelled]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        labelled = set(self.get_labeled_images(label_tag))
        return [image for image in self.list_images() if image not in labelled]

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        return {label.tag: image_id for label in self._list()[1] if label.image == image_id}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        return self.get_labels_by_image_id(image_id).get(tag, "")

    def status(self) -> dict[str, Any]:
        images, labels = self._list()
        tags = [label.tag for label in labels]
        return {
            "total": len(images),
            "completed": len({label.image for label in labels if label.tag == FINAL}),
            "label_tags": {tag: tags.count(tag) for tag in sorted(set(tags))},
        }

    def json(self) -> dict[str, Any]:
        """As MONAI Label's LocalDatastore has it. Nothing of it names a patient."""
        images, labels = self._list()
        notes = self._notes()
        objects: dict[str, Any] = {
            uid: {"image": {"ext": "", "info": _info(series, notes)}, "labels": {}} for uid, series in images.items()
        }
        for label in labels:
            info = notes["labels"].get(label.series.uid, {})
            objects[label.image]["labels"][label.tag] = {"ext": ".nii.gz", "info": {**info, "made": label.made}}
        return {"name": self.name(), "description": self.description(), "objects": objects}

    def datalist(self) -> list[dict[str, Any]]:
        return [
            {"image": self.get_image_uri(image), "label": self.get_label_uri(image, FINAL)}
            for image in self.get_labeled_images()
        ]

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        raise RequestError("The studies are those of an archive: fetch them there.", 405)

    def refresh(self) -> None:
        """Ask the archive anew at the next question."""
        self._listed = None

    # --- images ---
    def get_image_uri(self, image_id: str) -> str:
        """Folder with the series, fetched if it is not here yet; "" if there is no such image."""
        series = self._list()[0].get(image_id)
        return str(self._fetched(series)) if series else ""

    def get_image(self, image_id: str, params: Any = None) -> Any:
        raise RequestError("Images of an archive are handed out as files.", 405)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        series = self._list()[0].get(image_id)
        return _info(series, self._notes()) if series else {}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        if image_id in self._list()[0]:
            with self._noting() as notes:
                notes["images"].setdefault(image_id, {}).update(info)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        raise RequestError("The studies are those of an archive: send new DICOM images to the archive itself.", 405)

    def remove_image(self, image_id: str) -> None:
        raise RequestError("The studies are those of an archive: remove images there.", 405)

    # --- labels ---
    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """A NIfTI file of the label on its image's full grid; "" if there is none."""
        label = self._label(label_id, label_tag)
        if label is None:
            return ""
        path = self._folder / "labels" / f"{label.series.uid}.nii.gz"
        if not path.exists():
            with self._one_at_a_time(label.series.uid), tempfile.TemporaryDirectory(dir=self._home()) as folder:
                (file,) = self._pacs.fetch(label.series, Path(folder))
                volume = read_volume(self.get_image_uri(label.image))
                self._write_label(segmentation_to_mask(pydicom.dcmread(file), volume), label.series.uid)
        return str(path)

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:
        raise RequestError("Labels of an archive are handed out as files.", 405)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        label = self._label(label_id, label_tag)
        if label is None:
            return {}
        return {**self._notes()["labels"].get(label.series.uid, {}), "SeriesInstanceUID": label.series.uid}

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        if (label := self._label(label_id, label_tag)) is not None:
            with self._noting() as notes:
                notes["labels"].setdefault(label.series.uid, {}).update(info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store a label file as a DICOM Segmentation of all slices; older ones stay in the archive and no longer count.

        Raises RequestError if the archive does not take it.
        """
        tag = check_tag(getattr(label_tag, "value", label_tag))
        path = self.get_image_uri(image_id)
        if not path:
            raise RequestError(f"There is no image {image_id!r} in the studies.", 404)
        volume, mask = read_volume(path), read_volume(label_filename)
        made = segmentation(read_source(path, volume), volume.with_array(mask.array), None, f"{LABEL}{tag}"[:64])
        self._pacs.store([made])
        self._write_label(segmentation_to_mask(made, volume), made.SeriesInstanceUID)
        with self._noting() as notes:
            notes["labels"][made.SeriesInstanceUID] = {**label_info, "ts": int(time.time())}
        self.refresh()
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Let a label, and older ones of its tag, no longer count here; DICOMweb cannot delete them."""
        self._list()
        gone = [one for one in self._labels.values() if one and (one.image, one.tag) == (label_id, label_tag)]
        with self._noting() as notes:
            notes["removed"] = sorted({*notes["removed"], *(label.series.uid for label in gone)})
        self.refresh()

    def store(self, datasets: list[Dataset]) -> None:
        """Store results beside their images."""
        self._pacs.store(datasets)

    # --- the archive's lists ---
    def _list(self) -> tuple[dict[str, RemoteSeries], list[Label]]:
        """(images by UID, the label that counts for each image and tag), at most FRESH seconds old."""
        with self._lock:
            if self._listed is None or time.monotonic() - self._listed[0] > FRESH:
                images = {series.uid: series for series in self._pacs.images()}
                self._listed = (time.monotonic(), images, self._newest_labels(images))
            return self._listed[1:]

    def _newest_labels(self, images: dict[str, RemoteSeries]) -> list[Label]:
        removed = set(self._notes()["removed"])
        newest: dict[tuple[str, str], Label] = {}
        for series in self._pacs.segmentations():
            if series.uid not in self._labels:  # a series never changes: looked at once
                self._labels[series.uid] = self._described(series)
            label = self._labels[series.uid]
            if label is None or label.image not in images or series.uid in removed:
                continue
            key = (label.image, label.tag)
            if key not in newest or label.made > newest[key].made:
                newest[key] = label
        return list(newest.values())

    def _described(self, series: RemoteSeries) -> Label | None:
        if series.description and not series.description.startswith(LABEL):
            return None
        header = self._pacs.header(series)
        description, referred = str(header.get("SeriesDescription", "")), header.get("ReferencedSeriesSequence")
        if not description.startswith(LABEL) or not referred:
            return None
        made = f"{header.get('ContentDate', '')}{header.get('ContentTime', '')}"
        return Label(series, str(referred[0].SeriesInstanceUID), description.removeprefix(LABEL), made)

    def _label(self, image: str, tag: str) -> Label | None:
        return next((label for label in self._list()[1] if (label.image, label.tag) == (image, tag)), None)

    # --- what lies here ---
    def _home(self) -> Path:
        for part in ("series", "labels"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        return self._folder

    @contextmanager
    def _one_at_a_time(self, uid: str) -> Iterator[None]:
        with self._lock:
            lock = self._fetching.setdefault(uid, threading.Lock())
        with lock:
            yield

    def _fetched(self, series: RemoteSeries) -> Path:
        """Folder of a series, which appears whole or not at all."""
        if not _UID.fullmatch(series.uid):
            raise RequestError("The archive names a series by something that is no UID.", 502)
        place = self._home() / "series" / series.uid
        with self._one_at_a_time(series.uid):
            if not place.is_dir():
                try:
                    with atomic_folder(place) as folder:
                        self._pacs.fetch(series, folder)
                except OSError:
                    if not place.is_dir():  # else another process was quicker
                        raise
                self._shrink(place)
        return place

    def _shrink(self, latest: Path) -> None:
        """Drop the series that were fetched first until the rest fits, and what a killed server left half-fetched."""
        remove_leftovers(latest.parent, is_stale)
        places = sorted(latest.parent.glob("[!.]*"), key=lambda place: place.stat().st_mtime_ns)
        sizes = {place: sum(file.stat().st_size for file in place.iterdir()) for place in places}
        total = sum(sizes.values())
        for place in places:
            if total <= LIMIT or place == latest:
                return
            shutil.rmtree(place, ignore_errors=True)
            total -= sizes[place]

    def _write_label(self, mask: Any, uid: str) -> None:
        target = self._home() / "labels" / f"{uid}.nii.gz"
        write_volume(mask, target)

    def _notes(self) -> dict[str, Any]:
        try:
            notes = json.loads((self._folder / "notes.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            notes = {}
        return {"images": {}, "labels": {}, "removed": [], **notes}

    @contextmanager
    def _noting(self) -> Iterator[dict[str, Any]]:
        """The notes, written back after the block; one writer at a time, in whatever process."""
        path = self._home() / "notes.json"
        with self._lock, FileLock(f"{path}.lock"):
            notes = self._notes()
            yield notes
            write_text(path, json.dumps(notes, indent=1, default=str))


def _info(series: RemoteSeries, notes: dict[str, Any]) -> dict[str, Any]:
    """What is known of an image: the archive's words, and ours."""
    return {
        "SeriesInstanceUID": series.uid,
        "StudyInstanceUID": series.study,
        "Modality": series.modality,
        "SeriesDescription": series.description,
        **notes["images"].get(series.uid, {}),
    }
