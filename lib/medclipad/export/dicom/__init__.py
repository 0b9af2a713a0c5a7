"""Results as DICOM objects beside the series that they were made from: segmentation, parametric map, report, pictures.

All are built by highdicom on exactly the grid of the volume, with its frames in slice order, and refer to the images
that each of them comes from.
"""

from __future__ import annotations

import logging
import warnings

from medclipad.export.dicom.parametric_map import parametric_map
from medclipad.export.dicom.report import score_report
from medclipad.export.dicom.segmentation import mask_of, segmentation
from medclipad.export.dicom.source import DicomSource, read_source, require_images
from medclipad.export.dicom.write import KINDS, dicom_objects, write_dicom

__all__ = [
    "KINDS",
    "DicomSource",
    "dicom_objects",
    "mask_of",
    "parametric_map",
    "read_source",
    "require_images",
    "score_report",
    "segmentation",
    "write_dicom",
]

# highdicom comments on odd patient names by printing them; they belong into no log.
warnings.filterwarnings("ignore", message="The string .* is unlikely to represent the intended person name")
logging.getLogger("highdicom").setLevel(logging.ERROR)
