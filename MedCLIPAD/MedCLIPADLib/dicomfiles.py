"""What goes back to the archive: a picture as Secondary Capture, and the segmentation through Slicer's own plugin."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.results import SEGMENTATION, Result

DESCRIPTION = "MedCLIPAD, not for diagnosis"  # of the series; at most 64 characters
_PLUGIN = "DICOMSegmentationPlugin"  # of Slicer 5.12, and of the extension QuantitativeReporting before
# Copied from the series. The first are of type 2: empty where the series lacks them.
_REQUIRED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID",
    "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
_OPTIONAL = (
    "SpecificCharacterSet", "IssuerOfPatientID", "StudyDescription", "PatientAge", "PatientIdentityRemoved",
    "DeidentificationMethod", "DeidentificationMethodCodeSequence", "BodyPartExamined",
)  # fmt: skip


def series_files(volume: Any) -> list[str]:
    """Return the paths of the DICOM files that a volume was loaded from, as Slicer's database knows them.

    Raises
    ------
    ModuleError
        If there are none.
    """
    uids = (volume.GetAttribute("DICOM.instanceUIDs") or "").split() if volume is not None else []
    database = getattr(slicer, "dicomDatabase", None)
    files = [database.fileForInstance(uid) for uid in uids] if database is not None else []
    if not files or not all(file and os.path.isfile(file) for file in files):
        raise ModuleError(
            _("The volume was not loaded from Slicer's DICOM database, so no DICOM file can refer to it.")
        )
    return files


def series_header(volume: Any) -> Any:
    """Return the header of the first file of a volume's series; ModuleError if it was not loaded from DICOM."""
    import pydicom

    return pydicom.dcmread(series_files(volume)[0], stop_before_pixels=True)


def write_secondary_capture(pixels: np.ndarray, header: Any, text: str, path: Path) -> None:
    """Write a picture as DICOM Secondary Capture, in the patient's study of a series.

    Parameters
    ----------
    pixels : (rows, columns, 3) uint8 array
        The picture, RGB.
    header : pydicom.Dataset
        Header of an image of the series.
    text : str
        What the picture shows, as a comment.
    path : Path
        The file to write.

    Raises
    ------
    ModuleError
        If the file cannot be written.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import (
        PYDICOM_IMPLEMENTATION_UID,
        ExplicitVRLittleEndian,
        SecondaryCaptureImageStorage,
        generate_uid,
    )

    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # computed when it is written
    meta.FileMetaInformationVersion = b"\x00\x01"
    meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    picture = FileDataset(
        str(path), {}, preamble=b"\x00" * 128, file_meta=meta, is_implicit_VR=False, is_little_endian=True
    )
    for keyword in _REQUIRED:
        setattr(picture, keyword, header.get(keyword, ""))
    for keyword in _OPTIONAL:
        if keyword in header:
            picture[keyword] = header[keyword]
    picture.SOPClassUID, picture.SOPInstanceUID = SecondaryCaptureImageStorage, meta.MediaStorageSOPInstanceUID
    picture.StudyInstanceUID, picture.SeriesInstanceUID = header.StudyInstanceUID, generate_uid(prefix=None)
    picture.Modality, picture.ConversionType = "OT", "WSD"
    picture.Manufacturer, picture.SeriesDescription = "MedCLIPAD", DESCRIPTION
    picture.SeriesNumber, picture.InstanceNumber = 9005, 1
    picture.PatientOrientation = ""
    if "BodyPartExamined" not in picture:
        picture.Laterality = ""  # of type 2: whether an unnamed body part is one of a pair is not known
    picture.ContentDate, picture.ContentTime = time.strftime("%Y%m%d"), time.strftime("%H%M%S")
    picture.ImageComments = text.replace("\n", " ")[:10240]
    picture.BurnedInAnnotation = "YES"
    picture.SamplesPerPixel, picture.PhotometricInterpretation, picture.PlanarConfiguration = 3, "RGB", 0
    picture.Rows, picture.Columns = pixels.shape[:2]
    picture.BitsAllocated = picture.BitsStored = 8
    picture.HighBit, picture.PixelRepresentation = 7, 0
    content = pixels.tobytes()
    picture.PixelData = content + bytes(len(content) % 2)  # an even number of bytes, as DICOM requires
    picture["PixelData"].VR = "OB"
    try:
        picture.save_as(str(path))
    except OSError as error:
        raise ModuleError(_("{path} cannot be written: choose another folder or name.").format(path=path)) from error


def segmentation_plugin() -> Any:
    """Return the class of Slicer's plugin that writes DICOM segmentations; None if this Slicer has none."""
    return getattr(slicer.modules, "dicomPlugins", {}).get(_PLUGIN)


def write_segmentation(result: Result, folder: str) -> None:
    """Write the segmentation of a map as DICOM, and add it to Slicer's DICOM database.

    Parameters
    ----------
    result : Result
        The map; its volume was loaded from DICOM.
    folder : str
        Folder of the new file.

    Raises
    ------
    ModuleError
        If that is not possible; it says why.
    """
    series_files(result.volume)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    plugin = segmentation_plugin()()
    exportables = plugin.examineForExport(hierarchy.GetItemByDataNode(result.reference(SEGMENTATION)))
    for exportable in exportables:
        exportable.directory = folder
        exportable.setTag("SeriesDescription", DESCRIPTION)
    problem = plugin.export(exportables) if exportables else _("Slicer's plugin does not accept it.")
    if problem:
        raise ModuleError(_("The DICOM segmentation was not written: {problem}").format(problem=problem))
