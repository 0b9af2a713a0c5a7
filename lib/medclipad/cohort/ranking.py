"""Rank scans of which nothing is known: each is held against a memory of the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from medclipad.cohort.listing import Scan
from medclipad.detection.cases import Reading
from medclipad.detection.fit import fit
from medclipad.detection.storage import read_info
from medclipad.errors import MedCLIPADError
from medclipad.files import sha256_of_text
from medclipad.volume import Volume
from medclipad.volume.progress import Progress, no_progress
from medclipad.volume.shelf import Shelf

FOLDS = 4
"""Parts of a cohort; the scans of one are held against a memory of the other three."""
REMEMBERED = 40  # scans in a memory at most: each is looked at
NOTE = "Ranked by the distance from the other scans of the cohort, most of which are taken to be normal."


def fit_folds(
    scans: Sequence[Scan], out: Path, reading: Reading, progress: Progress = no_progress, **options: Any
) -> tuple[list[Scan], list[Path]]:
    """Make a detector of each part's other scans, and say which detector each scan is held against.

    Detectors that an earlier run has made are kept. Nothing is promised about false alarms: no scan is known to be
    normal, so their p-values are not given.

    Parameters
    ----------
    scans
        The scans; those that cannot be read are left out of the memories.
    out
        Folder of the results; the detectors come into `detectors/`.
    reading
        How files are read where they leave a choice.
    progress
        As in `medclipad.fit`.
    **options
        Options of the fits, as in `medclipad.fit`.

    Returns
    -------
    scans
        With the number of a detector in `fold`, which has not seen the scan.
    detectors
        Folders of the detectors.

    Raises
    ------
    MedCLIPADError
        If fewer than two scans of the others can be read.
    """
    order = sorted(scans, key=lambda scan: sha256_of_text(scan.name))  # at random, but always the same
    folders = [out / "detectors" / f"part-{fold + 1}" for fold in range(FOLDS)]
    for fold, folder in enumerate(folders):
        if folder.is_dir():
            continue
        others = [scan for index, scan in enumerate(order) if index % FOLDS != fold]
        volumes = _read(others, reading)
        if len(volumes) < 2:
            raise MedCLIPADError(
                f"{len(scans)} scans are too few to be held against each other: give more that can be read."
            )
        detector = fit(normal=volumes, name=f"others of part {fold + 1}", progress=progress, **options)
        detector.info.calibration = detector.info.calibration.model_copy(update={"basis": "none"})
        detector.save(folder)
    seen = [{entry["volume"] for entry in read_info(folder).training_slices} for folder in folders]
    return [replace(scan, fold=_not_seen(scan, seen)) for scan in scans], folders


def _read(scans: Sequence[Scan], reading: Reading) -> list[Volume]:
    """Return the first volumes that can be read."""
    shelf, volumes = Shelf(), list[Volume]()
    for scan in scans:
        if len(volumes) == REMEMBERED:
            break
        try:
            volume = scan.read(reading)
        except MedCLIPADError:  # its row says why
            continue
        volumes.append(shelf.put_volume(volume))
    return volumes


def _not_seen(scan: Scan, seen: Sequence[set[str]]) -> int:
    """Return the first detector, counted from one that depends on the name, that did not learn from a scan."""
    start = int(sha256_of_text(scan.name)[:8], 16)
    for step in range(len(seen)):
        fold = (start + step) % len(seen)
        if scan.name not in seen[fold]:
            return fold
    raise MedCLIPADError(f'All detectors have learned from "{scan.name}": choose another folder for the results.')
