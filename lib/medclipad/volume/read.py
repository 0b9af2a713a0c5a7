"""Read a volume from any supported file, folder or archive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from medclipad.errors import VolumeError
from medclipad.volume.components import Component
from medclipad.volume.dicom.files import ARCHIVE, is_dicom
from medclipad.volume.dicom.reader import read_dicom
from medclipad.volume.read_errors import not_found_error
from medclipad.volume.readers.itk import READERS, read_itk
from medclipad.volume.readers.nifti import read_nifti
from medclipad.volume.readers.pictures import PICTURES, picture_files, read_pictures
from medclipad.volume.volume import Volume

SUFFIXES = (".nii", ".nii.gz", *READERS)
"""Suffixes of single-file volumes, in lower case."""


def read_volume(
    source: str | Path | Sequence[str | Path],
    *,
    component: Component = None,
    series: str | None = None,
    tilt: Literal["refuse", "resample"] = "refuse",
) -> Volume:
    """Read a volume from a file, a folder, a zip archive or a list of files.

    Parameters
    ----------
    source
        A NIfTI, NRRD or MetaImage file; a DICOM file, or a folder, zip, DICOMDIR or list of DICOM files; a PNG, JPEG or
        TIFF picture, or a folder or ordered list of pictures.
    component
        Index of the component, time point or colour channel to read, if the image has several. Axes of length one are
        dropped automatically. A volume of a DICOM series may be named by what tells it apart instead, such as "b=1000"
        or "echo=4.6, phase"; see `list_series`.
    series
        SeriesInstanceUID of the DICOM series to read, if there are several; see `list_series`.
    tilt
        What to do with a DICOM series whose slices a gantry tilt has shifted sideways: "refuse" it (default), or
        "resample" it to upright slices (linearly, each slice within its plane).

    Returns
    -------
    Volume
        Voxels with the file's own type and axes. Where the file scales them (NIfTI scl_slope, DICOM rescale) they are
        float32, or float64 where 32 bits would lose integers. NaN and infinity are kept. The affine of a NIfTI file is
        exactly nibabel's. `volume.notes` says what had to be assumed.

    Raises
    ------
    VolumeError
        If the source cannot be read as one volume at one position, or does not fit into memory. The message is one
        sentence with file, fault and remedy: nothing is guessed, and nothing is resampled without being asked for.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from medclipad.volume import Volume, read_volume, write_volume
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_volume(Volume(np.ones((4, 5, 3), np.int16), np.eye(4)), f"{folder}/case.nii.gz")
    ...     volume = read_volume(f"{folder}/case.nii.gz")
    >>> volume.name, volume.shape, volume.notes
    ('case', (4, 5, 3), ())
    """
    if tilt not in ("refuse", "resample"):
        raise VolumeError(f"tilt={tilt!r} is unknown; choose refuse or resample.")
    if not isinstance(source, (str, Path)):
        files = [Path(file) for file in source]
        if files and all(file.suffix.lower() in PICTURES for file in files):
            return read_pictures(files, component, _common_name(files))
        return read_dicom(files, series=series, component=component, tilt=tilt)
    path = Path(source).expanduser()
    if path.is_dir():
        pictures = picture_files(path)
        if pictures and not any(is_dicom(file) for file in path.rglob("*") if file.is_file()):
            return read_pictures(pictures, component, path.resolve().name)
        return read_dicom(path, series=series, component=component, tilt=tilt)
    if not path.is_file():
        raise not_found_error(path)
    if path.stat().st_size == 0:
        raise VolumeError(f"{path.name}: the file is empty; copy or export it again.")
    if (volume := _read_single_file(path, component)) is not None:
        return volume
    if _suffix(path) == ARCHIVE or is_dicom(path):
        return read_dicom(path, series=series, component=component, tilt=tilt)
    raise _unknown_format(path)


def _read_single_file(path: Path, component: Component) -> Volume | None:
    """Return the volume of a file whose suffix names its format; None for another suffix."""
    suffix = _suffix(path)
    if suffix in READERS:
        return read_itk(path, component, case_name(path))
    if suffix in SUFFIXES:
        return read_nifti(path, component, case_name(path))
    if suffix in PICTURES:
        return read_pictures([path], component, case_name(path))
    return None


def _unknown_format(path: Path) -> VolumeError:
    """Return the error for a file of which no reader reads the format."""
    if _suffix(path) in (".hdr", ".img"):
        header = path.with_suffix(".hdr")
        if header.is_file() and header.read_bytes()[344:347] in (b"ni1", b"ni2"):
            return VolumeError(f"{path.name}: a NIfTI pair of .hdr and .img is not supported; save it as one .nii.gz.")
        return VolumeError(
            f"{path.name}: Analyze files do not say which side is left; convert the image from its source to .nii.gz."
        )
    return VolumeError(
        f"{path.name}: not a known volume format; pass {', '.join((*SUFFIXES, *PICTURES))}, a DICOM file or a folder "
        "of DICOM files."
    )


def case_name(path: str | Path) -> str:
    """Return the name of a case: of a file without folder and (double) suffix, of a folder its own name.

    Examples
    --------
    >>> case_name("studies/patient.1.nii.gz")
    'patient.1'
    """
    path = Path(path)
    suffix = "" if path.is_dir() else _suffix(path)
    return path.name[: len(path.name) - len(suffix)]


def _common_name(files: Sequence[Path]) -> str:
    """Return the name of a case that is given as a list of files."""
    return case_name(files[0]) if len(files) == 1 else files[0].parent.resolve().name


def _suffix(path: Path) -> str:
    """Return a file's suffix in lower case, .nii.gz as a whole."""
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()
