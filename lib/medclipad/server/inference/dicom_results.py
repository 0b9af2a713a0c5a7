"""POST /infer/{model}?output=dicom_...: the answer as a DICOM object that refers to the image's own series."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medclipad.detection.result import AnomalyResult
from medclipad.export.dicom import DicomSource, dicom_objects, read_source
from medclipad.server.inference.queue import Analysis
from medclipad.volume import Slicing, Volume, read_volume

KINDS = {"dicom_seg": "segmentation", "dicom_map": "map", "dicom_report": "report"}


def dicom_image(path: str) -> tuple[Volume, DicomSource]:
    """An image and what its results will refer to. Raises VolumeError if it does not come from a DICOM series."""
    volume = read_volume(path)
    return volume, read_source(path, volume)


def dicom_result(image: tuple[Volume, DicomSource], analysis: Analysis, output: str) -> Dataset:
    """The object for one of KINDS."""
    volume, source = image
    (dataset,) = dicom_objects(source, volume, _result(analysis, volume), KINDS[output])
    return dataset


def saved(dataset: Dataset) -> Path:
    """A new temporary file with the object."""
    handle, name = tempfile.mkstemp(prefix="medclipad-", suffix=".dcm")
    os.close(handle)
    try:
        dataset.save_as(name, enforce_file_format=True)
    except BaseException:
        os.unlink(name)
        raise
    return Path(name)


def _result(analysis: Analysis, volume: Volume) -> AnomalyResult:
    scores = analysis.scores
    return AnomalyResult(
        anomaly_map=analysis.anomaly_map,
        slice_scores=np.array([np.nan if score is None else score for score in scores["slice_scores"]]),
        foreground=analysis.anomaly_map.array > 0,
        threshold=scores["threshold"],
        slicing=Slicing(volume, scores["plane"]),
        detector=scores["detector"],
    )
