"""Reading a volume from whatever holds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from medclipad.errors import VolumeError

from .dicom import is_dicom, read_dicom
from .itk import READERS, read_itk
from .nifti import read_nifti
from .volume import Volume

SUFFIXES = (".nii", ".nii.gz", *READERS)


def read_volume(
    source: str | Path | Sequence[str | Path], *, component: int | None = None, series: str | None = None
) -> Volume:
    """A volume from a NIfTI, NRRD or MetaImage file, a DICOM file, a folder of DICOM files, or a list of them.

    The affine of a NIfTI file is exactly nibabel's. Voxels keep the file's own type; where the file scales them (NIfTI
    scl_slope, DICOM rescale) they are float32, or float64 where 32 bits would lose integers. NaN and infinity stay.

    component: which component, time point or colour channel of an image that has several (counted from 0); axes of
    length one are dropped without asking. series: UID of the DICOM series to take where there are several.

    Raises VolumeError, one sentence with file, fault and remedy, for whatever cannot be read as one volume in one
    place: nothing is guessed, nothing is resampled. What had to be assumed is said in `volume.notes`.
    """
    if not isinstance(source, (str, Path)):
        return read_dicom([Path(file) for file in source], series=series, component=component)
    path = Path(source).expanduser()
    suffix = _suffix(path)
    if path.is_dir():
        return read_dicom(path, series=series, component=component)
    if not path.is_file():
        raise VolumeError(f"{path}: there is no such file or folder; check the path.")
    if path.stat().st_size == 0:
        raise VolumeError(f"{path.name}: the file is empty; copy or export it again.")
    if suffix in READERS:
        return read_itk(path, component, case_name(path))
    if suffix in SUFFIXES:
        return read_nifti(path, component, case_name(path))
    if is_dicom(path):
        return read_dicom([path], series=series, component=component)
    if suffix in (".hdr", ".img"):
        raise VolumeError(
            f"{path.name}: Analyze files do not say which side is left; convert the image from its source to .nii.gz."
        )
    raise VolumeError(
        f"{path.name}: not a known kind of volume; pass {', '.join(SUFFIXES)}, a DICOM file or a folder of DICOM files."
    )


def case_name(path: str | Path) -> str:
    """A file's name without folder and (double) suffix, a folder's own name: `a/b.c.nii.gz` -> `b.c`."""
    path = Path(path)
    suffix = "" if path.is_dir() else _suffix(path)
    return path.name[: len(path.name) - len(suffix)]


def _suffix(path: Path) -> str:
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()
