"""Taking the identity out of what is written: the headers keep what is named here, and nothing else.

This follows the Basic Application Level Confidentiality Profile (DICOM PS3.15, Annex E) by leaving out instead of
looking for what to remove; docs/dicom.md says what is kept, emptied and replaced.
"""

from __future__ import annotations

import secrets
from datetime import date, time
from uuid import NAMESPACE_OID, uuid5

from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.valuerep import DA, DT, TM

KEPT = ("SOPClassUID", "Modality", "NumberOfFrames", "Rows", "Columns", "BurnedInAnnotation")
REPLACED = ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")
EMPTIED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip
_DAY, _HOUR = date(2000, 1, 1), time(0, 0)


def uid_of(*words: str) -> str:
    """A UID, always the same for the same words."""
    return f"2.25.{uuid5(NAMESPACE_OID, ' '.join(words)).int}"


class Deidentifier:
    """New UIDs are the same for the same old one within one object of this class, and cannot be traced back."""

    def __init__(self) -> None:
        self._salt = secrets.token_hex(32)

    def uid(self, uid: str) -> str:
        return uid_of(self._salt, uid)

    def header(self, original: Dataset) -> Dataset:
        """A header without identity."""
        header = Dataset()
        header.update({element.tag: element for element in original if element.keyword in KEPT})
        for keyword in EMPTIED:
            setattr(header, keyword, "")
        for keyword in REPLACED:
            setattr(header, keyword, self.uid(original.get(keyword)))
        return header

    def finish(self, dataset: Dataset) -> None:
        """Say in an object made from such headers what was done, and take its own dates and times away."""
        dataset.walk(_undate)
        dataset.PatientIdentityRemoved = "YES"
        dataset.LongitudinalTemporalInformationModified = "REMOVED"
        dataset.DeidentificationMethod = "MedCLIPAD: only geometry, modality and new UIDs kept"
        profile = codes.DCM.BasicApplicationConfidentialityProfile
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = profile.value, "DCM", profile.meaning
        dataset.DeidentificationMethodCodeSequence = [item]


def _undate(_: Dataset, element: DataElement) -> None:
    if element.VM:
        if element.VR == "DA":
            element.value = DA(_DAY)
        elif element.VR == "TM":
            element.value = TM(_HOUR)
        elif element.VR == "DT":
            element.value = DT("20000101000000")
