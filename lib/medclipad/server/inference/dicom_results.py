"""DICOM objects as answers of POST /infer/{model}?output=dicom_...; they refer to the image's own series."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from pydicom.dataset import Dataset

from medclipad.detection.cases import Reading
from medclipad.export.dicom import DicomSource, dicom_objects, read_source
from medclipad.server.inference.queue import Analysis
from medclipad.server.security.upload_limits import read_image
from medclipad.volume import Volume

DICOM_OUTPUTS = {"dicom_seg": "segmentation", "dicom_map": "map", "dicom_report": "report"}
"""Values of the request's `output`, and what `medclipad.export.dicom` calls them."""


def read_dicom_image(path: str, reading: Reading) -> tuple[Volume, DicomSource]:
    """Return an image and what its results refer to; raise VolumeError if it is not a DICOM series."""
    volume = read_image(path, reading)
    return volume, read_source(path, volume)


def dicom_result(image: tuple[Volume, DicomSource], analysis: Analysis, output: str) -> Dataset:
    """Return a detection as a DICOM object.

    Parameters
    ----------
    image
        The image, from `read_dicom_image`.
    analysis
        What the detector found in it.
    output
        One of `DICOM_OUTPUTS`.
    """
    volume, source = image
    (dataset,) = dicom_objects(source, volume, analysis.result, DICOM_OUTPUTS[output])
    return dataset


def write_temporary_dicom(dataset: Dataset) -> Path:
    """Write an object to a new temporary file and return its path; the caller removes it."""
    handle, name = tempfile.mkstemp(prefix="medclipad-", suffix=".dcm")
    os.close(handle)
    try:
        dataset.save_as(name, enforce_file_format=True)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)
