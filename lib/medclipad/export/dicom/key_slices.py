"""The most anomalous slices, with the map's outline, as pictures that every DICOM viewer shows (Secondary Capture)."""

from __future__ import annotations

import numpy as np
from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from skimage.segmentation import find_boundaries

from medclipad.detection.result import AnomalyResult
from medclipad.errors import VolumeError
from medclipad.evaluation.drawn_case import DrawnCase
from medclipad.export.dicom.common import finished, identity
from medclipad.export.dicom.source import DicomSource
from medclipad.volume import Volume

SERIES_NUMBER = 9004
OUTLINE = (255, 210, 0)  # RGB
_ROWS_AND_COLUMNS = {"axial": ("L", "P"), "coronal": ("L", "F"), "sagittal": ("P", "F")}


def key_slices(source: DicomSource, volume: Volume, result: AnomalyResult, count: int = 5) -> list[Dataset]:
    """At most `count` slices of the highest score, the highest first, each on its own pixel grid in the radiological
    display, windowed as the detector saw it, with a line around what exceeds the threshold.

    Raises VolumeError if identity was to be removed and the images say that text is burned into their pixels.
    """
    if source.deidentifier and source.burned_in:
        raise VolumeError(
            f"{volume.name}: its images have text burned into their pixels, which cannot be removed; "
            "leave out the key slices, or the de-identification."
        )
    slicing, scores = result.slicing, result.slice_scores
    best = np.argsort(-np.nan_to_num(scores, nan=-1.0), kind="stable")[:count]
    low, high = DrawnCase(volume, result).grey_window
    series = identity(result.detector, SERIES_NUMBER, f"Most anomalous slices, {slicing.plane}")
    pictures = []
    for rank, n in enumerate(n for n in best if np.isfinite(scores[n])):
        grey = np.nan_to_num((slicing.slice(volume.array, n).astype(float) - low) / ((high - low) or 1.0))
        picture = np.repeat((grey.clip(0, 1) * 255).round().astype(np.uint8)[..., None], 3, axis=-1)
        beyond = slicing.slice(result.anomaly_map.array, n) > result.threshold
        picture[find_boundaries(beyond, mode="outer")] = OUTLINE
        own = identity(result.detector, SERIES_NUMBER, "", rank + 1)
        dataset = SCImage.from_ref_dataset(
            ref_dataset=source.headers[0],
            pixel_array=picture,
            photometric_interpretation="RGB",
            bits_allocated=8,
            coordinate_system="PATIENT",
            pixel_spacing=slicing.pixel_spacing,
            patient_orientation=_ROWS_AND_COLUMNS[slicing.plane],
            **{**own, **{key: series[key] for key in ("series_instance_uid", "series_description")}},
        )
        dataset.ImageType = ["DERIVED", "SECONDARY"]
        dataset.BurnedInAnnotation = "YES" if source.burned_in else "NO"
        dataset.DerivationDescription = (
            f"{slicing.plane} slice {n}, anomaly score {scores[n]:.3f}, outline at {result.threshold:.3f}"
        )
        dataset.SourceImageSequence = _sources(source, slicing.index(n) if slicing.axis == 2 else None)
        pictures.append(finished(dataset, source))
    return pictures


def _sources(source: DicomSource, k: int | None) -> list[Dataset]:
    """References to the k-th image, or to all where a slice runs through all of them."""
    chosen: dict[str, Dataset] = {}
    for header, number in zip(source.headers, source.frames, strict=True):
        if k is not None and header is not source.headers[k]:
            continue
        item = chosen.setdefault(header.SOPInstanceUID, Dataset())
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
        if number is not None:
            before = item.get("ReferencedFrameNumber", [])
            item.ReferencedFrameNumber = [*([before] if isinstance(before, int) else before), number]
        purpose = Dataset()
        code = codes.DCM.SourceImageForImageProcessingOperation
        purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = code.value, "DCM", code.meaning
        item.PurposeOfReferenceCodeSequence = [purpose]
    return list(chosen.values())
