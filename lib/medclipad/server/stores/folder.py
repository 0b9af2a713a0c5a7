"""MONAI Label's LocalDatastore without its traps, on the same files and the same datastore_v2.json.

Listed are NIfTI, NRRD and MetaImage files, pictures, and DICOM series as sub-folders of the studies folder. Names are
checked before anything is written, files appear whole or not at all, and the folder is looked at again whenever it has
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

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", *PICTURES)  # of two files of one name, the first
UPLOADABLE = tuple(one for one in SUFFIXES if one not in (".nhdr", ".mhd"))  # those keep their voxels in a second file
NOT_IMAGES = ("labels", "models")  # our own sub-folders of a studies folder
INCOMING = ".incoming-"  # folder of a DICOM series on its way into the studies

# A file name without separators, colons, wildcards or control characters, that neither starts with a dot nor ends with
# a dot or a space: the same on every file system. Letters of any script are allowed.
_NAME = re.compile(r"(?![. ])[^\x00-\x1f\x7f/\\:*?\"<>|]{1,128}(?<![. ])")
_NAME_BYTES = 160  # file systems take 255, suffixes included
_LONG = 3600.0  # seconds that no upload takes
_TAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


def is_plain(name: str) -> bool:
    """Whether `name` is a plain file name, the same on every file system."""
    return _NAME.fullmatch(name) is not None


def check_image_name(name: str) -> str:
    """`name`, if it can be an image id; RequestError 400 otherwise."""
    if not is_plain(name) or len(name.encode()) > _NAME_BYTES:
        raise RequestError(
            'An image id must be a plain name of 1 to 128 characters, without / \\ : * ? " < > | and no leading dot.'
        )
    return name


def check_tag(tag: str) -> str:
    """`tag`, if it can be a label tag; RequestError 400 otherwise."""
    if not _TAG.fullmatch(tag):
        raise RequestError("A label tag must be 1 to 64 letters, digits, hyphens or underscores.")
    return tag


def suffix_of(filename: str) -> str:
    """The suffix of a file that the datastore lists, in small letters, e.g. ".nii.gz", or "" for any other name."""
    return next((suffix for suffix in SUFFIXES if filename.lower().endswith(suffix)), "")


def is_text(name: str) -> bool:
    """Whether a file's name is text that JSON can hold: one from another system may be bytes in its own encoding."""
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


def is_dicom_folder(path: Path) -> bool:
    """Whether one of the first files in `path` has DICOM's magic number."""
    files = (entry for entry in sorted(path.iterdir())[:20] if entry.is_file())
    return any(_has_magic(file) for file in files)


