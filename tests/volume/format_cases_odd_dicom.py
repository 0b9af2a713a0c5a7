"""Odd and damaged DICOM series: nothing may be lost or misplaced without a note or an error."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pydicom
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.uid import PositronEmissionTomographyImageStorage

from tests.volume.format_case import Case
from tests.volume.format_cases_dicom import ALL, stack
from tests.volume.volume_cases import enhanced, functional, save


def changed(change: Callable[[Path], Any], source: Callable[[Path], Path] | None = None):
    """Return a maker of a stack whose folder is changed after it is written."""

    def make(folder: Path) -> Path:
        home = (source or stack())(folder)
        change(home)
        return home

    return make


def multiframe(order=(4.0, 0.0, 2.0), change: Callable[[Dataset], Any] = lambda dataset: None):
    """Return a maker of one enhanced multi-frame file of slices in this order of height, changed before it is saved."""

    def make(folder: Path) -> Path:
        home = stack(list(order))(folder)
        dataset = enhanced([pydicom.dcmread(file) for file in sorted(home.iterdir())])
        shutil.rmtree(home)
        change(dataset)
        return save(dataset, folder / "case.dcm")

    return make


def medium(folder: Path) -> Path:
    """Make a DICOMDIR of one series of three slices, as pydicom writes it."""
    tags = {"StudyDate": "20240905", "StudyTime": "101112", "StudyID": "1", "SeriesNumber": 1}
    home = stack([0, 2, 4], **tags)(folder)
    files = FileSet()
    for file in sorted(home.iterdir()):
        files.add(file)
    files.write(folder / "medium")
    shutil.rmtree(home)
    return folder / "medium" / "DICOMDIR"


def _with_decoys(dataset: Dataset) -> None:
    """Add positions and slopes in sequences where they belong to something else."""
    dataset.ImagePositionPatient, dataset.PixelSpacing, dataset.RescaleSlope = [0, 0, 0], [9, 9], 5
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        decoy = {"ImagePositionPatient": [1, 1, 1], "RescaleSlope": 7, "RescaleIntercept": 1}
        groups.update(functional(DerivationImageSequence=decoy))
        own = Dataset()
        own.PixelSpacing, own.RescaleSlope = [8, 8], 9
        groups.private_block(0x2005, "A MAKER", create=True).add_new(1, "SQ", [own])


def _scaled_frames(dataset: Dataset) -> None:
    for n, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        scale = {"RescaleSlope": n + 1, "RescaleIntercept": -n, "RescaleType": "US"}
        groups.update(functional(PixelValueTransformationSequence=scale))


def _without_a_place(dataset: Dataset) -> None:
    del dataset.PerFrameFunctionalGroupsSequence[1].PlanePositionSequence


def _one_more(home: Path) -> None:
    file = next(home.parent.rglob("IM*"))
    shutil.copy(file, file.with_name("IM9"))


def _beside(home: Path) -> None:
    for name in ("._0.dcm", ".DS_Store", "Thumbs.db"):
        (home / name).write_bytes(b"x" * 200)


_SLOPES = {"Modality": "PT", "SOPClassUID": PositronEmissionTomographyImageStorage}
ODD = [
    Case("DICOMDIR of one series", medium),
    Case(
        "DICOMDIR that does not list all files",
        changed(_one_more, medium),
        refused="it lists 3 of the 4 DICOM files in their folders; pass the folder",
    ),
    Case(
        "DICOMDIR that lists a damaged file",
        changed(lambda home: next(home.parent.rglob("IM*2")).write_bytes(bytes(500)), medium),
        refused="it lists IM000002, which is not DICOM; copy the whole medium again",
    ),
    Case(
        "a damaged slice, by its name",
        changed(lambda home: (home / "4.dcm").write_bytes(b"")),
        refused="4.dcm is named as a DICOM file but is not one; copy it again, or remove it",
    ),
    Case(
        "a damaged slice, not by its name",
        changed(lambda home: (home / "2.dcm").rename(home / "IM4").write_bytes(bytes(500))),
        note="1 file that is not DICOM was left out (IM4)",
    ),
    Case(
        "a slice cut off in its header",
        changed(lambda home: (home / "4.dcm").write_bytes((home / "4.dcm").read_bytes()[:330])),
        refused="4.dcm: the file is damaged or not what its name says",
    ),
    Case("files that macOS and Windows put beside", changed(_beside)),
    Case("a folder that links to itself", changed(lambda home: (home / "again").symlink_to(home))),
    Case("frames of one file, in any order", multiframe(), readers=("pydicom",)),
    Case("frames with slopes of their own", multiframe(change=_scaled_frames), readers=("pydicom",)),
    Case("frames beside other places and slopes", multiframe(change=_with_decoys)),
    Case(
        "a frame without its place",
        multiframe(change=_without_a_place),
        refused="it does not say where in the patient its pixels lie",
    ),
    Case(
        "fewer frames than are described",
        multiframe(change=lambda dataset: setattr(dataset, "NumberOfFrames", 2)),
        refused="it describes 3 frames but announces 2",
    ),
    Case(
        "two frames of reference in one series",
        stack(each=lambda n: {"FrameOfReferenceUID": f"1.2.{n // 3}"}),
        refused="it holds images of 2 frames of reference under one series UID; move those that belong together to a",
    ),
    Case(
        "two patients in one series",
        stack(each=lambda n: {"PatientID": f"{n // 3}"}),
        refused="it holds images of 2 patients under one series UID",
    ),
    Case(
        "directions that are not at right angles",
        stack(orientation=(1, 0, 0, 0.005, 1, 0)),
        refused="its row and column directions are not perpendicular unit vectors",
    ),
    Case(
        "negative pixel spacing",
        stack(PixelSpacing=[-1, -1]),
        refused="it does not say where in the patient its pixels lie",
    ),
    Case(
        "negative spacing between slices",
        stack(SpacingBetweenSlices=-2),
        readers=("pydicom",),
        remark="their places count",
    ),
    Case(
        "PET, a slope for each slice",
        stack(**_SLOPES, each=lambda n: {"RescaleSlope": 0.1 + n, "RescaleIntercept": 0}),
        readers=("pydicom",),
    ),
    Case(
        "a slope for some slices only",
        stack(each=lambda n: {"RescaleSlope": 2} if n > 2 else {}),
        readers=("pydicom",),
    ),
    Case("window of width 0", stack(WindowWidth=0, WindowCenter=40), readers=ALL, remark="windows change no value"),
    Case(
        "12 bits from the highest bit on",
        stack(BitsStored=12, HighBit=15),
        refused="its pixel values do not start at the lowest bit, which is not supported",
    ),
    Case(
        "12 bits, packed",
        stack(BitsAllocated=12, BitsStored=12, HighBit=11),
        refused="its pixels (Explicit VR Little Endian) cannot be decoded",
    ),
    Case(
        "more pixels than the header says",
        stack(change=lambda dataset: setattr(dataset, "PixelData", dataset.PixelData * 2)),
        refused="its pixels (Explicit VR Little Endian) cannot be decoded (960 bytes of pixels more than its header",
    ),
]
