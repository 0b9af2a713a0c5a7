"""The studies in a folder: MONAI Label's LocalDatastore, made safe, on the same files and datastore_v2.json.

Images are NIfTI, NRRD and MetaImage files, pictures, and DICOM series as sub-folders of the studies folder. Names are
checked before anything is written, and files appear whole or not at all. The folder is listed again whenever it has
changed, so no watcher thread is needed.
"""

from __future__ import annotations

import functools
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
from medclipad.server.stores.datastore_file import DATASTORE_FILE, restore_if_damaged
from medclipad.server.stores.file_state import quick_look
from medclipad.server.stores.replaced import is_about_content, is_same_image, set_aside
from medclipad.server.stores.study_files import HEADERS, SUFFIXES, Found, StudyFiles, split_name, suffix_of

UPLOADABLE = tuple(suffix for suffix in SUFFIXES if suffix not in HEADERS)  # these have a second file
INCOMING = ".incoming-"  # prefix of the folder that an archive is unpacked to

# A name without separators, colons, wildcards or control characters that neither starts nor ends with a dot or space
# is valid on every file system. Letters of any script are allowed.
_NAME = re.compile(r"(?![. ])[^\x00-\x1f\x7f/\\:*?\"<>|]{1,128}(?<![. ])")
_NAME_BYTES = 160  # file systems allow 255, suffixes included
_STATUS_SECONDS = 0.05  # that GET /info/ waits for another thread's work on the folder
_NOTICE_SECONDS = 1.0  # between two looks at all files that have labels
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


