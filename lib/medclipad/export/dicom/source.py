"""The images that a volume was read from: what the objects made from it copy and refer to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pydicom.valuerep import DS, validate_value

from medclipad.errors import VolumeError
from medclipad.export.dicom.deidentify import Deidentifier, uid_of
from medclipad.volume import Volume
from medclipad.volume.dicom.files import dicom_files, is_dicom
from medclipad.volume.read_errors import volume_errors
from medclipad.volume.volume import LPS_TO_RAS

# Copied as they are. The first are of type 2 in every object: empty where the source lacks them.
REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
PATIENT_AND_STUDY = (
    *REQUIRED, "IssuerOfPatientID", "TypeOfPatientID", "OtherPatientIDsSequence", "PatientBirthTime", "EthnicGroup",
    "PatientComments", "PatientIdentityRemoved", "DeidentificationMethod", "DeidentificationMethodCodeSequence",
    "LongitudinalTemporalInformationModified", "StudyDescription", "PhysiciansOfRecord",
    "NameOfPhysiciansReadingStudy", "ProcedureCodeSequence", "IssuerOfAccessionNumberSequence",
    "AdmittingDiagnosesDescription", "PatientAge", "PatientSize", "PatientWeight", "Occupation",
    "AdditionalPatientHistory", "ClinicalTrialSponsorName", "ClinicalTrialProtocolID", "ClinicalTrialProtocolName",
    "ClinicalTrialSiteID", "ClinicalTrialSiteName", "ClinicalTrialSubjectID", "ClinicalTrialSubjectReadingID",
    "ClinicalTrialTimePointID", "ClinicalTrialTimePointDescription",
)  # fmt: skip
OTHER = ("SpecificCharacterSet", "PositionReferenceIndicator", "BodyPartExamined", "Laterality")
IDENTITY = (
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "NumberOfFrames", "Rows", "Columns", "BurnedInAnnotation",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class DicomSource:
    """headers: one a slice of the volume's last axis, in its order, each on the volume's own regular grid.

    frames: number of the slice within its file, from 1; None for a file of a single image.
    deidentifier: what has taken the identity out of the headers, if anything has.
    """

    headers: list[Dataset]
    frames: list[int | None]
    deidentifier: Deidentifier | None = None

    @property
    def single_images(self) -> list[Dataset]:
        """The headers for highdicom, which can refer to single images only where not all frames of one file are
        meant: each slice as an image of its own."""
        if all(number is None for number in self.frames):
            return self.headers
        images = [_copied(header) for header in self.headers]
        for image in images:
            del image.SOPClassUID  # the copies share their elements
            image.SOPClassUID = MRImageStorage
        return images

    @property
    def burned_in(self) -> bool:
        """Whether the images say that text is written into their pixels."""
        return any(header.get("BurnedInAnnotation") == "YES" for header in self.headers)


def require_images(volume: Volume) -> None:
    """Raise VolumeError unless the volume lies on the images of a DICOM series, which can be told apart."""
    instances = volume.metadata.get("dicom", {}).get("instances")
    if instances is None:
        raise VolumeError(
            f"{volume.name}: it does not lie on the images of a DICOM series, to which DICOM results must refer; "
            "write other formats, or pass the original series."
        )
    if not instances:
        raise VolumeError(
            f"{volume.name}: it was resampled, so that it does not lie on the images of its DICOM series, to which "
            "DICOM results must refer; write other formats."
        )
    if len({tuple(one) for one in instances}) < len(instances):
        raise VolumeError(
            f"{volume.name}: several of its images have the same SOP Instance UID, so that DICOM results cannot refer "
            "to them; write other formats, or export the series again."
        )


def read_source(path: str | Path | Sequence[str | Path], volume: Volume, deidentify: bool = False) -> DicomSource:
    """The source of `volume`, which `read_volume(path)` has read.

    deidentify: keep nothing of the headers but geometry, modality and new UIDs (see docs/dicom.md).

    Raises VolumeError if the volume does not come from DICOM, or its images are no longer in `path`.
    """
    require_images(volume)
    instances = volume.metadata["dicom"]["instances"]
    source = Path(path).expanduser() if isinstance(path, (str, Path)) else [Path(file) for file in path]
    found = _headers(source, {uid for uid, _ in instances})
    if any(uid not in found for uid, _ in instances):
        raise VolumeError(f"{volume.name}: its images are no longer in {path}; pass the folder that it was read from.")
    deidentifier = Deidentifier() if deidentify else None
    originals = {uid: deidentifier.header(header) if deidentifier else header for uid, header in found.items()}
    placed = [_on_grid(originals[uid], volume, k) for k, (uid, _) in enumerate(instances)]
    frames = [number if "NumberOfFrames" in found[uid] else None for uid, number in instances]
    return DicomSource(placed, frames, deidentifier)


def _headers(source: Path | Sequence[Path], wanted: set[str]) -> dict[str, Dataset]:
    found = {}
    with dicom_files(source) as (files, _):
        for path in files:
            if not is_dicom(path):
                continue
            with volume_errors(path):
                header = pydicom.dcmread(
                    path, stop_before_pixels=True, force=True, specific_tags=[*PATIENT_AND_STUDY, *OTHER, *IDENTITY]
                )
                if header.get("SOPInstanceUID") in wanted:
                    found[header.SOPInstanceUID] = _completed(header)
    return found


def _completed(header: Dataset) -> Dataset:
    """The header with what every object must have; a value that DICOM does not allow becomes an empty one."""
    for keyword in (*PATIENT_AND_STUDY, *OTHER):
        if not _is_valid(header, keyword):
            header.pop(keyword, None)
            if keyword in (*REQUIRED, "PositionReferenceIndicator"):
                setattr(header, keyword, "")
    if header.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethodCodeSequence" not in header:
        header.DeidentificationMethod = header.get("DeidentificationMethod", "not said by the source")
    if not header.get("FrameOfReferenceUID"):  # a series has one frame of reference at most, so it can stand for it
        header.FrameOfReferenceUID = uid_of("frame of reference of", header.SeriesInstanceUID)
    return header


def _is_valid(header: Dataset, keyword: str) -> bool:
    """Whether there is a value that DICOM allows."""
    if not header.get(keyword):
        return False
    element = header[keyword]
    if keyword == "PatientSex":
        return element.value in ("M", "F", "O")
    try:
        for value in element.value if element.VM > 1 else [element.value]:
            validate_value(element.VR, value, pydicom.config.RAISE)
    except (ValueError, TypeError):
        return False
    return True


def _on_grid(header: Dataset, volume: Volume, k: int) -> Dataset:
    """A copy of the header as of a single image, in the place of slice k."""
    lps = LPS_TO_RAS @ volume.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    along_row, along_column = (lps[:3, :2] / spacing[:2]).T
    placed = _copied(header)
    placed.pop("NumberOfFrames", None)
    placed.ImageOrientationPatient = _decimals([*along_row, *along_column])
    placed.ImagePositionPatient = _decimals(lps[:3, 3] + k * lps[:3, 2])
    placed.PixelSpacing = _decimals([spacing[1], spacing[0]])
    placed.SliceThickness, placed.SpacingBetweenSlices = _decimals([spacing[2], spacing[2]])
    return placed


def _copied(header: Dataset) -> Dataset:
    copied = Dataset()
    copied.update({element.tag: element for element in header})
    return copied


def _decimals(values: Sequence[float]) -> list[DS]:
    return [DS(round(float(value), 10) + 0.0, auto_format=True) for value in values]
