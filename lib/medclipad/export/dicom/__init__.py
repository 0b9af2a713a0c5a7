"""Results as DICOM objects of the source study: segmentation, parametric map, report and key slices.

All are built by highdicom on exactly the grid of the volume, with their frames in slice order, and refer to the images
that they were made from.
"""

from __future__ import annotations

import logging
import warnings

from medclipad.export.dicom.parametric_map import parametric_map
from medclipad.export.dicom.report import score_report
from medclipad.export.dicom.segmentation import segmentation, segmentation_to_mask
from medclipad.export.dicom.source import DicomSource, read_source, require_images
from medclipad.export.dicom.write import KINDS, dicom_objects, write_dicom

__all__ = [
    "KINDS",
    "DicomSource",
    "dicom_objects",
    "parametric_map",
    "read_source",
    "require_images",
    "score_report",
    "segmentation",
    "segmentation_to_mask",
    "write_dicom",
]

# highdicom warns of unusual patient names by printing them; a patient's name must not get into a log.
warnings.filterwarnings("ignore", message="The string .* is unlikely to represent the intended person name")
logging.getLogger("highdicom").setLevel(logging.ERROR)
