"""Cases to evaluate on, as they are listed: images, masks, patients and subgroups; nothing is read before its turn."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from medclipad.detection.cases import AS_IS, CaseSource, Reading, Source, list_cases
from medclipad.errors import VolumeError
from medclipad.volume import Volume, require_mask

GROUPS = ("scanner", "sequence", "site")
"""Columns of a CSV file by which the figures are given apart."""
PATIENT = "patient"  # column of a CSV file: scans of the same patient are drawn together


@dataclass(frozen=True)
class EvaluationCase:
    """A volume to evaluate on.

    Attributes
    ----------
    image
        The volume, or where to read it.
    mask
        Its lesions, non-zero where abnormal, on the volume's grid; None if it is normal. One without a voxel says so
        too.
    patient
        Patient whose scan it is; None if it is the only one.
    groups
        Subgroups that it belongs to, such as {"scanner": "A"}.
    """

    image: Source
    mask: Source | None = None
    patient: str | None = None
    groups: Mapping[str, str] = field(default_factory=dict)

    def read(self, reading: Reading = AS_IS) -> tuple[Volume, Volume | None]:
        """Return the volume and its mask.

        Raises
        ------
        VolumeError
            If one cannot be read, or the mask is on another grid than its volume.
        """
        volume = reading.read(self.image)
        if self.mask is None:
            return volume, None
        mask = AS_IS.read(self.mask)
        require_mask(volume, mask)
        return volume, mask


def list_evaluation_cases(cases: Iterable[CaseSource] = (), normal: Iterable[CaseSource] = ()) -> list[EvaluationCase]:
    """Return the cases that are meant, with globs, folders and CSV files spelled out; nothing is read.

    Parameters
    ----------
    cases
        Volumes with their masks, as `list_cases` takes them. In a CSV file with the column `mask`, an empty cell stands
        for a normal volume. The columns `patient`, `scanner`, `sequence` and `site` are used if they are there.
    normal
        Normal volumes, without masks.

    Raises
    ------
    VolumeError
        If a glob or folder matches nothing, a CSV file lacks its columns, a case lacks its mask or a normal volume has
        one.
    """
    listed = []
    for source in cases:
        for case, row in _with_rows(source):
            if case.mask is None and row.get("mask") is None:  # no such column, or a row that ends before it
                raise VolumeError(
                    f'"{_name(case)}" lacks its mask: write IMAGE:MASK, or list it as a normal volume if it shows no '
                    "lesion."
                )
            listed.append(case)
    for source in normal:
        for case, _ in _with_rows(source):
            if case.mask is not None:
                raise VolumeError(f'"{_name(case)}" is listed as normal, but with a mask: give it as a case.')
            listed.append(case)
    if not listed:
        raise VolumeError("There is no case to evaluate: give volumes with masks, or normal volumes.")
    return listed


def _with_rows(source: CaseSource) -> list[tuple[EvaluationCase, Mapping[str, str | None]]]:
    """Return the cases of a source, each with its row of the CSV file; {} where there is none."""
    pairs = list_cases([source])
    rows: list[dict[str, str | None]] = [{} for _ in pairs]
    if isinstance(source, (str, Path)):
        file = Path(source).expanduser()
        if file.suffix.lower() == ".csv" and file.is_file():
            rows = list(csv.DictReader(file.read_text(encoding="utf-8-sig").splitlines()))
    return [
        (
            EvaluationCase(
                image,
                mask,
                patient=(row.get(PATIENT) or "").strip() or None,
                groups={column: (row[column] or "").strip() for column in GROUPS if column in row},
            ),
            row,
        )
        for (image, mask), row in zip(pairs, rows, strict=True)
    ]


def _name(case: EvaluationCase) -> object:
    return case.image.name if isinstance(case.image, Volume) else case.image
