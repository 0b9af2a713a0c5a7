"""DICOM: read a series as a volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medclipad.errors import VolumeError
from medclipad.volume.components import Component
from medclipad.volume.dicom.copies import without_copies
from medclipad.volume.dicom.files import ARCHIVE, dicom_files, others_note
from medclipad.volume.dicom.frames import Frame
from medclipad.volume.dicom.grid import grid_of
from medclipad.volume.dicom.mosaic import require_no_lost_mosaic, slices_of, untiled
from medclipad.volume.dicom.pixels import stored_values
from medclipad.volume.dicom.series import headers_of, select_series
from medclipad.volume.dicom.tilt import is_tilted, resample_upright, tilt_degrees
from medclipad.volume.dicom.volumes import choose_volume, volumes_of
from medclipad.volume.memory_budget import in_words, require_allowed, require_memory
from medclipad.volume.scaling import scaled_type
from medclipad.volume.volume import Volume

_KEPT = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SeriesDescription")


def read_dicom(
    source: Path | Sequence[Path], *, series: str | None = None, component: Component = None, tilt: str = "refuse"
) -> Volume:
    """Read a DICOM series as a volume.

    Parameters
    ----------
    source
        A folder (searched with its subfolders), zip, DICOMDIR, single file or list of files.
    series
        SeriesInstanceUID of the series to read, if there are several.
    component
        Volume to read of a series that holds several, by its number or by what tells it apart, such as "b=1000".
    tilt
        "resample" a gantry tilt to upright slices, or "refuse" it.

    Raises
    ------
    VolumeError
        If there are several series, several volumes in the series, a gantry tilt, missing or unevenly spaced slices,
        colours, or pixels that cannot be decoded. The message names the remedy.

    Notes
    -----
    Slices are sorted by their position along the slice normal, never by name or number; multi-frame files count as
    their frames. Values are the stored ones, rescaled slice by slice where the header says so (to float32 or float64;
    else the stored type is kept). MONOCHROME1 and padding concern the display and change no value. In a folder, files
    that are not DICOM images are ignored; localisers, derived images and objects made from images are left out with a
    note.
    """
    with dicom_files(source) as (files, explicit):
        if not files and explicit:
            raise VolumeError("the list of DICOM files is empty; pass at least one file.")
        name = _name(source, files)
        others = [] if explicit else others_note(files)
        found, without_image = headers_of(files, explicit, name)
        headers, notes = select_series(found, series, name)
        return _read(headers, notes + others + without_image, name, component, tilt == "resample")


def _name(source: Path | Sequence[Path], files: Sequence[Path]) -> str:
    """Return the name of the case: that of the file, or of the folder that holds the files."""
    if isinstance(source, Path):
        return (source.parent if source.name == "DICOMDIR" else source).resolve().name
    return files[0].name if len(files) == 1 else files[0].parent.resolve().name


def _read(headers: dict[Path, Dataset], notes: list[str], name: str, component: Component, tilted: bool) -> Volume:
    """Return the images of one series as a volume."""
    headers, copies = without_copies(headers)
    frames = [frame for path, header in headers.items() for frame in slices_of(path, header)]
    frames = choose_volume(volumes_of(frames, name), component, name).frames
    affine, grid_notes = grid_of(frames, name, tilted)
    notes = notes + copies + grid_notes
    first = headers[frames[0].path]
    require_no_lost_mosaic(frames, first)
    if first.get("PhotometricInterpretation") == "MONOCHROME1":
        notes.append("the images are MONOCHROME1: a viewer shows their low values bright, here the values count")
    identity = {keyword: str(first.get(keyword, "")) for keyword in _KEPT}
    instances = [(str(headers[frame.path].get("SOPInstanceUID", "")), frame.number + 1) for frame in frames]
    array, padded = _pixels(frames, name)
    if padded:
        notes.append(f"{padded / array.size:.1%} of the voxels hold the padding value; they count like any others")
    if is_tilted(affine, len(frames)):
        notes.append(
            f"a gantry tilt of {tilt_degrees(affine):.1f} degrees is resampled to upright slices, linearly; "
            "the grid is a new one"
        )
        array, affine = resample_upright(array, affine)
        instances = []  # a derived object could not refer to them: they are not on this grid
    return Volume(
        array,
        affine,
        name=name.removesuffix(".dcm").removesuffix(ARCHIVE),
        modality=first.get("Modality") or None,
        metadata={"format": "DICOM", "notes": notes, "dicom": {**identity, "instances": instances}},
    )


def _pixels(frames: list[Frame], name: str) -> tuple[np.ndarray, int]:
    """Return (columns, rows, slices) values, column index fastest, and how many of them are padding."""
    scalings = {(frame.dtype, frame.slope, frame.intercept) for frame in frames}
    dtype = np.result_type(
        *(
            stored if (slope, intercept) == (1, 0) else scaled_type(stored, slope, intercept)
            for stored, slope, intercept in scalings
        )
    )
    shape = (len(frames), *frames[0].size)
    per_file = max(Counter(frame.path for frame in frames).values())  # held twice: encoded and decoded
    slice_bytes = frames[0].size[0] * frames[0].size[1] * dtype.itemsize
    require_allowed(len(frames) * slice_bytes, name, shape[::-1])
    require_memory((len(frames) + 2 * per_file) * slice_bytes, name, f"reading {in_words(shape[::-1])}")
    array, padded = np.empty(shape, dtype=dtype), 0
    path, values = None, array
    for k, frame in enumerate(frames):
        if frame.path != path:
            path, values = frame.path, stored_values(frame)
            values = untiled(values, frame.tiles) if frame.tiles else values
        if frame.padding is not None:
            padded += int(np.count_nonzero(values[frame.number] == frame.padding))
        # Integers times a Python float are float64, so that the sum is rounded once.
        plain = (frame.slope, frame.intercept) == (1, 0)
        array[k] = values[frame.number] if plain else values[frame.number] * frame.slope + frame.intercept
    return array.transpose(2, 1, 0), padded
