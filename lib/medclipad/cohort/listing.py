"""The scans of a cohort: what a folder, BIDS dataset, table or DICOMweb query holds, as one list. No voxel is read."""

from __future__ import annotations

import csv
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from medclipad.detection.cases import TABLES, Reading, read_table, volumes_in
from medclipad.errors import MedCLIPADError, VolumeError
from medclipad.files import sha256_of_text
from medclipad.volume import Volume, case_name, list_untrusted_series, read_untrusted
from medclipad.volume.dicom.files import is_dicom
from medclipad.volume.read import SUFFIXES
from medclipad.volume.readers.pictures import PICTURES

if TYPE_CHECKING:
    from medclipad.server.stores.pacs import RemoteSeries

DESCRIPTION = "dataset_description.json"
"""File by which a BIDS dataset is known."""
BIDS_IMAGES = "sub-*/**/anat/*.nii*"
LONGEST = 120  # bytes of a name: file systems take 255, and suffixes come behind it


@dataclass(frozen=True)
class Scan:
    """A volume of a cohort, and where it is.

    Attributes
    ----------
    name
        Its name, which no other scan of the cohort has and which is valid in file names.
    source
        Path of a file or folder, or address of a DICOMweb archive.
    series
        DICOM series of the folder, if it holds several.
    remote
        Series of the archive.
    mask
        Path of its lesion mask; "" if none is known.
    group
        What it is counted with, such as "control"; "" if nothing is known.
    bids
        Its path within a BIDS dataset, such as "sub-01/anat/sub-01_T1w.nii.gz"; "" if it is in none.
    state
        Size and time of its files; a scan whose files have changed is analysed again.
    fold
        Which of the detectors analyses it.
    """

    name: str
    source: str
    series: str | None = None
    remote: RemoteSeries | None = None
    mask: str = ""
    group: str = ""
    bids: str = ""
    state: str = ""
    fold: int = 0

    def read(self, reading: Reading) -> Volume:
        """Return the volume, named as the scan; raise VolumeError if it cannot be read."""
        if self.remote is None:
            volume = replace(reading, series=self.series or reading.series).read(self.source)
        else:
            from medclipad.server.stores.pacs import Pacs  # it needs a package that other cohorts do not

            with tempfile.TemporaryDirectory(prefix="medclipad-series-") as folder:
                Pacs.from_environment(self.source).fetch(self.remote, Path(folder))
                volume = read_untrusted(folder, component=reading.component, tilt=reading.tilt)
        return replace(volume, name=self.name)


def list_scans(source: str, without: Path | None = None, suffix: str | None = None) -> list[Scan]:
    """Return the scans of a cohort, in the order of their names.

    Parameters
    ----------
    source
        A folder (searched with all folders below it), a BIDS dataset, a CSV or TSV file with the columns `image` and,
        if known, `mask`, `group` and `name`, or the address of a DICOMweb archive, with a query such as
        "?StudyDate=20260101-&Modality=MR" behind it.
    without
        Folder that is not searched, such as that of the results.
    suffix
        Suffix of the images of a BIDS dataset, such as "T1w"; needed if they have several.

    Raises
    ------
    VolumeError
        If there is no volume, a folder cannot be read, or two scans have the same name.
    """
    path = Path(source).expanduser()
    if source.startswith(("http://", "https://")):
        scans = _from_archive(source)
    elif path.is_file() and path.suffix.lower() in TABLES:
        scans = _from_table(path)
    elif (path / DESCRIPTION).is_file():
        scans = _from_bids(path, suffix)
    elif path.is_dir():
        scans = list(_from_folder(path.resolve(), without and without.resolve()))
    else:
        raise VolumeError(f"{source} is no folder, CSV or TSV file, or address of an archive: check it.")
    if not scans:
        raise VolumeError(f"{source} holds no volume: check the folder or the query.")
    names = Counter(scan.name for scan in scans)
    name, times = names.most_common(1)[0]
    if times > 1:
        raise VolumeError(f'{times} scans are called "{name}": tell them apart in a column "name" of a CSV file.')
    return sorted(scans, key=lambda scan: scan.name)


def _from_table(file: Path) -> list[Scan]:
    scans = []
    for row in read_table(file):
        image = file.parent / row["image"]
        name = _name(row.get("name") or case_name(image))
        mask = str(file.parent / row["mask"]) if row.get("mask") else ""
        scans.append(Scan(name, str(image), mask=mask, group=row.get("group") or "", state=state_of(image)))
    return scans


