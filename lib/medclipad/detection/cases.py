"""Volumes to learn from or to measure on, with what is known of their slices; given as volumes, files or globs."""

from __future__ import annotations

import csv
import glob
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np

from medclipad.errors import TrainingError, VolumeError
from medclipad.volume import Slicing, Volume, case_name, list_untrusted_series, read_untrusted, require_mask
from medclipad.volume.components import Component
from medclipad.volume.dicom.files import is_dicom
from medclipad.volume.read import SUFFIXES
from medclipad.volume.readers.pictures import PICTURES
from medclipad.volume.shelf import Shelf


@runtime_checkable
class Readable(Protocol):
    """Where a volume is and how it is read, such as a scan of a cohort."""

    @property
    def name(self) -> str:
        """Name of the volume."""
        ...

    @property
    def mask(self) -> str:
        """Path of its lesion mask; "" if none is known."""
        ...

    def read(self, reading: Reading) -> Volume:
        """Return the volume; raise VolumeError if it cannot be read."""
        ...


FilePath = str | Path
Source = Volume | FilePath | Readable
"""A volume, or where to read it."""
CaseSource = Source | tuple[Source, Source | None]
"""A volume, or a pair of a volume and its lesion mask. Text may be a glob, or name both as IMAGE:MASK."""
CaseSources = Source | Iterable[CaseSource]
"""One volume, or several with their masks or without."""

_FILES = (*SUFFIXES, *PICTURES)
TABLES = (".csv", ".tsv")
_ONE = (str, os.PathLike, Volume, Readable)  # what is no list of volumes


@dataclass(frozen=True)
class Case:
    """A volume and what is known of its slices along the plane that is learned.

    Attributes
    ----------
    volume
        The volume.
    mask
        Its lesions, on the volume's grid: slices with a voxel of it are abnormal.
    normal, abnormal
        Numbers of slices that a reader marked, counted as `Slicing` does. A marked slice with a voxel of the mask is
        abnormal. With `normal` None, all slices that are not abnormal are normal.
    held_out
        Numbers of slices that are neither learned from nor calibrated on.
    """

    volume: Volume
    mask: Volume | None = None
    normal: Sequence[int] | None = None
    abnormal: Sequence[int] = ()
    held_out: Sequence[int] = ()

    def lesions(self, slicing: Slicing) -> np.ndarray:
        """Return which slices show a voxel of the mask, bool (n_slices,).

        Raises VolumeError if the mask is on another grid than the volume.
        """
        if self.mask is None:
            return np.zeros(len(slicing), dtype=bool)
        require_mask(self.volume, self.mask)
        return np.any(slicing.slices(self.mask.array) > 0, axis=(1, 2))

    def known(self, slicing: Slicing) -> tuple[np.ndarray, np.ndarray]:
        """Return which slices are known to be normal, and which abnormal, bool (n_slices,) each.

        Held-out slices are included. Raises TrainingError if a marked slice is outside of the volume.
        """
        abnormal = self.lesions(slicing) | self._marked(self.abnormal, slicing)
        every = np.ones(len(slicing), dtype=bool)
        normal = every if self.normal is None else self._marked(self.normal, slicing)
        return normal & ~abnormal, abnormal

    def without_marks(self) -> Case:
        """Return what is known of the case in other planes than that of its marks: its mask alone.

        Without marks the slices beside the mask are normal; with marks nothing is known of them.
        """
        return self if self.normal is None else replace(self, normal=(), abnormal=(), held_out=())

    def _marked(self, numbers: Sequence[int], slicing: Slicing) -> np.ndarray:
        outside = [number for number in numbers if not 0 <= number < len(slicing)]
        if outside:
            raise TrainingError(
                f'"{self.volume.name}" has no {slicing.plane} slice {outside[0]}: give numbers from 0 to '
                f"{len(slicing) - 1}."
            )
        chosen = np.zeros(len(slicing), dtype=bool)
        chosen[list(numbers)] = True
        return chosen


@dataclass(frozen=True)
class Reading:
    """How files are read where they leave a choice; see `medclipad.read_volume`.

    Attributes
    ----------
    component
        Volume, time point or channel to take where an image has several, by its number from 0 or, of a DICOM series, by
        what tells it apart.
    series
        DICOM series to take out of several: its UID, or its number in the list of `medclipad series`.
    tilt
        What to do with a DICOM series with gantry tilt: refuse it, or resample it to upright slices.
    """

    component: Component = None
    series: str | None = None
    tilt: Literal["refuse", "resample"] = "refuse"

    def read(self, source: Source, voxel_bytes: int | None = None, check: Callable[[], None] | None = None) -> Volume:
        """Return the volume that is given or read; raise VolumeError if it cannot be read, or is larger.

        Parameters
        ----------
        source, voxel_bytes, check
            As in `read_untrusted`.
        """
        if isinstance(source, Volume):
            return source
        if isinstance(source, Readable):
            return source.read(self)
        series = self.series
        if series is not None and series.isdecimal():
            listed = list_untrusted_series(source)
            if not 1 <= int(series) <= len(listed):
                raise VolumeError(f"{source} has no series {series}: `medclipad series` lists 1 to {len(listed)}.")
            series = listed[int(series) - 1].uid
        return read_untrusted(
            source, component=self.component, series=series, tilt=self.tilt, voxel_bytes=voxel_bytes, check=check
        )