def _has_magic(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def _fresh(method: Callable) -> Callable:
    """Run `method` alone, after the folders have been looked at if they changed."""

    @functools.wraps(method)
    def wrapper(self: StudyDatastore, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            if self._state() != self._seen:
                self.refresh()
            return method(self, *args, **kwargs)

    return wrapper


class StudyDatastore(LocalDatastore):
    """A studies folder. Thread-safe; ids and tags that are not plain names raise RequestError."""

    def __init__(self, studies: str | Path) -> None:
        self._lock = threading.RLock()
        self._seen: tuple = ()
        self._read_only = settings.MONAI_LABEL_DATASTORE_READ_ONLY
        if not self._read_only:
            _remove_leftovers(Path(studies))
        super().__init__(str(studies), extensions=[f"*{suffix}" for suffix in SUFFIXES], auto_reload=False)

    # --- reading: MONAI Label's methods, fresh and one at a time ---
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
        """Copy a volume file into the studies; an id that is taken raises RequestError 409, nothing is overwritten."""
        check_image_name(image_id)
        if image_id in self._datastore.objects:
            raise RequestError(f"There is already an image {image_id!r}: choose another id or remove it first.", 409)
        self._check_no_labels(image_id)
        suffix = suffix_of(image_filename)
        path = self.folder / f"{image_id}{suffix}"
        _copy(image_filename, path)
        info = {**image_info, "ts": int(time.time()), "name": f"{image_id}{suffix}"}
        self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=suffix))
        try:
            self._update_datastore_file()
        except OSError:  # a full disk: what was refused must not be there
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
        """Move folders of DICOM files, on the same disk, into the studies; RequestError 409 if an id is taken."""
        for image_id in series:
            if check_image_name(image_id) in self._datastore.objects or (self.folder / image_id).exists():
                raise RequestError(f"There is already an image {image_id!r}: choose another id.", 409)
            self._check_no_labels(image_id)
        for image_id, source in series.items():
            os.rename(source, self.folder / image_id)
            info = {**image_info, "ts": int(time.time()), "name": image_id}
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=""))
        sync_folder(self.folder)
        self._update_datastore_file()

    @_fresh
    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        """Copy a label file to labels/<tag>/; it replaces an older label of that tag, whatever its format was."""
        tag = check_tag(getattr(label_tag, "value", label_tag))
        case = self._datastore.objects.get(image_id)
        if case is None:
            raise RequestError(f"There is no image {image_id!r} in the studies.", 404)
        suffix = suffix_of(label_filename)
        folder = Path(self._datastore.label_path(tag))
        target = folder / f"{image_id}{suffix}"
        _copy(label_filename, target)
        for other in folder.iterdir():
            if other != target and suffix_of(other.name) and self._to_id(other.name)[0] == image_id:
                other.unlink(missing_ok=True)
        info = {**label_info, "ts": int(time.time()), "name": f"{image_id}{suffix}"}
        case.labels[tag] = DataModel(info=info, ext=suffix)
        self._update_datastore_file()
        return image_id

    @_fresh
    def remove_image(self, image_id: str) -> None:
        """Remove an image and its labels, these first: no later image may get them. Of a link only the link goes."""
        case = self._datastore.objects.get(image_id)
        if case is None:
            raise RequestError(f"There is no image {image_id!r} in the studies.", 404)
        for tag in list(case.labels):
            self.remove_label(image_id, tag)
        path = self.folder / f"{image_id}{case.image.ext}"
        if path.is_dir() and not path.is_symlink():
            remove_folder(path)
        else:
            path.unlink(missing_ok=True)
        self.refresh()

    @_fresh
    def remove_label(self, label_id: str, label_tag: str) -> None:
        """Remove a label's file; of a link only the link."""
        label = self._datastore.label(label_id, label_tag)
        if label is None:
            raise RequestError(f"Image {label_id!r} has no label with the tag {label_tag!r}.", 404)
        (Path(self._datastore.label_path(label_tag)) / f"{label_id}{label.ext}").unlink(missing_ok=True)
        self.refresh()

    def _check_no_labels(self, image_id: str) -> None:
        """RequestError 409 if labels of an image that was taken out of the folder by hand are still there."""
        for file in Path(self._datastore.label_path(None)).glob("*/*"):
            if suffix_of(file.name) and self._to_id(file.name)[0] == image_id:
                what = f"Labels of an earlier image {image_id!r} are still there"
                raise RequestError(f"{what}: choose another id, or remove {file.parent.name}/{file.name} first.", 409)

    # --- what LocalDatastore asks its subclass ---
    def _to_id(self, file: str) -> tuple[str, str]:
        end = len(file) - len(suffix_of(file))
        return file[:end], file[end:]

    def _list_files(self, path: str, patterns: list[str]) -> dict[str, str]:
        """Files that are listed, whatever the case of their suffix; of those with one name one, in SUFFIXES' order."""
        found = [file for file in os.listdir(path) if suffix_of(file) and not file.startswith(".") and is_text(file)]
        found.sort(key=lambda file: (-SUFFIXES.index(suffix_of(file)), file))
        return {file: file for file in {self._to_id(file)[0]: file for file in found}.values()}

    def _reconcile_datastore(self) -> None:
        with self._lock:
            seen = self._state()  # before the listing: a file that comes during it is found the next time
            super()._reconcile_datastore()
            self._seen = seen

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
            return  # what changes is known until the server ends
        path = Path(self._datastore_config_path)
        text = json.dumps(self._datastore.model_dump(exclude={"base_path"}), indent=2, default=str)
        with self._lock, FileLock(self._lock_file):
            write_text(path, text)
            self._config_ts = path.stat().st_mtime

    def _state(self) -> tuple:
        """Changes whenever a file is added to, removed from or replaced in the studies or its labels."""
        labels = Path(self._datastore.label_path(None))
        folders = [Path(self._datastore.image_path()), labels, *(entry for entry in labels.glob("*") if entry.is_dir())]
        return tuple((str(folder), folder.stat().st_mtime_ns) for folder in folders if folder.is_dir())


def _copy(source: str | Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(target) as temp_path:
        shutil.copyfile(source, temp_path)


def _remove_leftovers(studies: Path) -> None:
    """Remove what killed servers left half-written."""
    for leftover in studies.glob(f"{INCOMING}*"):
        if time.time() - leftover.stat().st_mtime > _LONG:
            shutil.rmtree(leftover, ignore_errors=True)
    for folder in (studies, *studies.glob("labels/*")):
        remove_leftovers(folder, is_stale)
