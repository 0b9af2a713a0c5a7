"""DICOM: the single frames of a file and their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ParametricMapStorage

from medclipad.errors import VolumeError
from medclipad.volume.dicom.labels import LABEL_TAGS, labels_of, ranks_of
from medclipad.volume.read_errors import volume_errors

HEADER_TAGS = (
    *LABEL_TAGS, "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "PatientID", "StudyInstanceUID",
    "SeriesInstanceUID", "FrameOfReferenceUID", "SeriesDescription", "Modality", "NumberOfFrames", "Rows", "Columns",
    "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "SliceThickness", "SpacingBetweenSlices",
    "RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", "PixelPaddingValue", "SharedFunctionalGroupsSequence",
    "PerFrameFunctionalGroupsSequence",
)  # fmt: skip
"""All tags that reading a series needs."""

_EXPORT = "export the original axial, coronal or sagittal images"


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice: its position in the patient and the scaling of its stored values.

    Attributes
    ----------
    path : Path
        File that holds the frame.
    number : int
        Index within the file.
    position : numpy.ndarray
        (3,) LPS mm, centre of the first pixel.
    orientation : numpy.ndarray
        (2, 3) unit vectors in LPS along a row (towards higher columns) and along a column (towards higher rows).
    spacing : tuple of float
        Distance in mm between rows and between columns.
    size : tuple of int
        Rows and columns.
    dtype : numpy.dtype
        Type of the stored values.
    slope, intercept : float
        Rescaling from stored values to the modality's values.
    thickness : float or None
        Spacing between slices or slice thickness in mm, if given.
    padding : int or None
        Stored value of pixels outside the image, if given.
    labels : dict of str
        What may tell it from other images at its place, see `labels_of`.
    ranks : dict of float
        What may put it in order among them, see `ranks_of`.
    tiles : int
        Tiles along each side of the picture, if it is a mosaic of which the frame is tile `number`; else 0.
    """

    path: Path
    number: int
    position: np.ndarray
    orientation: np.ndarray
    spacing: tuple[float, float]
    size: tuple[int, int]
    dtype: np.dtype
    slope: float = 1.0
    intercept: float = 0.0
    thickness: float | None = None
    padding: int | None = None
    labels: dict[str, str] = field(default_factory=dict)
    ranks: dict[str, float] = field(default_factory=dict)
    tiles: int = 0

    @property
    def normal(self) -> np.ndarray:
        """(3,) unit vector in LPS perpendicular to the slice."""
        along_row, along_column = self.orientation
        return np.cross(along_row, along_column)

    @property
    def depth(self) -> float:
        """Position along the normal in mm."""
        return float(self.position @ self.normal)


def frames_of(path: Path, header: Dataset) -> list[Frame]:
    """Return the frames of one file: the image itself, or those of an enhanced multi-frame object.

    Parameters
    ----------
    path
        The file.
    header
        Its header, with at least `HEADER_TAGS`.

    Raises
    ------
    VolumeError
        If the image is in colour, needs a lookup table, or if a frame has no usable position, direction or rescaling;
        or if the file is damaged.
    """
    with volume_errors(path):
        return _frames(path, header)


def _frames(path: Path, header: Dataset) -> list[Frame]:
    """Return the frames of one file; raise VolumeError or whatever pydicom raises over damage."""
    if int(header.get("SamplesPerPixel") or 1) != 1 or "PALETTE" in str(header.get("PhotometricInterpretation", "")):
        raise VolumeError(f"{path.name}: a colour image has no single scale of values; {_EXPORT}.")
    if "ModalityLUTSequence" in header:
        raise VolumeError(f"{path.name}: its values need a modality lookup table, which is not supported; {_EXPORT}.")
    count = int(header.get("NumberOfFrames") or 1)
    per_frame = header.get("PerFrameFunctionalGroupsSequence")
    if per_frame is None and count > 1:
        raise VolumeError(f"{path.name}: it holds {count} frames without their positions in the patient; {_EXPORT}.")
    if per_frame is None:
        return [_frame(path, 0, header, [header])]
    if len(per_frame) != count:
        raise VolumeError(
            f"{path.name}: it describes {len(per_frame)} frames but announces {count}; export the series again."
        )
    shared = list(header.get("SharedFunctionalGroupsSequence") or ())
    return [_frame(path, n, header, _items([groups, *shared])) for n, groups in enumerate(per_frame)]


