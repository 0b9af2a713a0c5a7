"""The anomaly map as a DICOM Parametric Map of float32."""

from __future__ import annotations

import numpy as np
from highdicom import VOILUTTransformation
from highdicom.pm import ParametricMap, RealWorldValueMapping
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from medclipad.detection.result import AnomalyResult
from medclipad.export.dicom.common import ANOMALY_SCORE, complete, object_attributes
from medclipad.export.dicom.source import DicomSource

SERIES_NUMBER = 9002
_REGIONS = {
    "BRAIN": codes.SCT.Brain,
    "HEAD": codes.SCT.Head,
    "NECK": codes.SCT.Neck,
    "CHEST": codes.SCT.Chest,
    "ABDOMEN": codes.SCT.Abdomen,
    "PELVIS": codes.SCT.Pelvis,
}


def parametric_map(source: DicomSource, result: AnomalyResult) -> Dataset:
    """Return the anomaly map as a Parametric Map, bit for bit.

    Its values are the anomaly scores of the voxels: 0 to 1, without unit.

    Parameters
    ----------
    source
        Source of the volume that was analysed.
    result
        What the detector found.
    """
    score = RealWorldValueMapping(
        lut_label="ANOMALY",
        lut_explanation="Anomaly score of the voxel",
        unit=codes.UCUM.NoUnits,
        value_range=(0.0, 1.0),
        slope=1.0,
        intercept=0.0,
        quantity_definition=ANOMALY_SCORE,
    )
    description = f"Anomaly map, {result.plane}"
    dataset = ParametricMap(
        source_images=source.single_images,
        pixel_array=np.ascontiguousarray(result.anomaly_map.array.transpose(2, 1, 0), dtype=np.float32),
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[score],
        voi_lut_transformations=[VOILUTTransformation(window_center=0.5, window_width=1.0)],
        content_label="ANOMALY_MAP",
        content_description=description,
        **object_attributes(result.detector, SERIES_NUMBER, description),
    )
    dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_frame_anatomy(source.headers[0])]
    return complete(dataset, source)


def _frame_anatomy(header: Dataset) -> Dataset:
    """Return the body part; dcmqi, and so 3D Slicer, reads no parametric map without it."""
    region = Dataset()
    code = _REGIONS.get(header.get("BodyPartExamined"), Code("91723000", "SCT", "Anatomical structure"))
    region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = code.value, "SCT", code.meaning
    anatomy = Dataset()
    anatomy.AnatomicRegionSequence = [region]
    anatomy.FrameLaterality = header.get("Laterality") or "U"
    return anatomy
