"""Convert masks to DICOM Segmentations, and back."""

from __future__ import annotations

import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from highdicom.volume import VolumeGeometry
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from medclipad.errors import VolumeError
from medclipad.export.dicom.common import NAME, algorithm, complete, object_attributes
from medclipad.export.dicom.source import DicomSource
from medclipad.volume import Volume
from medclipad.volume.volume import LPS_TO_RAS

SERIES_NUMBER = 9001
TOLERANCE = 1e-2  # of a voxel, by which a segmentation may lie beside the grid


def segmentation(source: DicomSource, mask: Volume, detector: str | None, description: str = "Anomalies") -> Dataset:
    """Return a mask as a binary Segmentation.

    It holds all slices, the empty ones too, so that every reader gets the whole grid.

    Parameters
    ----------
    source
        Source of the volume that the mask belongs to.
    mask
        Integers on the source's grid. Each value above 0 becomes a segment, numbered from 1 in ascending order.
    detector
        Name of the detector that made the mask; None if a reader painted it.
    description
        Description of the series, cut to 64 characters.

    Raises
    ------
    VolumeError
        If the mask has another number of slices than the source, or more than 255 labels.
    """
    values = [value for value in np.unique(mask.array) if value > 0] or [1]
    numbered = np.zeros(mask.shape, np.uint8)
    for number, value in enumerate(values, 1):
        numbered[mask.array == value] = number
    frames = numbered.transpose(2, 1, 0)
    if len(frames) != len(source.headers) or len(values) > 255:
        raise VolumeError(
            f"{mask.name}: a mask of {len(frames)} slices and {len(values)} labels does not fit; it needs "
            f"{len(source.headers)} slices and at most 255 labels."
        )
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
        **object_attributes(detector or NAME, SERIES_NUMBER, description),
    )
    return complete(dataset, source)


def segmentation_to_mask(dataset: Dataset, volume: Volume) -> Volume:
    """Return a Segmentation as a mask on the whole grid of a volume, whichever slices it holds.

    Parameters
    ----------
    dataset
        A DICOM Segmentation.
    volume
        Volume that it segments.

    Returns
    -------
    Volume
        uint8 segment numbers, 0 outside. Where segments overlap, the higher number counts.

    Raises
    ------
    VolumeError
        If the segmentation does not lie on the volume's grid.
    """
    geometry = VolumeGeometry(
        affine=(LPS_TO_RAS @ volume.affine)[:, [2, 1, 0, 3]],
        spatial_shape=volume.shape[::-1],
        coordinate_system="PATIENT",
    )
    try:
        stored = Segmentation.from_dataset(dataset, copy=False).get_volume(allow_missing_positions=True)
        matched = stored.match_geometry(geometry, tol=TOLERANCE)
    except (RuntimeError, ValueError, AttributeError) as error:
        raise VolumeError(
            f"{volume.name}: the segmentation does not lie on its grid ({error}); make it on the image itself."
        ) from error
    numbers = np.arange(1, matched.array.shape[-1] + 1, dtype=np.uint8)
    mask = (matched.array.astype(bool) * numbers).max(axis=-1)
    return volume.with_array(mask.astype(np.uint8).transpose(2, 1, 0))
