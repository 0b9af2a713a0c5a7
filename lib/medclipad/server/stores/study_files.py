"""What lies in a studies folder: image files, DICOM series as sub-folders, and labels by tag; listed, never opened."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from medclipad.server.stores.datastore_file import DATASTORE_FILE
from medclipad.server.stores.dicom_folders import is_dicom_folder
from medclipad.volume.readers.pictures import PICTURES

# Of files with one name, the first suffix wins.
SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", *PICTURES)
HEADERS = (".nhdr", ".mhd")  # their voxels are in files of their own
NOT_IMAGES = ("labels", "models")  # sub-folders of a studies folder that are no series
_Times = tuple[tuple[str, int, int], ...]


def suffix_of(filename: str) -> str:
    """Return the suffix of an image or label file in lower case, such as ".nii.gz"; "" for any other file."""
    lower = filename.lower()
    return next((suffix for suffix in SUFFIXES if lower.endswith(suffix)), "")


def split_name(filename: str) -> tuple[str, str]:
    """Return the id of an image or label file, and its suffix as it is written."""
    end = len(filename) - len(suffix_of(filename))
    return filename[:end], filename[end:]


def is_text(name: str) -> bool:
    """Return whether a name is text that JSON can hold; a file from another system may have a name in raw bytes."""
    return name.isascii() or name.encode("utf-8", "replace").decode() == name


@dataclass(frozen=True)
class Found:
    """What lies in a studies folder.

    Attributes
    ----------
    names
        Names of all its files and sub-folders.
    images
        Suffix of each image file, and "" for each new series, by id.
    labels
        By tag, the suffix of each label by id.
    label_names
        By tag, the names of all files.
    """

    names: set[str]
    images: dict[str, str]
    labels: dict[str, dict[str, str]]
    label_names: dict[str, set[str]]


class StudyFiles:
    """The files of a studies folder.

    Parameters
    ----------
    folder
        The studies folder.
    labels
        Its folder with a sub-folder for each tag of labels.

    Attributes
    ----------
    unreadable
        Names of sub-folders that may not be read.
    """

    def __init__(self, folder: Path, labels: Path) -> None:
        self._folder, self._labels = str(folder), str(labels)
        self._waiting: set[str] = set()  # sub-folders without a series, which may still be filled
        self.unreadable: set[str] = set()

    def state(self) -> tuple[_Times, _Times]:
        """Return what changes when a file is added, removed or replaced, and when a sub-folder may become a series."""
        tags = [os.path.join(self._labels, tag) for tag in self._tags()]
        waiting = [os.path.join(self._folder, name) for name in sorted(self._waiting | self.unreadable)]
        return _times([self._folder, self._labels, *tags]), _times(waiting)

    def names(self) -> set[tuple[str, str]]:
        """Return the names of all files, as pairs of a tag ("" for images) and a name, without hidden ones."""
        names = {("", name) for name in os.listdir(self._folder) if not name.startswith(".") and name != DATASTORE_FILE}
        for tag in self._tags():
            names |= {(tag, name) for name in os.listdir(os.path.join(self._labels, tag)) if not name.startswith(".")}
        return names

    def list(self, known: Collection[str]) -> Found:
        """List the folder.

        Parameters
        ----------
        known
            Ids of known images: sub-folders of these names need no look inside.
        """
        with os.scandir(self._folder) as entries:
            listed = {entry.name: entry.is_dir() for entry in entries if entry.is_dir() or entry.is_file()}
        images = _best([name for name, is_folder in listed.items() if not is_folder])
        self._waiting, self.unreadable = set(), set()
        for name, is_folder in listed.items():
            is_image = (
                is_folder and not (name in images or name in NOT_IMAGES) and not name.startswith(".") and is_text(name)
            )
            if is_image and (name in known or self._is_series(name)):
                images[name] = ""
        label_names = {tag: self._files_of(tag) for tag in self._tags()}
        labels = {tag: _best(names) for tag, names in label_names.items()}
        return Found(set(listed), images, labels, {tag: set(names) for tag, names in label_names.items()})

    def _is_series(self, name: str) -> bool:
        """Return whether a sub-folder is a DICOM series; one that may not be read is left out, and counted."""
        try:
            is_series = is_dicom_folder(Path(self._folder, name))
        except OSError:
            self.unreadable.add(name)
            return False
        if not is_series:
            self._waiting.add(name)
        return is_series

    def _tags(self) -> list[str]:
        try:
            with os.scandir(self._labels) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:  # removed by hand
            return []

    def _files_of(self, tag: str) -> list[str]:
        with os.scandir(os.path.join(self._labels, tag)) as entries:
            return [entry.name for entry in entries if entry.is_file()]


def _best(names: list[str]) -> dict[str, str]:
    """Return the suffix of each image or label by id; of files with one id, that of the first in SUFFIXES."""
    usable = [name for name in names if not name.startswith(".") and suffix_of(name) and is_text(name)]
    usable.sort(key=lambda name: (-SUFFIXES.index(suffix_of(name)), name))  # the last one wins
    return dict(split_name(name) for name in usable)


def _times(folders: list[str]) -> _Times:
    """Return the times of those folders that exist; the second one changes with permissions too."""
    times = []
    for folder in folders:
        try:
            stat = os.stat(folder)
        except OSError:
            continue
        times.append((folder, stat.st_mtime_ns, stat.st_ctime_ns))
    return tuple(times)