def _from_bids(root: Path, suffix: str | None) -> list[Scan]:
    found = [file for file in sorted(root.glob(BIDS_IMAGES)) if file.name.lower().endswith(SUFFIXES)]
    suffixes = sorted({case_name(file).rpartition("_")[2] for file in found})
    if suffix is None and len(suffixes) > 1:
        raise VolumeError(f"{root} holds images of several kinds, {', '.join(suffixes)}: choose one with --suffix.")
    groups = _groups(root / "participants.tsv")
    return [
        Scan(
            _name(case_name(file)),
            str(file),
            group=groups.get(file.relative_to(root).parts[0], ""),
            bids=file.relative_to(root).as_posix(),
            state=state_of(file),
        )
        for file in found
        if suffix in (None, case_name(file).rpartition("_")[2])
    ]


def _groups(participants: Path) -> dict[str, str]:
    """Return the column `group` of participants.tsv by participant, {} if there is none."""
    if not participants.is_file():
        return {}
    try:
        rows = csv.DictReader(participants.read_text(encoding="utf-8-sig").splitlines(), delimiter="\t")
        return {row["participant_id"]: row.get("group") or "" for row in rows if row.get("participant_id")}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise VolumeError(f"{participants} cannot be read as TSV: save it again as TSV in UTF-8.") from error


def _from_folder(root: Path, without: Path | None) -> Iterator[Scan]:
    """Yield the volume files below a folder, and the folders that are a volume of DICOM files or pictures."""

    def refuse(error: OSError) -> None:
        raise VolumeError(f"{error.filename} cannot be read ({error.strerror}): change its permissions.") from error

    for text, folders, names in os.walk(root, onerror=refuse):
        folder = Path(text)
        folders[:] = [name for name in folders if not name.startswith(".") and folder / name != without]
        files = [folder / name for name in names if not name.startswith(".")]
        if not any(_may_be_image(file) for file in files):
            continue
        for path in volumes_in(folder):
            relative = path.relative_to(root)
            name = "_".join([*relative.parts[:-1], case_name(path)]) if relative.parts else root.name
            if path != folder:
                yield Scan(_name(name), str(path), state=state_of(path))
            else:
                folders.clear()  # reading a folder takes in those below it
                yield from _series_of(folder, name)


def _may_be_image(file: Path) -> bool:
    return file.name.lower().endswith((*SUFFIXES, *PICTURES)) or (file.is_file() and is_dicom(file))


def _series_of(folder: Path, name: str) -> Iterator[Scan]:
    """Yield the DICOM series of a folder, or the folder itself if it holds one, or pictures."""
    state = state_of(folder)
    try:
        series = [found.uid for found in list_untrusted_series(folder)]
    except VolumeError:  # reading it says why, in its row
        series = []
    if len(series) < 2:
        yield Scan(_name(name), str(folder), state=state)
        return
    for uid in series:
        yield Scan(_name(f"{name}_{uid}"), str(folder), series=uid, state=state)


def _from_archive(address: str) -> list[Scan]:
    try:
        from medclipad.server.stores.pacs import Pacs
    except ImportError as error:
        raise MedCLIPADError('DICOMweb needs a package more: run pip install "medclipad[cohort]".') from error
    parts = urlsplit(address)
    if parts.username or parts.password:
        raise VolumeError("Give user and password as MEDCLIPAD_PACS_USER and MEDCLIPAD_PACS_PASSWORD, not here.")
    url = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    pacs = Pacs.from_environment(url, dict(parse_qsl(parts.query)) or None)
    return [Scan(series.uid, url, remote=series) for series in pacs.images()]


def _name(text: str) -> str:
    """Return a text as a name that is valid in file names, with a part of its hash where it is cut."""
    clean = re.sub(r"[^\w.+-]+", "_", text).strip(".")
    if len(clean.encode()) <= LONGEST:
        return clean
    return f"{clean.encode()[:LONGEST].decode(errors='ignore')}-{sha256_of_text(text)[:8]}"


def state_of(path: Path) -> str:
    """Return size and time of a file, or of all files below a folder; "" if it is missing."""
    try:
        files: Sequence[Path] = [file for file in path.rglob("*") if file.is_file()] if path.is_dir() else [path]
        states = [file.stat() for file in files]
    except OSError:  # reading it says why, in its row
        return ""
    return f"{len(states)} {sum(s.st_size for s in states)} {max((s.st_mtime_ns for s in states), default=0)}"
