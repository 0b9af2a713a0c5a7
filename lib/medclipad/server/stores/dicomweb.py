"""The studies in an archive (PACS, Orthanc) as MONAI Label's datastore: an image is a series, named by its UID.

Labels are DICOM Segmentations in the archive, in series called "MedCLIPAD label <tag>". The newest one of an image and
tag counts; segmentations that other programs made do not. What DICOM cannot hold (image info, marks) and fetched series
are in a folder beside the detectors:

    <models>/dicomweb/<archive>/notes.json         info of images and labels, and which labels were removed
    <models>/dicomweb/<archive>/series/<UID>/      a fetched series; above LIMIT those fetched first are removed
    <models>/dicomweb/<archive>/labels/<UID>.nii.gz
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
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
from medclipad.server.security.upload_limits import read_image
from medclipad.server.stores.archive_labels import LABEL_PREFIX, ArchiveLabels, Label
from medclipad.server.stores.archive_list import ArchiveList
from medclipad.server.stores.folder import check_tag
from medclipad.server.stores.pacs import Pacs, RemoteSeries
from medclipad.volume import Volume, write_volume

LIMIT = 20 * 1024**3  # bytes of fetched series
FINAL = DefaultLabelTag.FINAL.value


class DicomWebDatastore(Datastore):
    """The studies in an archive. Thread-safe; several processes may share the folder.

    Parameters
    ----------
    pacs
        The archive.
    url
        Its address.
    folder
        Folder for notes and fetched series.
    """

    def __init__(self, pacs: Pacs, url: str, folder: Path) -> None:
        self._pacs, self._url = pacs, url
        self._folder = folder / sha256_of_text(url)[:16]
        self._lock = threading.RLock()
        self._series_locks: dict[str, threading.Lock] = {}
        self._archive = ArchiveList(self._request_list)
        self._labels = ArchiveLabels(pacs)

    # --- names and lists ---
    def name(self) -> str:
        """Return the address of the archive."""
        return self._url

    def set_name(self, name: str) -> None:
        """Raise RequestError 405: an archive cannot be renamed."""
        raise RequestError("The name of an archive cannot be changed here.", 405)

    def description(self) -> str:
        """Return what the studies are."""
        return "Studies of an archive, over DICOMweb"

    def set_description(self, description: str) -> None:
        """Raise RequestError 405: an archive cannot be described anew."""
        raise RequestError("The description of an archive cannot be changed here.", 405)

    def list_images(self) -> list[str]:
        """Return the UIDs of all series that can be volumes."""
        return list(self._list()[0])

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the images with a label of the tag, by default "final"."""
        labelled = {label.image for label in self._list()[1] if label.tag == (label_tag or FINAL)}
        return [image for image in self.list_images() if image in labelled]

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """Return the images without a label of the tag, by default "final"."""
        labelled = set(self.get_labeled_images(label_tag))
        return [image for image in self.list_images() if image not in labelled]

    def get_labels_by_image_id(self, image_id: str) -> dict[str, str]:
        """Return the image's id by the tag of each of its labels."""
        return {label.tag: image_id for label in self._list()[1] if label.image == image_id}

    def get_label_by_image_id(self, image_id: str, tag: str) -> str:
        """Return the id of an image's label, which is the image's; "" if there is none."""
        return self.get_labels_by_image_id(image_id).get(tag, "")

    def status(self) -> dict[str, Any]:
        """Return the numbers of images, of images with a final label, and of labels by tag, without waiting.

        They are those of the last list of the archive; "reachable" says whether it answers, "unreadable" how many
        segmentations it cannot send.
        """
        images, labels = self._archive.last() or ({}, [])
        tags = [label.tag for label in labels]
        return {
            "total": len(images),
            "completed": len({label.image for label in labels if label.tag == FINAL}),
            "label_tags": {tag: tags.count(tag) for tag in sorted(set(tags))},
            "reachable": self.reachable,
            "unreadable": self._labels.unreadable,
        }

    def json(self) -> dict[str, Any]:
        """Return all images and labels in the form of MONAI Label's LocalDatastore; nothing in it names a patient."""
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
        """Return the files of all images with a final label and of these labels."""
        return [
            {"image": self.get_image_uri(image), "label": self.get_label_uri(image, FINAL)}
            for image in self.get_labeled_images()
        ]

    def get_dataset_archive(self, limit_cases: int | None) -> str:
        """Raise RequestError 405: the studies can be downloaded from the archive itself."""
        raise RequestError("The studies are in an archive: download them from there.", 405)

    def refresh(self) -> None:
        """Request a new list from the archive at the next access."""
        self._archive.invalidate()

    @property
    def reachable(self) -> bool:
        """Whether the archive answers, as far as is known; it is not waited for."""
        return self._archive.reachable

    # --- images ---
    def get_image_uri(self, image_id: str) -> str:
        """Return the folder with the series, fetched if necessary; "" if there is no such image."""
        series = self._list()[0].get(image_id)
        return str(self._fetch(series)) if series else ""

    def get_image(self, image_id: str, params: Any = None) -> Any:
        """Raise RequestError 405: images are available as files only."""
        raise RequestError("Images of an archive are available as files only.", 405)

    def get_image_info(self, image_id: str) -> dict[str, Any]:
        """Return what is known about an image; {} if there is no such image."""
        series = self._list()[0].get(image_id)
        return _info(series, self._notes()) if series else {}

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        """Add to what is known about an image."""
        if image_id in self._list()[0]:
            with self._edit_notes() as notes:
                notes["images"].setdefault(image_id, {}).update(info)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Raise RequestError 405: images are added in the archive itself."""
        raise RequestError("The studies are in an archive: send new DICOM images to the archive itself.", 405)

    def remove_image(self, image_id: str) -> None:
        """Raise RequestError 405: images are removed in the archive itself."""
        raise RequestError("The studies are in an archive: remove images there.", 405)

    # --- labels ---
    def get_label_uri(self, label_id: str, label_tag: str) -> str:
        """Return the path of a NIfTI file of a label on its image's full grid; "" if there is no such label."""
        label = self._label(label_id, label_tag)
        if label is None:
            return ""
        path = self._folder / "labels" / f"{label.series.uid}.nii.gz"
        if not path.exists():
            with self._series_lock(label.series.uid), tempfile.TemporaryDirectory(dir=self._make_folders()) as folder:
                (file,) = self._pacs.fetch(label.series, Path(folder))
                volume = read_image(self.get_image_uri(label.image))
                self._write_label(segmentation_to_mask(pydicom.dcmread(file), volume), label.series.uid)
        return str(path)

    def get_label(self, label_id: str, label_tag: str, params: Any = None) -> Any:
        """Raise RequestError 405: labels are available as files only."""
        raise RequestError("Labels of an archive are available as files only.", 405)

    def get_label_info(self, label_id: str, label_tag: str) -> dict[str, Any]:
        """Return what is known about a label; {} if there is no such label."""
        label = self._label(label_id, label_tag)
        if label is None:
            return {}
        return {**self._notes()["labels"].get(label.series.uid, {}), "SeriesInstanceUID": label.series.uid}

    def update_label_info(self, label_id: str, label_tag: str, info: dict[str, Any]) -> None:
        """Add to what is known about a label."""
        if (label := self._label(label_id, label_tag)) is not None:
            with self._edit_notes() as notes:
                notes["labels"].setdefault(label.series.uid, {}).update(info)

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Store a label as a DICOM Segmentation of all slices; older ones stay in the archive but no longer count.

        Parameters
        ----------
        image_id
            UID of the image's series.
        label_filename
            Path of the label file.
        label_tag
            Tag of the label, such as "final".
        label_info
            What to store about the label.

        Raises
        ------
        RequestError
            404 if there is no such image, 502 or 503 if the archive does not store the label.
        """
        tag = check_tag(getattr(label_tag, "value", label_tag))
        path = self.get_image_uri(image_id)
        if not path:
            raise RequestError(f"Image {image_id!r} was not found in the studies.", 404)
        volume, mask = read_image(path), read_image(label_filename)
        made = segmentation(read_source(path, volume), volume.with_array(mask.array), None, f"{LABEL_PREFIX}{tag}"[:64])
        made.TimezoneOffsetFromUTC = datetime.now().astimezone().strftime("%z")
        older = [label.series.uid for label in self._labels.of(image_id, tag)]
        self._pacs.store([made])
        self._write_label(segmentation_to_mask(made, volume), made.SeriesInstanceUID)
        with self._edit_notes() as notes:
            notes["labels"][made.SeriesInstanceUID] = {**label_info, "ts": int(time.time())}
            notes["removed"] = sorted({*notes["removed"], *older})  # the clock may have been set back since
        self._renew_list()
        return image_id

    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Ignore a label, and older ones of its tag, from now on; DICOMweb cannot delete them."""
        self._list()
        removed = [label.series.uid for label in self._labels.of(label_id, label_tag)]
        with self._edit_notes() as notes:
            notes["removed"] = sorted({*notes["removed"], *removed})
        self._renew_list()

    def store(self, datasets: list[Dataset]) -> None:
        """Store results in the archive, beside their images."""
        self._pacs.store(datasets)

    # --- the archive's lists ---
    def _list(self) -> tuple[dict[str, RemoteSeries], list[Label]]:
        """Return the images by UID and the newest label of each image and tag."""
        return self._archive.get()

    def _renew_list(self) -> None:
        """Request a new list and wait for it, so that GET /info/, which does not wait, shows what was just changed."""
        self.refresh()
        with contextlib.suppress(RequestError):  # the change itself was stored
            self._list()

    def _request_list(self) -> tuple[dict[str, RemoteSeries], list[Label]]:
        """Return what `_list` does, from the archive; only the thread of `ArchiveList` calls it."""
        images = {series.uid: series for series in self._pacs.images()}
        return images, self._labels.newest(images, set(self._notes()["removed"]))

    def _label(self, image: str, tag: str) -> Label | None:
        return next((label for label in self._list()[1] if (label.image, label.tag) == (image, tag)), None)

    # --- files on this server ---
    def _make_folders(self) -> Path:
        for part in ("series", "labels"):
            (self._folder / part).mkdir(parents=True, exist_ok=True)
        return self._folder

    @contextmanager
    def _series_lock(self, uid: str) -> Iterator[None]:
        with self._lock:
            lock = self._series_locks.setdefault(uid, threading.Lock())
        with lock:
            yield

    def _fetch(self, series: RemoteSeries) -> Path:
        """Return the folder of a series, which is fetched whole or not at all."""
        folder = self._make_folders() / "series" / series.uid
        with self._series_lock(series.uid):
            if not folder.is_dir():
                try:
                    with atomic_folder(folder) as temp_folder:
                        self._pacs.fetch(series, temp_folder)
                except OSError:
                    if not folder.is_dir():  # otherwise another process has just fetched it
                        raise
                self._shrink(folder)
        return folder

    def _shrink(self, latest: Path) -> None:
        """Remove the series that were fetched first until the rest is within LIMIT, and half-fetched ones."""
        remove_leftovers(latest.parent, is_stale)
        folders = sorted(latest.parent.glob("[!.]*"), key=lambda folder: folder.stat().st_mtime_ns)
        sizes = {folder: sum(file.stat().st_size for file in folder.iterdir()) for folder in folders}
        total = sum(sizes.values())
        for folder in folders:
            if total <= LIMIT or folder == latest:
                return
            shutil.rmtree(folder, ignore_errors=True)
            total -= sizes[folder]

    def _write_label(self, mask: Volume, uid: str) -> None:
        write_volume(mask, self._make_folders() / "labels" / f"{uid}.nii.gz")

    def _notes(self) -> dict[str, Any]:
        try:
            notes = json.loads((self._folder / "notes.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            notes = {}
        return {"images": {}, "labels": {}, "removed": [], **notes}

    @contextmanager
    def _edit_notes(self) -> Iterator[dict[str, Any]]:
        """Yield the notes and write them back after the block; one writer at a time, also across processes."""
        path = self._make_folders() / "notes.json"
        with self._lock, FileLock(f"{path}.lock"):
            notes = self._notes()
            yield notes
            write_text(path, json.dumps(notes, indent=1, default=str))


def _info(series: RemoteSeries, notes: dict[str, Any]) -> dict[str, Any]:
    """Return what is known about an image: what the archive lists, and what was added here."""
    return {
        "SeriesInstanceUID": series.uid,
        "StudyInstanceUID": series.study,
        "Modality": series.modality,
        "SeriesDescription": series.description,
        **notes["images"].get(series.uid, {}),
    }
