"""Reading a volume from whatever holds it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from medclipad.errors import VolumeError
from medclipad.volume.dicom.files import ARCHIVE, is_dicom
from medclipad.volume.dicom.reader import read_dicom
from medclipad.volume.read_errors import no_such_file
from medclipad.volume.readers.itk import READERS, read_itk
from medclipad.volume.readers.nifti import read_nifti
from medclipad.volume.readers.pictures import PICTURES, picture_files, read_pictures
from medclipad.volume.volume import Volume

SUFFIXES = (".nii", ".nii.gz", *READERS)


def read_volume(
    source: str | Path | Sequence[str | Path],
    *,
    component: int | None = None,
    series: str | None = None,
    tilt: Literal["refuse", "resample"] = "refuse",
) -> Volume:
    """A volume from a NIfTI, NRRD or MetaImage file, a DICOM file, a folder, zip or DICOMDIR of DICOM files, or
    a list of them; or from PNG, JPEG and TIFF pictures, one, a folder or a list of them in order.

    The affine of a NIfTI file is exactly nibabel's. Voxels keep the file's own type; where the file scales them (NIfTI
    scl_slope, DICOM rescale) they are float32, or float64 where 32 bits would lose integers. NaN and infinity stay.

    component: which component, time point or colour channel of an image that has several (counted from 0); axes of
    length one are dropped without asking. series: UID of the DICOM series to take where there are several.
    tilt: what to do with a DICOM series of which the gantry tilt has slanted the stack: refuse it, or resample it to
    upright slices (linearly, each within its plane).

    Raises VolumeError, one sentence with file, fault and remedy, for whatever cannot be read as one volume in one
    place, and for what does not fit into memory: nothing is guessed, nothing is resampled unasked. What had to be
    assumed is said in `volume.notes`.
    """
    if tilt not in ("refuse", "resample"):
        raise VolumeError(f"tilt={tilt!r} is unknown; choose refuse or resample.")
    if not isinstance(source, (str, Path)):
        files = [Path(file) for file in source]
        if files and all(file.suffix.lower() in PICTURES for file in files):
            return read_pictures(files, component, _common_name(files))
        return read_dicom(files, series=series, component=component, tilt=tilt)
    path = Path(source).expanduser()
    suffix = _suffix(path)
    if path.is_dir():
        pictures = picture_files(path)
        if pictures and not any(is_dicom(file) for file in path.rglob("*") if file.is_file()):
            return read_pictures(pictures, component, path.resolve().name)
        return read_dicom(path, series=series, component=component, tilt=tilt)
    if not path.is_file():
        raise no_such_file(path)
    if path.stat().st_size == 0:
        raise VolumeError(f"{path.name}: the file is empty; copy or export it again.")
    if suffix in READERS:
        return read_itk(path, component, case_name(path))
    if suffix in SUFFIXES:
        return read_nifti(path, component, case_name(path))
    if suffix in PICTURES:
        return read_pictures([path], component, case_name(path))
    if suffix == ARCHIVE or is_dicom(path):
        return read_dicom(path, series=series, component=component, tilt=tilt)
    if suffix in (".hdr", ".img"):
        if path.with_suffix(".hdr").is_file() and path.with_suffix(".hdr").read_bytes()[344:347] in (b"ni1", b"ni2"):
            raise VolumeError(f"{path.name}: a NIfTI pair of .hdr and .img is not supported; save it as one .nii.gz.")
        raise VolumeError(
            f"{path.name}: Analyze files do not say which side is left; convert the image from its source to .nii.gz."
        )
    raise VolumeError(
        f"{path.name}: not a known kind of volume; pass {', '.join((*SUFFIXES, *PICTURES))}, a DICOM file or a folder "
        "of DICOM files."
    )


def case_name(path: str | Path) -> str:
    """A file's name without folder and (double) suffix, a folder's own name: `a/b.c.nii.gz` -> `b.c`."""
    path = Path(path)
    suffix = "" if path.is_dir() else _suffix(path)
    return path.name[: len(path.name) - len(suffix)]


def _common_name(files: Sequence[Path]) -> str:
    return case_name(files[0]) if len(files) == 1 else files[0].parent.resolve().name


def _suffix(path: Path) -> str:
    return ".nii.gz" if path.name.lower().endswith(".nii.gz") else path.suffix.lower()
