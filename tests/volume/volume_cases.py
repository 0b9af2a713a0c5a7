"""Volumes for tests: grids in any orientation, ramps whose values encode their position, small DICOM series."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from scipy.spatial.transform import Rotation

from medclipad.errors import VolumeError
from medclipad.volume import Volume, read_volume

TO_RAS = np.array((-1.0, -1.0, 1.0))
"""From ITK's and DICOM's LPS."""

ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))
"""All 48 ways to lay array axes along R, A and S: (world axis of each array axis, sign of each)."""


def affine_of(
    order=(0, 1, 2), signs=(1, 1, 1), spacing=(1.0, 1.0, 1.0), degrees=(0.0, 0.0, 0.0), origin=(0.0, 0.0, 0.0)
):
    """Return a (4, 4) RAS affine: array axis a runs along `signs[a]` times world axis `order[a]`, before a rotation."""
    affine = np.eye(4)
    axes = np.zeros((3, 3))
    for axis, (world, sign) in enumerate(zip(order, signs, strict=True)):
        axes[world, axis] = sign * spacing[axis]
    affine[:3, :3] = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix() @ axes
    affine[:3, 3] = origin
    return affine


def ramp(shape: Sequence[int]) -> np.ndarray:
    """Return an array in which each voxel's value is its own flat index."""
    return np.arange(np.prod(shape), dtype=np.int32).reshape(shape)


def world(affine: np.ndarray, indices: np.ndarray) -> np.ndarray:
    """Return (..., 3) voxel indices as RAS mm."""
    return np.asarray(indices) @ affine[:3, :3].T + affine[:3, 3]


@st.composite
def volumes(draw: st.DrawFn, tilt: float = 180.0, sides: tuple[int, int] = (1, 7)) -> Volume:
    """Draw a ramp on any grid: 48 orientations, rotations up to `tilt` degrees per axis, anisotropic, odd sizes."""
    order, signs = draw(st.sampled_from(ORIENTATIONS))
    shape = tuple(draw(st.integers(*sides)) for _ in range(3))
    spacing = tuple(draw(st.floats(0.1, 12)) for _ in range(3))
    degrees = tuple(draw(st.one_of(st.just(0.0), st.floats(-tilt, tilt))) for _ in range(3))
    origin = tuple(draw(st.floats(-500, 500)) for _ in range(3))
    return Volume(ramp(shape), affine_of(order, signs, spacing, degrees, origin), name="ramp")


def slice_header(**tags: Any) -> Dataset:
    """Return an axial MR slice of 4 rows x 5 columns of zeros at the origin; `tags` replace or, if None, remove."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = MRImageStorage
    defaults = {
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.3",
        "SeriesInstanceUID": "1.2.3.4",
        "SeriesDescription": "T1 axial",
        "Modality": "MR",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "PatientID": "somebody",
        "Rows": 4,
        "Columns": 5,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelSpacing": [0.5, 0.75],
        "SliceThickness": 2,
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelData": bytes(4 * 5 * 2),
    }
    for keyword, value in {**defaults, **tags}.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def save(dataset: Dataset, path: Path) -> Path:
    """Write a dataset and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def series(
    folder: Path,
    heights: Sequence[float],
    orientation: tuple[float, ...] = (1, 0, 0, 0, 1, 0),
    each: Callable[[int], dict[str, Any]] = lambda n: {},
    **tags: Any,
) -> np.ndarray:
    """Write a slice at each height along the normal, in this order as 0.dcm, 1.dcm ..., and return (K, 4, 5) values.

    `tags` apply to all slices, `each(n)` to slice n; instance numbers run in the opposite order.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    values = np.arange(len(heights) * 20, dtype=np.uint16).reshape(-1, 4, 5)
    for n, height in enumerate(heights):
        own = {
            "ImagePositionPatient": [round(float(mm), 10) for mm in np.array((-11.0, 7.0, 30.0)) + height * normal],
            "ImageOrientationPatient": [float(cosine) for cosine in orientation],
            "InstanceNumber": 99 - n,
            "PixelData": values[n].tobytes(),
        }
        save(slice_header(**{**own, **tags, **each(n)}), folder / f"{n}.dcm")
    return values


def enhanced(images: list[Dataset]) -> Dataset:
    """Return classic MR slices as the frames, in order, of one enhanced multi-frame image, uncompressed."""
    joined = pydicom.Dataset(images[0])
    joined.file_meta = FileMetaDataset()
    joined.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    joined.SOPClassUID, joined.SOPInstanceUID = EnhancedMRImageStorage, generate_uid()
    joined.NumberOfFrames = len(images)
    frames = [
        functional(
            PlanePositionSequence={"ImagePositionPatient": image.ImagePositionPatient},
            PlaneOrientationSequence={"ImageOrientationPatient": image.ImageOrientationPatient},
            PixelMeasuresSequence={"PixelSpacing": image.PixelSpacing, "SliceThickness": image.SliceThickness},
        )
        for image in images
    ]
    joined.SharedFunctionalGroupsSequence, joined.PerFrameFunctionalGroupsSequence = [Dataset()], frames
    joined.PixelData = b"".join(image.PixelData for image in images)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        del joined[keyword]
    return joined


def functional(**groups: dict[str, Any]) -> Dataset:
    """Return functional groups: sequences of one item, by their keyword, each with its tags."""
    item = Dataset()
    for sequence, tags in groups.items():
        inner = Dataset()
        for keyword, value in tags.items():
            setattr(inner, keyword, value)
        setattr(item, sequence, [inner])
    return item


def fault(source: Any, **options: Any) -> str:
    """Return the sentence that refuses a source: one line that names the file and, after a semicolon, a remedy."""
    with pytest.raises(VolumeError) as caught:
        read_volume(source, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert len(text.split(";")[-1]) > 10
    if isinstance(source, Path) and not source.is_dir() and source.name != "DICOMDIR":
        assert source.name in text
    return text


def load_nifti(path: Path) -> Any:
    """Return nibabel's view of a NIfTI file, untyped: by nibabel's types any affine may be None."""
    image = nib.load(path)
    assert isinstance(image, nib.Nifti1Image)
    return image


def itk_positions(path: Path, volume: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return RAS mm of 50 random voxels by SimpleITK and by us, and their values by SimpleITK and by us."""
    image = SimpleITK.ReadImage(str(path))
    indices = np.random.default_rng(0).integers(0, volume.shape, (50, 3))
    theirs = np.array([image.TransformIndexToPhysicalPoint(i.tolist()) for i in indices]) * TO_RAS
    values = np.array([image.GetPixel(i.tolist()) for i in indices])
    return theirs, world(volume.affine, indices), values, volume.array[tuple(indices.T)]