AS_IS = Reading()
"""Nothing is chosen: a file that leaves a choice is refused."""


def list_cases(sources: CaseSources) -> list[tuple[Source, Source | None]]:
    """Return pairs of volume and mask, with globs, folders of volumes and CSV files spelled out; nothing is read.

    Parameters
    ----------
    sources
        A list of volumes, paths, pairs, or texts; or one volume, path or text. A text is a file, a folder of DICOM
        files or pictures (one volume), a folder of volume files (all of them), a glob such as "normals/*.nii.gz",
        "IMAGE:MASK", or a CSV or TSV file with the columns `image` and, if there are masks, `mask`, whose paths are
        relative to it.

    Raises
    ------
    VolumeError
        If a glob or folder matches nothing, or a table has no such column.
    """
    listed: list[tuple[Source, Source | None]] = []
    several: Iterable[CaseSource] = [sources] if isinstance(sources, _ONE) else sources
    for source in several:  # a pair stands in a list: alone it would look like two volumes
        if isinstance(source, tuple):
            listed.append((source[0], source[1]))
        elif isinstance(source, Volume):
            listed.append((source, None))
        elif isinstance(source, Readable):
            listed.append((source, Path(source.mask) if source.mask else None))
        else:
            listed += _spelled_out(os.fspath(source))
    return listed


def _spelled_out(text: str) -> list[tuple[Source, Source | None]]:
    path = Path(text).expanduser()
    if path.suffix.lower() in TABLES and path.is_file():
        return _from_csv(path)
    if path.is_dir():
        return [(volume, None) for volume in volumes_in(path)]
    if path.exists():
        return [(path, None)]
    image, mask = split_mask(text)
    if mask:
        return [(Path(image).expanduser(), Path(mask).expanduser())]
    if glob.has_magic(text):
        found = sorted(glob.glob(str(path), recursive=True))
        if not found:
            raise VolumeError(f"{text} matches no file: check the folder and the pattern.")
        return [(Path(one), None) for one in found]
    return [(path, None)]  # the reader says that it is missing


def split_mask(text: str) -> tuple[str, str]:
    """Return the image and the mask of "IMAGE:MASK"; the mask is "" if there is none.

    The colon of a drive and one in the name of an existing file do not count.
    """
    if ":" not in text[2:] or Path(text).exists():
        return text, ""
    image, _, mask = text.rpartition(":")
    return image, mask


def volumes_in(folder: Path) -> list[Path]:
    """Return the volume files of a folder, or the folder itself if it holds one volume of DICOM files or pictures."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("."))
    volumes = [file for file in files if file.name.lower().endswith(SUFFIXES)]
    if not volumes or any(is_dicom(file) for file in files if not file.name.lower().endswith(_FILES)):
        return [folder]
    return volumes


def _from_csv(file: Path) -> list[tuple[Source, Source | None]]:
    rows = read_table(file)
    return [(file.parent / row["image"], file.parent / row["mask"] if row.get("mask") else None) for row in rows]


def read_table(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file, or of one with tabs (.tsv), that has a column `image`; nothing else is required.

    Raises VolumeError if it cannot be read, or an image is missing.
    """
    delimiter, kind = ("\t", "TSV") if file.suffix.lower() == ".tsv" else (",", "CSV")
    try:
        rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines(), delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VolumeError(f"{file} cannot be read as {kind}: save it again as {kind} in UTF-8.") from error
    if not rows or "image" not in rows[0]:
        raise VolumeError(f'{file} needs a first line with the column "image", and "mask" if there are masks.')
    for number, row in enumerate(rows, start=2):
        if not row["image"]:
            raise VolumeError(f"{file}, line {number}: the image is missing.")
    return rows


def read_cases(
    sources: CaseSources, reading: Reading = AS_IS, need_mask: bool = False, shelf: Shelf | None = None
) -> list[tuple[Volume, Volume | None]]:
    """Return volumes with their masks, read where they are given as files.

    Parameters
    ----------
    sources
        As `list_cases` takes them.
    reading
        How files are read where they leave a choice.
    need_mask
        Whether each volume must come with a mask.
    shelf
        Where to put the voxels of each file that is read, so that many volumes take no more memory than one.

    Raises
    ------
    VolumeError
        If something cannot be read or put there, or lacks the mask that it needs.
    """
    pairs = list_cases(sources)
    for source, mask in pairs:
        if need_mask and mask is None:
            name = source if isinstance(source, (str, Path)) else source.name
            raise VolumeError(
                f'"{name}" lacks its mask: write IMAGE:MASK, fill in the column "mask" of the CSV file, or in Python '
                "give (volume, mask)."
            )

    def read(source: Source, how: Reading) -> Volume:
        volume = how.read(source)
        return volume if shelf is None or isinstance(source, Volume) else shelf.put_volume(volume)

    return [(read(source, reading), None if mask is None else read(mask, AS_IS)) for source, mask in pairs]


def name_of(source: Source) -> str:
    """Return the name of a volume or file, as results are called after it."""
    return case_name(source) if isinstance(source, (str, Path)) else source.name
