"""The most anomalous slices as Secondary Captures, pictures that every DICOM viewer shows."""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from skimage.segmentation import find_boundaries

from medclipad.detection.result import AnomalyResult
from medclipad.errors import VolumeError
from medclipad.evaluation.drawn_case import DrawnCase
from medclipad.export.dicom.common import complete, object_attributes
from medclipad.export.dicom.source import DicomSource
from medclipad.volume import Volume

SERIES_NUMBER = 9004
OUTLINE = (255, 210, 0)  # RGB
_ROWS_AND_COLUMNS = {"axial": ("L", "P"), "coronal": ("L", "F"), "sagittal": ("P", "F")}


def key_slice_images(source: DicomSource, volume: Volume, result: AnomalyResult, count: int = 5) -> list[Dataset]:
    """Return the slices of the highest scores as pictures, the highest first.

    Each slice is on its own pixel grid, in radiological orientation, in the grey window that the detector saw, with an
    outline of what exceeds the threshold.

    Parameters
    ----------
    source
        Source of the volume.
    volume
        Volume that was analysed.
    result
        What the detector found.
    count
        Largest number of slices.

    Raises
    ------
    VolumeError
        If the source is de-identified and its images declare text burned into their pixels.
    """
    if source.deidentifier and source.burned_in:
        raise VolumeError(
            f"{volume.name}: its images have text burned into their pixels, which cannot be removed; "
            "leave out the key slices, or the de-identification."
        )
    slicing, scores = result.slicing, result.slice_scores
    best = np.argsort(-np.nan_to_num(scores, nan=-1.0), kind="stable")[:count]
    low, high = DrawnCase(volume, result).grey_window
    series = object_attributes(result.detector, SERIES_NUMBER, f"Most anomalous slices, {slicing.plane}")
    images = []
    for instance, n in enumerate((int(n) for n in best if np.isfinite(scores[n])), 1):
        attributes = {
            **object_attributes(result.detector, SERIES_NUMBER, "", instance),
            "series_instance_uid": series["series_instance_uid"],
            "series_description": series["series_description"],
        }
        dataset = SCImage.from_ref_dataset(
            ref_dataset=source.headers[0],
            pixel_array=_picture(volume, result, n, low, high),
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            # highdicom writes floats, but declares integers.
            pixel_spacing=slicing.pixel_spacing,  # pyright: ignore[reportArgumentType]
            patient_orientation=_ROWS_AND_COLUMNS[slicing.plane],
            **attributes,
        )
        dataset.ImageType = ["DERIVED", "SECONDARY"]
        dataset.BurnedInAnnotation = "YES" if source.burned_in else "NO"
        dataset.DerivationDescription = (
            f"{slicing.plane} slice {n}, anomaly score {scores[n]:.3f}, outline at {result.threshold:.3f}"
        )
        dataset.SourceImageSequence = _source_images(source, slicing.index(n) if slicing.axis == 2 else None)
        images.append(complete(dataset, source))
    return images


def _picture(volume: Volume, result: AnomalyResult, n: int, low: float, high: float) -> np.ndarray:
    """Return slice n as uint8 RGB (H, W, 3), with an outline of what exceeds the threshold."""
    slicing = result.slicing
    grey = np.nan_to_num((slicing.slice(volume.array, n).astype(float) - low) / ((high - low) or 1.0))
    picture = np.repeat((grey.clip(0, 1) * 255).round().astype(np.uint8)[..., None], 3, axis=-1)
    anomalous = slicing.slice(result.anomaly_map.array, n) > result.threshold
    picture[find_boundaries(anomalous, mode="outer")] = OUTLINE
    return picture


def _source_images(source: DicomSource, k: int | None) -> list[Dataset]:
    """Return references to the k-th image, or to all images if `k` is None."""
    references: dict[str, Dataset] = {}
    for header, number in zip(source.headers, source.frames, strict=True):
        if k is not None and header is not source.headers[k]:
            continue
        reference = references.setdefault(header.SOPInstanceUID, Dataset())
        reference.ReferencedSOPClassUID, reference.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        if number is not None:
            before = reference.get("ReferencedFrameNumber", [])
            reference.ReferencedFrameNumber = [*([before] if isinstance(before, int) else before), number]
        purpose = Dataset()
        code = codes.DCM.SourceImageForImageProcessingOperation
        purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code.value, "DCM", code.meaning
        reference.PurposeOfReferenceCodeSequence = [purpose]
    return list(references.values())
