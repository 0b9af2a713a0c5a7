"""What all DICOM objects have in common: their attributes, their references, and the order of their frames."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import version
from typing import Any

import highdicom
import numpy as np
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import ParametricMapStorage, SegmentationStorage, generate_uid

from medclipad.export.dicom.source import PATIENT_AND_STUDY, DicomSource

NAME = "MedCLIPAD"
SCHEME = "99MEDCLIPAD"
ANOMALY_SCORE = Code("ANOMALY", SCHEME, "Anomaly score")
THRESHOLD = Code("THRESHOLD", SCHEME, "Anomaly threshold")
P_VALUE = Code("P_VALUE", SCHEME, "p-value among normal scans")
NORMAL_SCANS = Code("NORMAL_SCANS", SCHEME, "Normal scans that the p-value rests on")
VOLUME_SCORE = Code("VOLUME", SCHEME, "Anomaly score of volume")


def new_uid() -> str:
    """Return a new UID of the form that needs no registered root (2.25...)."""
    return generate_uid(prefix=None)


def object_attributes(detector: str, series_number: int, description: str, instance: int = 1) -> dict[str, Any]:
    """Return highdicom's keyword arguments that identify an object and what made it.

    Parameters
    ----------
    detector
        Name of the detector.
    series_number
        Number of the new series.
    description
        Description of the new series, cut to 64 characters.
    instance
        Number of the object in its series.
    """
    return {
        "series_instance_uid": new_uid(),
        "series_number": series_number,
        "series_description": description[:64],
        "sop_instance_uid": new_uid(),
        "instance_number": instance,
        "manufacturer": NAME,
        "manufacturer_model_name": NAME,
        "software_versions": version("medclipad"),
        "device_serial_number": detector[:64] or NAME,
        "coding_schemes": [CodingSchemeIdentificationItem(designator=SCHEME, name=f"{NAME}'s own codes")],
    }


def algorithm(detector: str) -> highdicom.AlgorithmIdentificationSequence:
    """Return the identification of a detector as an algorithm."""
    return highdicom.AlgorithmIdentificationSequence(
        name=f"{NAME} {detector}"[:64], family=codes.DCM.ArtificialIntelligence, version=version("medclipad")
    )


def complete(dataset: Dataset, source: DicomSource) -> Dataset:
    """Complete an object made by highdicom, in place, and return it.

    Copies patient, study and body part from the source, corrects the references to multi-frame files, puts the frames
    in slice order, and completes the de-identification if the source is de-identified.

    Parameters
    ----------
    dataset
        Object made by highdicom.
    source
        Source that it was made from.
    """
    for keyword in (*PATIENT_AND_STUDY, "SpecificCharacterSet"):
        if keyword in source.headers[0]:  # which of them highdicom copies depends on the kind of object
            dataset[keyword] = source.headers[0][keyword]
    if dataset.Modality != "SR":
        _copy_body_part(dataset, source.headers[0])
    if "PerFrameFunctionalGroupsSequence" in dataset:
        dataset.ContentCreatorName = ""
        _refer_to_frames(dataset, source)
        _put_in_slice_order(dataset)
    if source.deidentifier:
        source.deidentifier.finish(dataset)
    return dataset


def _copy_body_part(dataset: Dataset, header: Dataset) -> None:
    """Copy the body part and, unless the frames state it, its side."""
    if header.get("BodyPartExamined"):
        dataset.BodyPartExamined = header.BodyPartExamined
    if dataset.SOPClassUID == ParametricMapStorage:
        return
    if header.get("Laterality"):
        dataset.Laterality = header.Laterality
    elif "BodyPartExamined" not in dataset and dataset.SOPClassUID != SegmentationStorage:
        dataset.Laterality = ""  # of type 2: whether an unnamed body part is one of a pair is not known


def _refer_to_frames(dataset: Dataset, source: DicomSource) -> None:
    """Refer to each multi-frame file once, and to its frames.

    `DicomSource.single_images` presents each slice to highdicom as a file of its own.
    """
    if source.single_images is source.headers:
        return
    slices = {tuple(header.ImagePositionPatient): n for n, header in enumerate(source.headers)}
    for groups in dataset.PerFrameFunctionalGroupsSequence:
        n = slices[tuple(groups.PlanePositionSequence[0].ImagePositionPatient)]
        reference = groups.DerivationImageSequence[0].SourceImageSequence[0]
        reference.ReferencedSOPClassUID = source.headers[n].SOPClassUID
        reference.ReferencedFrameNumber = source.frames[n]
    sop_class = source.headers[0].SOPClassUID
    dataset.SourceImageSequence = _unique_references(dataset.SourceImageSequence, sop_class)
    for series in dataset.ReferencedSeriesSequence:
        series.ReferencedInstanceSequence = _unique_references(series.ReferencedInstanceSequence, sop_class)


def _unique_references(references: Iterable[Dataset], sop_class: str) -> list[Dataset]:
    """Return one reference for each file, with its SOP class."""
    files = {reference.ReferencedSOPInstanceUID: reference for reference in references}
    for reference in files.values():
        reference.ReferencedSOPClassUID = sop_class
    return list(files.values())


def _put_in_slice_order(dataset: Dataset) -> None:
    """Let the frames of each segment ascend along the slice normal, as the source's slices do.

    highdicom stores them the other way round; readers that rely on DICOM's right-handed order would mirror them.
    """
    groups = list(dataset.PerFrameFunctionalGroupsSequence)
    index = [np.atleast_1d(item.FrameContentSequence[0].DimensionIndexValues).tolist() for item in groups]
    last = max(values[-1] for values in index) + 1
    order = sorted(range(len(groups)), key=lambda n: (index[n][:-1], -index[n][-1]))
    for n, item in enumerate(groups):
        item.FrameContentSequence[0].DimensionIndexValues = [*index[n][:-1], last - index[n][-1]]
    dataset.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]
    if "FloatPixelData" in dataset:
        frames = np.frombuffer(dataset.FloatPixelData, "<f4").reshape(len(groups), -1)
        dataset.FloatPixelData = frames[order].tobytes()
    else:
        size = dataset.Rows * dataset.Columns
        bits = np.unpackbits(np.frombuffer(dataset.PixelData, np.uint8), bitorder="little")
        packed = np.packbits(bits[: len(groups) * size].reshape(len(groups), size)[order].ravel(), bitorder="little")
        dataset.PixelData = packed.tobytes() + bytes(len(packed) % 2)  # an even number of bytes, as DICOM requires
