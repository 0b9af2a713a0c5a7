"""Masks as DICOM Segmentation, and back."""

from __future__ import annotations

import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.volume import VolumeGeometry
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from medclipad.errors import VolumeError
from medclipad.export.dicom.common import NAME, algorithm, finished, identity
from medclipad.export.dicom.source import DicomSource
from medclipad.volume import Volume
from medclipad.volume.volume import LPS_TO_RAS

SERIES_NUMBER = 9001


def segmentation(source: DicomSource, mask: Volume, detector: str | None, description: str = "Anomalies") -> Dataset:
    """A binary segmentation of all slices, the empty ones too, so that every reader gets the whole grid.

    mask: integers on the source's grid; each value above 0 becomes a segment, numbered from 1 in ascending order.
    detector: name of the detector that made it, None for a reader's own work.

    Raises VolumeError if the mask does not have the source's slices.
    """
    values = [value for value in np.unique(mask.array) if value > 0] or [1]
    numbered = np.zeros(mask.shape, np.uint8)
    for number, value in enumerate(values, 1):
        numbered[mask.array == value] = number
    frames = numbered.transpose(2, 1, 0)
    if len(frames) != len(source.headers) or len(values) > 255:
        raise VolumeError(f"{mask.name}: a mask of {len(frames)} slices and {len(values)} labels does not fit.")
    segments = [
        SegmentDescription(
            segment_number=number,
            segment_label="Anomaly" if len(values) == 1 else f"Anomaly {value}",
            segmented_property_category=codes.SCT.MorphologicallyAbnormalStructure,
            segmented_property_type=codes.SCT.Lesion,
            algorithm_type="AUTOMATIC" if detector else "MANUAL",
            algorithm_identification=algorithm(detector) if detector else None,
        )
        for number, value in enumerate(values, 1)
    ]
    dataset = Segmentation(
        source_images=source.single_images,
        pixel_array=frames,
        segmentation_type="BINARY",
        segment_descriptions=segments,
        omit_empty_frames=False,
        content_label="ANOMALIES",
        content_description=description[:64],
        **identity(detector or NAME, SERIES_NUMBER, description),
    )
    return finished(dataset, source)


def mask_of(dataset: Dataset, volume: Volume) -> Volume:
    """A DICOM Segmentation as a uint8 mask of segment numbers on the full grid of `volume`, whichever slices it holds.

    Where segments overlap, the higher number counts. Raises VolumeError if it does not lie on that grid.
    """
    geometry = VolumeGeometry(
        affine=(LPS_TO_RAS @ volume.affine)[:, [2, 1, 0, 3]],
        spatial_shape=volume.shape[::-1],
        coordinate_system="PATIENT",
    )
    try:
        stored = Segmentation.from_dataset(dataset, copy=False).get_volume(allow_missing_positions=True)
        matched = stored.match_geometry(geometry, tol=1e-2)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise VolumeError(
            f"{volume.name}: the segmentation does not lie on its grid ({error}); make it on the image itself."
        ) from error
    numbers = np.arange(1, matched.array.shape[-1] + 1, dtype=np.uint8)
    mask = (matched.array.astype(bool) * numbers).max(axis=-1)
    return volume.with_array(mask.astype(np.uint8).transpose(2, 1, 0))