def _items(groups: list[Dataset]) -> list[Dataset]:
    """Return the items of functional group sequences, in order of precedence.

    Vendors' private sequences and references to other images are left out: they may use the same tags for other values.
    """
    sequences = [element for group in groups for element in group if element.VR == "SQ" and not element.tag.is_private]
    items = [item for element in sequences if "ImageSequence" not in element.keyword for item in element.value]
    directions = [item.get("DiffusionGradientDirectionSequence") or () for item in items]
    return items + [item for sequence in directions for item in sequence]


def _find(items: Sequence[Dataset], *keywords: str) -> Any:
    """Return the first value that is given for the first of `keywords` that has one; else None."""
    values = (item.get(keyword) for keyword in keywords for item in items)
    return next((value for value in values if value not in (None, "")), None)


def _frame(path: Path, number: int, header: Dataset, items: list[Dataset]) -> Frame:
    """Return a frame whose tags are in `items`; raise VolumeError if one of them is not usable."""
    try:
        position = np.array(_find(items, "ImagePositionPatient"), dtype=float).reshape(3)
        orientation = np.array(_find(items, "ImageOrientationPatient"), dtype=float).reshape(2, 3)
        between_rows, between_columns = (float(mm) for mm in _find(items, "PixelSpacing"))
        placed = np.isfinite([*position, *orientation.flat]).all()
        placed &= 0 < between_rows < np.inf and 0 < between_columns < np.inf
    except (TypeError, ValueError):
        placed = False
    if not placed:
        raise VolumeError(f"{path.name}: it does not say where in the patient its pixels lie; {_EXPORT}.")
    if not np.allclose(orientation @ orientation.T, np.eye(2), rtol=0, atol=2e-3):  # cosines of three decimals pass
        raise VolumeError(f"{path.name}: its row and column directions are not perpendicular unit vectors; {_EXPORT}.")
    stored = header.get("BitsStored")
    if stored and header.get("HighBit", stored - 1) != stored - 1:
        raise VolumeError(
            f"{path.name}: its pixel values do not start at the lowest bit, which is not supported; {_EXPORT}."
        )
    slope, intercept = _rescaling(path, items)
    heights = (float(_find(items, keyword) or 0) for keyword in ("SpacingBetweenSlices", "SliceThickness"))
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
        labels=labels_of(header, partial(_find, items)),
        ranks=ranks_of(partial(_find, items), number),
    )


def _rescaling(path: Path, items: list[Dataset]) -> tuple[float, float]:
    """Return (slope, intercept); raise VolumeError if they are not usable."""
    slope, intercept = _find(items, "RescaleSlope"), _find(items, "RescaleIntercept")
    slope, intercept = 1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept)
    if not np.isfinite(slope * intercept) or slope == 0:
        raise VolumeError(
            f"{path.name}: its rescale slope {slope} and intercept {intercept} are not usable; export the series again."
        )
    return slope, intercept


def _dtype(header: Dataset) -> np.dtype:
    """Return the type of the stored values; a parametric map of more than 16 bits holds floating-point numbers."""
    size = max(1, int(header.get("BitsAllocated") or 16) // 8)
    if header.get("SOPClassUID") == ParametricMapStorage and size > 2:
        return np.dtype(f"f{size}")
    return np.dtype(f"{'i' if header.get('PixelRepresentation') else 'u'}{size}")
