"""DICOM: the single frames of a file and where they lie."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage

from medclipad.errors import VolumeError

# What may tell images at the same place apart, most telling first; in multi-frame files from the functional groups.
VARYING_TAGS = (
    "TemporalPositionIdentifier", "TemporalPositionIndex", "EchoTime", "EffectiveEchoTime", "InversionTime",
    "DiffusionBValue", "TriggerTime", "ComplexImageComponent", "ImageType", "FrameType", "AcquisitionNumber",
    "AcquisitionTime", "ContentTime", "ReferencedSegmentNumber",
)  # fmt: skip

HEADER_TAGS = (
    *VARYING_TAGS, "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID",
    "SeriesInstanceUID", "FrameOfReferenceUID", "SeriesDescription", "Modality", "NumberOfFrames", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelPaddingValue", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip

_EXPORT = "export the original axial, coronal or sagittal images"


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice: where it lies (LPS mm, as in DICOM) and how its stored values become the modality's."""

    path: Path
    number: int  # within the file, from 0
    position: np.ndarray  # (3,) centre of the first pixel
    orientation: np.ndarray  # (2, 3) unit vectors along a row (columns grow) and along a column (rows grow)
    spacing: tuple[float, float]  # between rows, between columns, in mm
    size: tuple[int, int]  # rows, columns
    dtype: np.dtype  # of the stored values
    slope: float = 1.0
    intercept: float = 0.0
    thickness: float | None = None
    padding: int | None = None  # stored value of pixels outside the picture
    labels: dict[str, str] = field(default_factory=dict)  # its VARYING_TAGS

    @property
    def normal(self) -> np.ndarray:
        return np.cross(*self.orientation)

    @property
    def depth(self) -> float:
        """Position along the normal in mm."""
        return float(self.position @ self.normal)


def frames_of(path: Path, header: Dataset) -> list[Frame]:
    """The frames of one file: the image itself, or those of an enhanced multi-frame object.

    Raises VolumeError for colour images and for frames without a place in the patient.
    """
    if int(header.get("SamplesPerPixel") or 1) != 1 or "PALETTE" in str(header.get("PhotometricInterpretation", "")):
        raise VolumeError(f"{path.name}: a colour image has no single scale of values; {_EXPORT}.")
    if "ModalityLUTSequence" in header:
        raise VolumeError(f"{path.name}: its values need a modality lookup table, which is not supported; {_EXPORT}.")
    count = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None and count > 1:
        raise VolumeError(f"{path.name}: it holds {count} frames without their places in the patient; {_EXPORT}.")
    if per_frame is None:
        return [_frame(path, 0, header, [header])]
    if len(per_frame) != count:
        raise VolumeError(f"{path.name}: it describes {len(per_frame)} of its {count} frames; export the series again.")
    shared = list(header.get("SharedFunctionalGroupsSequence") or ())
    return [_frame(path, n, header, _items([groups, *shared])) for n, groups in enumerate(per_frame)]


def _items(groups: list[Dataset]) -> list[Dataset]:
    """The items of functional group sequences, in the order in which they count: those of makers' own sequences, and
    of references to other images, may hold the same tags for something else."""
    sequences = [element for group in groups for element in group if element.VR == "SQ" and not element.tag.is_private]
    return [item for element in sequences if "ImageSequence" not in element.keyword for item in element.value]


def _frame(path: Path, number: int, header: Dataset, items: list[Dataset]) -> Frame:
    def find(*keywords: str) -> Any:
        values = (item.get(keyword) for keyword in keywords for item in items)
        return next((value for value in values if value not in (None, "")), None)

    try:
        position = np.array(find("ImagePositionPatient"), dtype=float).reshape(3)
        orientation = np.array(find("ImageOrientationPatient"), dtype=float).reshape(2, 3)
        between_rows, between_columns = (float(mm) for mm in find("PixelSpacing"))
        placed = np.isfinite([*position, *orientation.flat]).all()
        placed &= 0 < between_rows < np.inf and 0 < between_columns < np.inf
    except (TypeError, ValueError):
        placed = False
    if not placed:
        raise VolumeError(f"{path.name}: it does not say where in the patient its pixels lie; {_EXPORT}.")
    if not np.allclose(orientation @ orientation.T, np.eye(2), rtol=0, atol=2e-3):  # cosines of three decimals pass
        raise VolumeError(f"{path.name}: its row and column directions are no unit vectors at right angles; {_EXPORT}.")
    stored = header.get("BitsStored")
    if stored and header.get("HighBit", stored - 1) != stored - 1:
        raise VolumeError(f"{path.name}: its pixels do not begin at the lowest bit, which is not supported; {_EXPORT}.")
    slope, intercept = find("RescaleSlope"), find("RescaleIntercept")
    slope, intercept = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    if not np.isfinite(slope * intercept) or slope == 0:
        raise VolumeError(f"{path.name}: its rescale slope {slope} makes no values; export the series again.")
    heights = (float(find(keyword) or 0) for keyword in ("SpacingBetweenSlices", "SliceThickness"))
    thickness = next((height for height in heights if 0 < height < np.inf), None)
    return Frame(
        path=path,
        number=number,
        position=position,
        orientation=orientation,
        spacing=(between_rows, between_columns),
        size=(int(header.Rows), int(header.Columns)),
        dtype=_dtype(header),
        slope=slope,
        intercept=intercept,
        thickness=thickness,
        padding=header.get("PixelPaddingValue"),
        labels={keyword: str(value) for keyword in VARYING_TAGS if (value := find(keyword)) is not None},
    )


def _dtype(header: Dataset) -> np.dtype:
    """Type of the stored values; a parametric map of more than 16 bits holds floating-point numbers."""
    size = max(1, int(header.get("BitsAllocated") or 16) // 8)
    if header.get("SOPClassUID") == ParametricMapStorage and size > 2:
        return np.dtype(f"f{size}")
    return np.dtype(f"{'i' if header.get('PixelRepresentation') else 'u'}{size}")
