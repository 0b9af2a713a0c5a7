"""DICOM: a series as a volume."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from medclipad.errors import VolumeError
from medclipad.volume.dicom.files import ARCHIVE, dicom_files, others_note
from medclipad.volume.dicom.frames import Frame
from medclipad.volume.dicom.grid import grid_of, one_frame_per_place, require_alike
from medclipad.volume.dicom.pixels import stored_values
from medclipad.volume.dicom.series import headers_of, one_series, placed_frames
from medclipad.volume.dicom.tilt import is_tilted, tilt_degrees, upright
from medclipad.volume.memory_budget import in_words, require_memory
from medclipad.volume.scaling import scaled_type
from medclipad.volume.volume import Volume

_KEPT = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SeriesDescription")


def read_dicom(
    source: Path | Sequence[Path], *, series: str | None = None, component: int | None = None, tilt: str = "refuse"
) -> Volume:
    """A DICOM series, from a folder (searched with its subfolders), zip, DICOMDIR or list of files, as a volume.

    Slices are sorted by their position along the slice normal, never by name or number; multi-frame files count as
    their frames. Values are the stored ones, rescaled slice by slice where the header says so (float32, or the stored
    type where it does not); MONOCHROME1 and padding are matters of display and change no value. In a folder, what is
    not a DICOM image is ignored; localisers, images derived from others and objects made from images are left out
    with a note. With `tilt="resample"` a gantry tilt is resampled to upright slices, else it is refused.

    `component` chooses between several images at each place (time points, echoes, b-values), `series` between series.

    Raises VolumeError, naming the remedy, for several series, mixed sizes or orientations, several images at one place,
    gantry tilt, missing or unevenly spaced slices, colour, and pixels that cannot be decoded.
    """
    with dicom_files(source) as (files, chosen):
        if not files and chosen:
            raise VolumeError("the list of DICOM files is empty; pass at least one file.")
        return _read(files, chosen, _name(source, files), series, component, tilt == "resample")


def _name(source: Path | Sequence[Path], files: Sequence[Path]) -> str:
    """What the case is called: the file, or the folder that holds them."""
    if isinstance(source, Path):
        return (source.parent if source.name == "DICOMDIR" else source).resolve().name
    return files[0].name if len(files) == 1 else files[0].parent.resolve().name


def _read(
    files: Sequence[Path], chosen: bool, name: str, series: str | None, component: int | None, tilted: bool
) -> Volume:
    others = [] if chosen else others_note(files)
    headers, notes = one_series(headers_of(files, chosen, name), series, name)
    frames = [frame for path, header in headers.items() for frame in placed_frames(path, header)]
    require_alike(frames, name)
    frames = one_frame_per_place(frames, component, name)
    affine, grid_notes = grid_of(frames, name, tilted)
    notes += grid_notes + others
    first = headers[frames[0].path]
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
        array, affine = upright(array, affine)
        instances = []  # a derived object could not refer to them: they do not lie on this grid
    return Volume(
        array,
        affine,
        name=name.removesuffix(".dcm").removesuffix(ARCHIVE),
        modality=first.get("Modality") or None,
        metadata={"format": "DICOM", "notes": notes, "dicom": {**identity, "instances": instances}},
    )


def _pixels(frames: list[Frame], name: str) -> tuple[np.ndarray, int]:
    """(columns, rows, slices), column index fastest, of the frames in their order; how many of them are padding."""
    kinds = {(frame.dtype, frame.slope, frame.intercept) for frame in frames}
    dtype = np.result_type(*(kind[0] if kind[1:] == (1, 0) else scaled_type(*kind) for kind in kinds))
    shape = (len(frames), *frames[0].size)
    together = max(Counter(frame.path for frame in frames).values())  # frames of a file: encoded, and decoded
    slice_bytes = frames[0].size[0] * frames[0].size[1] * dtype.itemsize
    require_memory((len(frames) + 2 * together) * slice_bytes, name, f"reading {in_words(shape[::-1])}")
    array, padded = np.empty(shape, dtype=dtype), 0
    path, values = None, array
    for k, frame in enumerate(frames):
        if frame.path != path:
            path, values = frame.path, stored_values(frame)
        array[k] = values[frame.number]
        if frame.padding is not None:
            padded += int(np.count_nonzero(values[frame.number] == frame.padding))
        if (frame.slope, frame.intercept) != (1, 0):
            array[k] = array[k] * frame.slope + frame.intercept
    return array.transpose(2, 1, 0), padded
