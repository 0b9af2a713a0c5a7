"""DICOM series of every type that results are written for, and results with known values."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import EnhancedMRImageStorage, RLELossless, generate_uid
from scipy.spatial.transform import Rotation

from medclipad.detection.result import AnomalyResult
from medclipad.volume import Slicing, Volume
from sample_data.dicom import LPS, write_series

SHAPE = (20, 16, 6)
SPACING = (0.75, 0.5, 2.0)
SAGITTAL = np.array([[0, 0, -1], [1, 0, 0], [0, -1, 0]], dtype=float)  # rows to posterior, columns to inferior
OBLIQUE = Rotation.from_euler("xyz", (20, -35, 50), degrees=True).as_matrix()
PATIENT = {
    "PatientName": "Kern^Änne",
    "PatientID": "HOSPITAL-4711",
    "PatientBirthDate": "19610203",
    "PatientSex": "F",
    "PatientAge": "063Y",
    "StudyDate": "20240905",
    "StudyTime": "101112",
    "StudyID": "S-77",
    "AccessionNumber": "ACC-99",
    "ReferringPhysicianName": "Vogt^Ina",
    "StudyDescription": "Brain, headache",
    "BodyPartExamined": "BRAIN",
}


def make_series(folder: Path, series_type: str) -> Path:
    """Write a series of a named patient: axial, sagittal, oblique, compressed or enhanced (multi-frame)."""
    axes = {"sagittal": SAGITTAL, "oblique": OBLIQUE, "enhanced": OBLIQUE}.get(series_type, np.eye(3))
    affine = np.eye(4)
    affine[:3, :3] = LPS @ axes @ np.diag(SPACING)
    affine[:3, 3] = (11, -7, 30)
    array = np.random.default_rng(5).integers(0, 900, SHAPE).astype(np.uint16)
    target = folder / "case" / "series"
    target.parent.mkdir(parents=True)
    write_series(
        Volume(array, affine, name=series_type), target, "T1", seed=0
    )  # random file names, not in the order of the slices
    for file in target.iterdir():
        image = pydicom.dcmread(file)
        del image.PatientIdentityRemoved, image.DeidentificationMethod
        for keyword, value in PATIENT.items():
            setattr(image, keyword, value)
        if series_type == "compressed":
            image.compress(RLELossless)
        image.save_as(file)
    if series_type == "enhanced":
        _join_frames(target)
    return target


def _join_frames(folder: Path) -> None:
    """Replace the images of a folder by one multi-frame file, its frames in the order of the file names."""
    files = sorted(folder.iterdir())
    images = [pydicom.dcmread(file) for file in files]
    joined = images[0]
    joined.SOPClassUID = joined.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    joined.SOPInstanceUID = joined.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    joined.NumberOfFrames = len(images)
    shared = _item("PixelMeasuresSequence", PixelSpacing=joined.PixelSpacing, SliceThickness=joined.SliceThickness)
    shared.update(_item("PlaneOrientationSequence", ImageOrientationPatient=joined.ImageOrientationPatient))
    joined.SharedFunctionalGroupsSequence = [shared]
    joined.PerFrameFunctionalGroupsSequence = [
        _item("PlanePositionSequence", ImagePositionPatient=image.ImagePositionPatient) for image in images
    ]
    joined.PixelData = b"".join(image.PixelData for image in images)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(joined, keyword)
    for file in files:
        file.unlink()
    joined.save_as(folder / "joined.dcm")


def _item(sequence: str, **tags: object) -> Dataset:
    """Return a dataset with a sequence of one item."""
    outer, inner = Dataset(), Dataset()
    for keyword, value in tags.items():
        setattr(inner, keyword, value)
    setattr(outer, sequence, [inner])
    return outer


def make_result(volume: Volume, plane: str = "axial") -> AnomalyResult:
    """Return a result with random map and scores, in which slice 1, if there is one, is skipped."""
    rng, slicing = np.random.default_rng(7), Slicing(volume, plane)
    scores = rng.random(len(slicing))
    scores[1:2] = np.nan
    anomaly_map = volume.with_array(rng.random(volume.shape).astype(np.float32) ** 3)
    return AnomalyResult(anomaly_map, scores, np.ones(volume.shape, bool), slicing, "brain-7", window=(0.0, 900.0))


def validate(path: Path) -> list[str]:
    """Return the errors that dciodvfy finds."""
    done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, timeout=60)
    lines = (done.stdout + done.stderr).splitlines()
    assert lines, "dciodvfy prints at least the type of the object"
    return [line for line in lines if line.startswith(("Error", "Abort"))]
