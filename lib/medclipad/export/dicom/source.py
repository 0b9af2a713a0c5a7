"""The images that a volume was read from, which the objects made from it copy from and refer to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import pydicom
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage
from pydicom.valuerep import DSfloat, validate_value

from medclipad.errors import VolumeError
from medclipad.export.dicom.deidentify import Deidentifier, uid_of
from medclipad.volume import Volume
from medclipad.volume.dicom.files import dicom_files, is_dicom
from medclipad.volume.read_errors import volume_errors
from medclipad.volume.volume import LPS_TO_RAS

# Copied unchanged. These are of type 2 in every object: empty where the source lacks them.
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
    """Headers of the images that a volume was read from.

    Attributes
    ----------
    headers
        A header for each slice along the volume's last axis, in its order, each on the volume's own regular grid.
    frames
        Number of each slice within its file, counted from 1; None for a file of a single image.
    deidentifier
        What removed the identity from the headers; None if they hold the patient's identity.
    """

    headers: list[Dataset]
    frames: list[int | None]
    deidentifier: Deidentifier | None = None

    @property
    def single_images(self) -> list[Dataset]:
        """The headers for highdicom, each slice as an image of its own.

        highdicom can refer to some frames of a file only if each of them is an image.
        """
        if all(number is None for number in self.frames):
            return self.headers
        images = [_shallow_copy(header) for header in self.headers]
        for image in images:
            del image.SOPClassUID  # the copies share their elements: replace the element, do not change it
            image.SOPClassUID = MRImageStorage
        return images

    @property
    def burned_in(self) -> bool:
        """Whether the images declare text burned into their pixels."""
        return any(header.get("BurnedInAnnotation") == "YES" for header in self.headers)


def require_images(volume: Volume) -> None:
    """Raise VolumeError unless the volume lies on the distinct images of a DICOM series."""
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
    if len({tuple(instance) for instance in instances}) < len(instances):
        raise VolumeError(
            f"{volume.name}: several of its images have the same SOP Instance UID, so that DICOM results cannot refer "
            "to them; write other formats, or export the series again."
        )


def read_source(path: str | Path | Sequence[str | Path], volume: Volume, deidentify: bool = False) -> DicomSource:
    """Read the headers of the images that a volume was read from.

    Parameters
    ----------
    path
        What the volume was read from, as given to `read_volume`.
    volume
        The volume.
    deidentify
        Keep nothing of the headers but geometry, modality and new UIDs, see `Deidentifier`.

    Raises
    ------
    VolumeError
        If the volume does not come from DICOM, or its images are no longer in `path`.
    """
    require_images(volume)
    instances = volume.metadata["dicom"]["instances"]
    source = Path(path).expanduser() if isinstance(path, (str, Path)) else [Path(file) for file in path]
    found = _read_headers(source, {uid for uid, _ in instances})
    if any(uid not in found for uid, _ in instances):
        raise VolumeError(f"{volume.name}: its images are no longer in {path}; pass the folder that it was read from.")
    deidentifier = Deidentifier() if deidentify else None
    originals = {uid: deidentifier.header(header) if deidentifier else header for uid, header in found.items()}
    headers = [_on_grid(originals[uid], volume, k) for k, (uid, _) in enumerate(instances)]
    frames = [number if "NumberOfFrames" in found[uid] else None for uid, number in instances]
    return DicomSource(headers, frames, deidentifier)


def _read_headers(source: Path | Sequence[Path], uids: set[str]) -> dict[str, Dataset]:
    """Return the headers of the images with these SOP Instance UIDs, by UID."""
    found = {}
    with dicom_files(source) as (files, _):
        for path in files:
            if not is_dicom(path):
                continue
            with volume_errors(path):
                header = pydicom.dcmread(
                    path, stop_before_pixels=True, force=True, specific_tags=[*PATIENT_AND_STUDY, *OTHER, *IDENTITY]
                )
                if header.get("SOPInstanceUID") in uids:
                    found[header.SOPInstanceUID] = _with_required_elements(header)
    return found


def _with_required_elements(header: Dataset) -> Dataset:
    """Return the header with what every object must have; values that DICOM does not allow are removed or emptied."""
    for keyword in (*PATIENT_AND_STUDY, *OTHER):
        if not _is_valid(header, keyword):
            header.pop(keyword, None)
            if keyword in (*REQUIRED, "PositionReferenceIndicator"):
                setattr(header, keyword, "")
    if header.get("PatientIdentityRemoved") == "YES" and "DeidentificationMethodCodeSequence" not in header:
        header.DeidentificationMethod = header.get("DeidentificationMethod", "not stated by the source")
    if not header.get("FrameOfReferenceUID"):  # a series has at most one frame of reference, so its UID can stand in
        header.FrameOfReferenceUID = uid_of("frame of reference of", header.SeriesInstanceUID)
    return header


def _is_valid(header: Dataset, keyword: str) -> bool:
    """Return whether the header has a value that DICOM allows."""
    if not header.get(keyword):
        return False
    element = header[keyword]
    if keyword == "PatientSex":
        return element.value in ("M", "F", "O")
    try:
        for value in element.value if element.VM > 1 else [element.value]:
            validate_value(element.VR, value, config.RAISE)
    except (ValueError, TypeError):
        return False
    return True


def _on_grid(header: Dataset, volume: Volume, k: int) -> Dataset:
    """Return a copy of the header as that of a single image, at the position of slice k."""
    lps = LPS_TO_RAS @ volume.affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    along_row, along_column = (lps[:3, :2] / spacing[:2]).T
    placed = _shallow_copy(header)
    placed.pop("NumberOfFrames", None)
    placed.ImageOrientationPatient = _decimals([*along_row, *along_column])
    placed.ImagePositionPatient = _decimals(lps[:3, 3] + k * lps[:3, 2])
    placed.PixelSpacing = _decimals([spacing[1], spacing[0]])
    placed.SliceThickness, placed.SpacingBetweenSlices = _decimals([spacing[2], spacing[2]])
    return placed


def _shallow_copy(header: Dataset) -> Dataset:
    """Return a copy that shares its elements with the original."""
    copied = Dataset()
    copied.update({element.tag: element for element in header})
    return copied


def _decimals(values: Iterable[float]) -> list[DSfloat]:
    """Return numbers as decimal strings, without the noise of floating point beyond ten decimals."""
    rounded = (round(float(value), 10) + 0.0 for value in values)  # + 0.0 makes -0.0 a 0.0
    # pydicom declares None and text as well, which it returns for None and empty text.
    return [cast(DSfloat, DSfloat(value, auto_format=True)) for value in rounded]
