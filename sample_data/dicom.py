"""Write a volume as a series of DICOM MR images, whose file names and numbers do not give the order, as in archives."""

from __future__ import annotations

import shutil
import zlib
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pydicom.valuerep import format_number_as_ds

from medclipad.files import atomic_folder
from medclipad.volume import Volume

LPS = np.diag([-1.0, -1.0, 1.0])  # DICOM counts to the left and back, volumes to the right and front


def write_series(volume: Volume, folder: Path, description: str, seed: int) -> None:
    """Write a volume as a DICOM series, one file a slice.

    All identifiers follow from the volume's name and the seed, so that the same series is made again.

    Parameters
    ----------
    volume
        Voxels uint16 (columns, rows, slices) on a right-handed, orthogonal grid whose last axis is the slice normal, as
        in every DICOM series.
    folder
        Folder for the files. One that exists is replaced.
    description
        Series description.
    seed
        Seed of the study.

    Raises
    ------
    ValueError
        If the type or the grid is another.
    """
    if volume.array.dtype != np.uint16 or np.linalg.det(LPS @ volume.affine[:3, :3]) <= 0:
        raise ValueError(f"{volume.name}: a DICOM series is made from uint16 voxels on a right-handed (LPS) grid")
    shutil.rmtree(folder, ignore_errors=True)
    with atomic_folder(folder) as temp_folder:
        for k in range(volume.shape[2]):
            name = f"{zlib.crc32(f'{volume.name}/{k}'.encode()):08x}.dcm"
            _image(volume, k, description, seed).save_as(temp_folder / name, enforce_file_format=True)


def _uid(*words: object) -> UID:
    """Return an identifier that depends on the words alone."""
    return generate_uid(entropy_srcs=["medclipad sample study", *map(str, words)])


def _image(volume: Volume, k: int, description: str, seed: int) -> FileDataset:
    """Return slice `k` of a volume as a DICOM MR image."""
    case = (volume.name, seed)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = _uid("image", *case, k)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    image.SOPClassUID, image.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    image.StudyInstanceUID, image.SeriesInstanceUID = _uid("study", *case), _uid("series", *case)
    image.FrameOfReferenceUID = _uid("frame", *case)

    image.SpecificCharacterSet = "ISO_IR 192"
    image.PatientName, image.PatientID = "SIMULATED^SAMPLE STUDY", f"SIM-{volume.name}"[:64]
    image.PatientBirthDate = image.PatientSex = image.AccessionNumber = image.ReferringPhysicianName = ""
    image.PatientIdentityRemoved, image.DeidentificationMethod = "YES", "Simulated, no patient"
    image.StudyID, image.StudyDate, image.StudyTime = "1", "20000101", "120000"
    image.StudyDescription = "MedCLIPAD sample study (simulated)"
    image.SeriesNumber, image.SeriesDescription = 1, description[:64]
    image.Modality, image.Manufacturer, image.PositionReferenceIndicator = "MR", "Simulated", ""
    image.ImageType = ["DERIVED", "PRIMARY", "OTHER"]
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions = "GR", "NONE", ""
    image.MRAcquisitionType, image.RepetitionTime, image.EchoTime, image.EchoTrainLength = "3D", "", "", 1
    image.PatientPosition, image.BurnedInAnnotation = "HFS", "NO"
    image.AcquisitionNumber = 1
    image.InstanceNumber = volume.shape[2] - k  # from the top down, against the order of the positions

    matrix = LPS @ volume.affine[:3, :3]
    spacing = np.linalg.norm(matrix, axis=0)
    position = LPS @ (volume.affine[:3, :3] @ [0, 0, k] + volume.affine[:3, 3])
    image.ImagePositionPatient = _decimals(position)
    image.ImageOrientationPatient = _decimals((matrix / spacing)[:, :2].T.ravel())  # along a row, then along a column
    image.PixelSpacing = _decimals(spacing[[1, 0]])
    image.SliceThickness, image.SpacingBetweenSlices = _decimals(spacing[[2, 2]])

    pixels = np.ascontiguousarray(volume.array[:, :, k].T)
    image.Rows, image.Columns = pixels.shape
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 0
    image.PixelData = pixels.astype("<u2").tobytes()
    return image


def _decimals(values: np.ndarray) -> list[str]:
    return [format_number_as_ds(float(value) + 0.0) for value in values]
