"""De-identify what is written: of the headers, only what is named here is kept.

This follows the Basic Application Level Confidentiality Profile (DICOM PS3.15, Annex E) with a list of what to keep
instead of a list of what to remove; docs/reference/dicom.md says what is kept, emptied and replaced.
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
_DATE, _TIME = date(2000, 1, 1), time(0, 0)  # every date and time of a de-identified object


def uid_of(*words: str) -> str:
    """Return a UID that is always the same for the same words."""
    return f"2.25.{uuid5(NAMESPACE_OID, ' '.join(words)).int}"


class Deidentifier:
    """De-identification of headers and of the objects made with them.

    One instance replaces the same UID by the same new one, so that the results of one image belong together. The new
    UIDs cannot be traced back.
    """

    def __init__(self) -> None:
        self._salt = secrets.token_hex(32)

    def uid(self, original: str) -> str:
        """Return the UID that replaces an original one."""
        return uid_of(self._salt, original)

    def header(self, original: Dataset) -> Dataset:
        """Return a header without identity."""
        header = Dataset()
        header.update({element.tag: element for element in original if element.keyword in KEPT})
        for keyword in EMPTIED:
            setattr(header, keyword, "")
        for keyword in REPLACED:
            setattr(header, keyword, self.uid(original.get(keyword)))
        return header

    def finish(self, dataset: Dataset) -> None:
        """Replace the dates and times of an object, and state in it how it was de-identified."""
        dataset.walk(_replace_date_or_time)
        dataset.PatientIdentityRemoved = "YES"
        dataset.LongitudinalTemporalInformationModified = "REMOVED"
        dataset.DeidentificationMethod = "MedCLIPAD: only geometry, modality and new UIDs kept"
        profile = codes.DCM.BasicApplicationConfidentialityProfile
        item = Dataset()
        item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = profile.value, "DCM", profile.meaning
        dataset.DeidentificationMethodCodeSequence = [item]


def _replace_date_or_time(_: Dataset, element: DataElement) -> None:
    """Set the value of a date or time element to the fixed one."""
    if element.VM:
        if element.VR == "DA":
            element.value = DA(_DATE)
        elif element.VR == "TM":
            element.value = TM(_TIME)
        elif element.VR == "DT":
            element.value = DT("20000101000000")