def _fresh(method: Callable[..., Any]) -> Callable[..., Any]:
    """Run a method under the lock, after listing the folders again if they changed."""

    @functools.wraps(method)
    def wrapper(self: StudyDatastore, *args: Any, **kwargs: Any) -> Any:
        with self._lock:
            self._look()
            self._notice_replaced(args[0] if args and isinstance(args[0], str) else None)
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
        self._files = StudyFiles(Path(studies), Path(studies) / "labels")
        self._listed_state: tuple[Any, ...] = ()  # of the files, when they were last listed
        self._listed_names: set[tuple[str, str]] = set()  # by then, and what was written since
        self._seen: dict[str, tuple[int, ...]] = {}  # by image: what its file looked like when it was last checked
        self._all_seen_at = -float("inf")
        self._last_status: dict[str, Any] = {"total": 0, "completed": 0, "label_tags": {}, "unreadable": 0}
        self._read_only = settings.MONAI_LABEL_DATASTORE_READ_ONLY
        if not self._read_only:
            _remove_leftovers(Path(studies))
            restore_if_damaged(Path(studies) / DATASTORE_FILE)
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
    json = _fresh(LocalDatastore.json)
    update_image_info = _fresh(LocalDatastore.update_image_info)
    update_label_info = _fresh(LocalDatastore.update_label_info)

    def status(self) -> dict[str, Any]:
        """Return the numbers of images, of images with a final label, of labels by tag, and of unreadable folders.

        While another thread works on the folder, they are the last ones: GET /info/ waits for nothing.
        """
        if self._lock.acquire(timeout=_STATUS_SECONDS):
            try:
                self._look()
                self._last_status = {**super().status(), "unreadable": len(self._files.unreadable)}
            finally:
                self._lock.release()
        return self._last_status

    @_fresh
    def image_paths(self) -> dict[str, str]:
        """Return the file or DICOM folder of each image, as `get_image_uri` does, by id."""
        folder = os.path.realpath(self.folder)
        paths = {image: f"{folder}{os.sep}{image}{entry.image.ext}" for image, entry in self._datastore.objects.items()}
        return {image: os.path.realpath(path) if os.path.islink(path) else path for image, path in paths.items()}

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
        self._listed_names.add(("", path.name))
        info = {**image_info, "ts": int(time.time()), "name": f"{image_id}{suffix}"}
        self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=suffix))
        try:
            self._update_datastore_file()
        except OSError:  # a full disk: an image that was refused must not exist
            del self._datastore.objects[image_id]
            self._listed_names.discard(("", path.name))
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
            self._listed_names.add(("", image_id))
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
        self._listed_names.add((tag, target.name))
        for other in os.listdir(folder):
            if other != target.name and suffix_of(other) and split_name(other)[0] == image_id:
                (folder / other).unlink(missing_ok=True)
                self._listed_names.discard((tag, other))
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
            if suffix_of(file.name) and split_name(file.name)[0] == image_id:
                raise RequestError(
                    f"Labels of an earlier image {image_id!r} still exist: choose another id, "
                    f"or remove {file.parent.name}/{file.name} first.",
                    409,
                )

    # --- LocalDatastore's hooks ---
    def _notice_replaced(self, image: str | None) -> None:
        """Set aside the labels and marks of an image, by default of all, whose file now holds another image."""
        if self._read_only or (image is None and time.monotonic() - self._all_seen_at < _NOTICE_SECONDS):
            return
        if image is None:
            self._all_seen_at = time.monotonic()
        changed = False
        for name in [image] if image is not None else list(self._datastore.objects):
            entry = self._datastore.objects.get(name)
            if entry is None or not (entry.labels or is_about_content(entry.image.info)):
                continue
            path = self.folder / f"{name}{entry.image.ext}"
            try:
                look = quick_look(path)
                if self._seen.get(name) == look:
                    continue
                before = dict(entry.image.info)
                if not is_same_image(str(path), entry.image.info):
                    files = {
                        tag: Path(self._datastore.label_path(tag)) / f"{name}{label.ext}"
                        for tag, label in entry.labels.items()
                    }
                    entry.image.info = set_aside(files, entry.image.info)
                    entry.labels.clear()
                changed = changed or entry.image.info != before
                self._seen[name] = look
            except OSError:  # removed meanwhile, or not readable now
                continue
        if changed:
            self._update_datastore_file()

    def _to_id(self, file: str) -> tuple[str, str]:
        return split_name(file)

    def _look(self) -> None:
        """List the folder again if a file was added or removed by something else than this object."""
        state = self._files.state()  # before the names: a file that appears between is found the next time
        if state == self._listed_state:
            return
        same_folders = state[1:] == self._listed_state[1:]  # none that may have become a series
        if same_folders and self._is_read() and self._files.names() == self._listed_names:
            self._listed_state = state
        else:
            self.refresh()

    def _is_read(self) -> bool:
        """Return whether the datastore file is the one that was last read or written."""
        try:
            return os.stat(self._datastore_config_path).st_mtime == self._config_ts
        except FileNotFoundError:
            return self._read_only  # it is made when something is first stored

    def _reconcile_datastore(self) -> None:
        """List the folder; entries whose files are gone are dropped, and files without an entry get one."""
        with self._lock:
            self._init_from_datastore_file()
            state, names = self._files.state(), self._files.names()
            found, known = self._files.list(self._datastore.objects), self._datastore.objects
            objects = {image: entry for image, entry in known.items() if f"{image}{entry.image.ext}" in found.names}
            changed = len(objects) < len(known)
            for image in sorted(found.images.keys() - objects.keys()):
                objects[image] = ImageLabelModel(image=_new_entry(image, found.images[image]))
                changed = True
            for image, entry in objects.items():
                changed |= _match_labels(image, entry, found)
            known.clear()
            known.update(objects)
            if changed:
                self._update_datastore_file()
            self._listed_state, self._listed_names = state, names

    def _update_datastore_file(self, lock: bool = True) -> None:
        if self._read_only:
            return  # changes last until the server ends
        path = Path(self._datastore_config_path)
        with self._lock, FileLock(self._lock_file):
            write_text(path, self._datastore.model_dump_json(exclude={"base_path"}))
            self._config_ts = path.stat().st_mtime


def _new_entry(image: str, suffix: str) -> DataModel:
    """Return what is known of a file that was put into the folder by hand."""
    return DataModel(info={"ts": int(time.time()), "name": f"{image}{suffix}"}, ext=suffix)


def _match_labels(image: str, entry: ImageLabelModel, found: Found) -> bool:
    """Make the labels of an image those that there are files of; return whether anything changed."""
    labels = {
        tag: label for tag, label in entry.labels.items() if f"{image}{label.ext}" in found.label_names.get(tag, ())
    }
    for tag, suffixes in found.labels.items():
        if tag not in labels and image in suffixes:
            labels[tag] = _new_entry(image, suffixes[image])
    changed = labels.keys() != entry.labels.keys() or any(labels[tag] is not entry.labels[tag] for tag in labels)
    entry.labels = labels
    return changed


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
