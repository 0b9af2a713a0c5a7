"""The studies in a folder: MONAI Label's LocalDatastore, made safe, on the same files and datastore_v2.json.

Images are NIfTI, NRRD and MetaImage files, pictures, and DICOM series as sub-folders of the studies folder. Names are
checked before anything is written, and files appear whole or not at all. The folder is listed again whenever it has
changed, so no watcher thread is needed.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from monailabel.config import settings
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore

from medclipad.files import atomic_file, remove_folder, remove_leftovers, sync_folder, write_text
from medclipad.server.errors import RequestError
from medclipad.server.process_lifetime import is_stale
from medclipad.volume.readers.pictures import PICTURES

# Of files with one name, the first suffix wins.
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", *PICTURES)
UPLOADABLE = tuple(suffix for suffix in SUFFIXES if suffix not in (".nhdr", ".mhd"))  # these have a second file
NOT_IMAGES = ("labels", "models")  # sub-folders of a studies folder that are no series
INCOMING = ".incoming-"  # prefix of the folder that an archive is unpacked to

# A name without separators, colons, wildcards or control characters that neither starts nor ends with a dot or space
# is valid on every file system. Letters of any script are allowed.
_NAME = re.compile(r"(?![. ])[^\x00-\x1f\x7f/\\:*?\"<>|]{1,128}(?<![. ])")
_NAME_BYTES = 160  # file systems allow 255, suffixes included
_UPLOAD_SECONDS = 3600.0  # more than any upload takes
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def is_plain(name: str) -> bool:
    """Return whether a name is a plain file name that is valid on every file system."""
    return _NAME.fullmatch(name) is not None


def check_image_name(name: str) -> str:
    """Return the name if it can be an image id; raise RequestError 400 otherwise."""
    if not is_plain(name) or len(name.encode()) > _NAME_BYTES:
        raise RequestError(
            'An image id must have 1 to 128 characters, none of / \\ : * ? " < > | and no dot or space at its ends.'
        )
    return name


def check_tag(tag: str) -> str:
    """Return the tag if it can be a label tag; raise RequestError 400 otherwise."""
    if not _TAG.fullmatch(tag):
        raise RequestError("A label tag must have 1 to 64 letters, digits, hyphens or underscores.")
    return tag


def suffix_of(filename: str) -> str:
    """Return the suffix of an image or label file in lower case, such as ".nii.gz"; "" for any other file."""
    return next((suffix for suffix in SUFFIXES if filename.lower().endswith(suffix)), "")


def is_text(name: str) -> bool:
    """Return whether a name is text that JSON can hold; a file from another system may have a name in raw bytes."""
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


def is_dicom_folder(path: Path) -> bool:
    """Return whether one of the first 20 files in a folder starts as DICOM files do."""
    files = (entry for entry in sorted(path.iterdir())[:20] if entry.is_file())
    return any(_has_magic(file) for file in files)


def _has_magic(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _fresh(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method under the lock, after listing the folders again if they changed."""

    @functools.wraps(method)
    def wrapper(self: StudyDatastore, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            if self._folder_state() != self._listed_state:
                self.refresh()
            return method(self, *args, **kwargs)

    return wrapper


class StudyDatastore(LocalDatastore):
    """A studies folder. Thread-safe; an id or tag that is not a plain name raises RequestError.

    Parameters
    ----------
    studies
        The folder; it is made if it does not exist.
    """

    def __init__(self, studies: str | Path) -> None:
        self._lock = threading.RLock()
        self._listed_state: tuple[tuple[str, int], ...] = ()
        self._read_only = settings.MONAI_LABEL_DATASTORE_READ_ONLY
        if not self._read_only:
            _remove_leftovers(Path(studies))
        super().__init__(str(studies), extensions=[f"*{suffix}" for suffix in SUFFIXES], auto_reload=False)

    # --- reading: MONAI Label's methods, on fresh lists and one at a time ---
    datalist = _fresh(LocalDatastore.datalist)
    get_image_uri = _fresh(LocalDatastore.get_image_uri)
    get_image_info = _fresh(LocalDatastore.get_image_info)
    get_label_uri = _fresh(LocalDatastore.get_label_uri)
    get_label_info = _fresh(LocalDatastore.get_label_info)
    get_labeled_images = _fresh(LocalDatastore.get_labeled_images)
    get_labels_by_image_id = _fresh(LocalDatastore.get_labels_by_image_id)
    get_unlabeled_images = _fresh(LocalDatastore.get_unlabeled_images)
    list_images = _fresh(LocalDatastore.list_images)
    status = _fresh(LocalDatastore.status)
    json = _fresh(LocalDatastore.json)
    update_image_info = _fresh(LocalDatastore.update_image_info)
    update_label_info = _fresh(LocalDatastore.update_label_info)

    # --- writing ---
    @_fresh
    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        """Copy a volume file into the studies and return its id.

        Parameters
        ----------
        image_id
            Id of the new image.
        image_filename
            Path of the file.
        image_info
            What to store about the image.

        Raises
        ------
        RequestError
            409 if the id is in use: nothing is overwritten.
        """
        check_image_name(image_id)
        if image_id in self._datastore.objects:
            raise RequestError(
                f"An image {image_id!r} already exists: choose another id, or remove the image first.", 409
            )
        self._check_no_labels(image_id)
        suffix = suffix_of(image_filename)
        path = self.folder / f"{image_id}{suffix}"
        _copy(image_filename, path)
        info = {**image_info, "ts": int(time.time()), "name": f"{image_id}{suffix}"}
        self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=suffix))
        try:
            self._update_datastore_file()
        except OSError:  # a full disk: an image that was refused must not exist
            del self._datastore.objects[image_id]
            path.unlink()
            raise
        return image_id

    @property
    def folder(self) -> Path:
        """The studies folder."""
        return Path(self._datastore.image_path())

    @_fresh
    def add_series(self, series: dict[str, Path], image_info: dict[str, Any]) -> None:
        """Move DICOM series into the studies.

        Parameters
        ----------
        series
            Folders of DICOM files by image id, on the disk of the studies.
        image_info
            What to store about each of the images.

        Raises
        ------
        RequestError
            409 if an id is in use.
        """
        for image_id in series:
            if check_image_name(image_id) in self._datastore.objects or (self.folder / image_id).exists():
                raise RequestError(f"An image {image_id!r} already exists: choose another id.", 409)
            self._check_no_labels(image_id)
        for image_id, source in series.items():
            os.rename(source, self.folder / image_id)
            info = {**image_info, "ts": int(time.time()), "name": image_id}
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=""))
        sync_folder(self.folder)
        self._update_datastore_file()

    @_fresh
    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Copy a label file to labels/<tag>/, in place of an older label of that tag in any format.

        Parameters
        ----------
        image_id
            Id of the image.
        label_filename
            Path of the file.
        label_tag
            Tag of the label, such as "final".
        label_info
            What to store about the label.

        Raises
        ------
        RequestError
            404 if there is no such image.
        """
        tag = check_tag(getattr(label_tag, "value", label_tag))
        entry = self._datastore.objects.get(image_id)
        if entry is None:
            raise RequestError(f"Image {image_id!r} was not found in the studies.", 404)
        suffix = suffix_of(label_filename)
        folder = Path(self._datastore.label_path(tag))
        target = folder / f"{image_id}{suffix}"
        _copy(label_filename, target)
        for other in folder.iterdir():
            if other != target and suffix_of(other.name) and self._to_id(other.name)[0] == image_id:
                other.unlink(missing_ok=True)
        info = {**label_info, "ts": int(time.time()), "name": f"{image_id}{suffix}"}
        entry.labels[tag] = DataModel(info=info, ext=suffix)
        self._update_datastore_file()
        return image_id

    @_fresh
    def remove_image(self, image_id: str) -> None:
        """Remove an image, after its labels, which no later image may get; of a link only the link is removed."""
        entry = self._datastore.objects.get(image_id)
        if entry is None:
            raise RequestError(f"Image {image_id!r} was not found in the studies.", 404)
        for tag in list(entry.labels):
            self.remove_label(image_id, tag)
        path = self.folder / f"{image_id}{entry.image.ext}"
        if path.is_dir() and not path.is_symlink():
            remove_folder(path)
        else:
            path.unlink(missing_ok=True)
        self.refresh()

    @_fresh
    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label's file; of a link only the link is removed."""
        label = self._datastore.label(label_id, label_tag)
        if label is None:
            raise RequestError(f"Image {label_id!r} has no label with the tag {label_tag!r}.", 404)
        (Path(self._datastore.label_path(label_tag)) / f"{label_id}{label.ext}").unlink(missing_ok=True)
        self.refresh()

    def _check_no_labels(self, image_id: str) -> None:
        """Raise RequestError 409 if labels still exist of an image that was removed from the folder by hand."""
        for file in Path(self._datastore.label_path(None)).glob("*/*"):
            if suffix_of(file.name) and self._to_id(file.name)[0] == image_id:
                raise RequestError(
                    f"Labels of an earlier image {image_id!r} still exist: choose another id, "
                    f"or remove {file.parent.name}/{file.name} first.",
                    409,
                )

    # --- LocalDatastore's hooks ---
    def _to_id(self, file: str) -> tuple[str, str]:
        end = len(file) - len(suffix_of(file))
        return file[:end], file[end:]

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        """Return the images or labels in a folder, with suffixes in any case; of files with one name, one."""
        files = [file for file in os.listdir(path) if suffix_of(file) and not file.startswith(".") and is_text(file)]
        files.sort(key=lambda file: (-SUFFIXES.index(suffix_of(file)), file))  # the last one wins
        return {file: file for file in {self._to_id(file)[0]: file for file in files}.values()}

    def _reconcile_datastore(self) -> None:
        with self._lock:
            state = self._folder_state()  # before the listing: a file that appears during it is found the next time
            super()._reconcile_datastore()
            self._listed_state = state

    def _add_non_existing_images(self) -> int:
        added = super()._add_non_existing_images()
        for folder in Path(self._datastore.image_path()).iterdir():
            name = folder.name
            known = name in self._datastore.objects or name in NOT_IMAGES or name.startswith(".")
            if not known and is_text(name) and folder.is_dir() and is_dicom_folder(folder):
                self._datastore.objects[name] = ImageLabelModel(image=DataModel(info={"name": name}, ext=""))
                added += 1
        return added

    def _update_datastore_file(self, lock: bool = True) -> None:
        if self._read_only:
            return  # changes last until the server ends
        path = Path(self._datastore_config_path)
        text = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
        with self._lock, FileLock(self._lock_file):
            write_text(path, text)
            self._config_ts = path.stat().st_mtime

    def _folder_state(self) -> tuple[tuple[str, int], ...]:
        """Return what changes when a file of the studies or the labels is added, removed or replaced."""
        labels = Path(self._datastore.label_path(None))
        folders = [Path(self._datastore.image_path()), labels, *(entry for entry in labels.glob("*") if entry.is_dir())]
        return tuple((str(folder), folder.stat().st_mtime_ns) for folder in folders if folder.is_dir())


def _copy(source: str | Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as temp_path:
        shutil.copyfile(source, temp_path)


def _remove_leftovers(studies: Path) -> None:
    """Remove what killed servers left half-written in the studies."""
    for leftover in studies.glob(f"{INCOMING}*"):
        if time.time() - leftover.stat().st_mtime > _UPLOAD_SECONDS:
            shutil.rmtree(leftover, ignore_errors=True)
    for folder in (studies, *studies.glob("labels/*")):
        remove_leftovers(folder, is_stale)
