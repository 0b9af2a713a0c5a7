"""DICOM: which files are one series, and the series as a volume."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from medclipad.errors import VolumeError

from .damage import damage_named
from .dicom_frames import HEADER_TAGS, Frame, frames_of
from .dicom_grid import grid_of, one_frame_per_place, require_alike
from .dicom_pixels import stored_values
from .volume import Volume

_LISTED = 12  # series named in an error
_KEPT = ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SeriesDescription")


def is_dicom(path: Path) -> bool:
    """Whether a file starts as DICOM does: with its preamble or, in old files, with a tag of the first groups."""
    with path.open("rb") as stream:
        start = stream.read(132)
    old = start[:2] in (b"\x02\x00", b"\x08\x00") and start[3:4] == b"\x00"
    return len(start) == 132 and (old or start[128:] == b"DICM")


def read_dicom(source: Path | Sequence[Path], *, series: str | None = None, component: int | None = None) -> Volume:
    """A DICOM series, from a folder (searched with its subfolders) or a list of files, as a volume.

    Slices are sorted by their position along the slice normal, never by name or number; multi-frame files count as
    their frames. Values are the stored ones, rescaled slice by slice where the header says so (float32, or the stored
    type where it does not); MONOCHROME1 and padding are matters of display and change no value. In a folder, what is
    not a DICOM image is ignored; localisers are left out with a note.

    `component` chooses between several images at each place (time points, echoes, b-values), `series` between series.

    Raises VolumeError, naming the remedy, for several series, mixed sizes or orientations, several images at one place,
    gantry tilt, missing or unevenly spaced slices, colour, and pixels that cannot be decoded.
    """
    folder = isinstance(source, Path)
    files = sorted(p for p in source.rglob("*") if p.is_file()) if folder else list(dict.fromkeys(source))
    if not files and not folder:
        raise VolumeError("the list of DICOM files is empty; pass at least one file.")
    single = not folder and len(files) == 1
    name = files[0].name if single else (source if folder else files[0].parent).resolve().name
    headers = {path: header for path in files if (header := _header(path, must=not folder)) is not None}
    if not headers:
        raise VolumeError(f"{name}: it holds no DICOM images; pass a folder or a list of DICOM image files.")
    headers, notes = _one_series(headers, series, name)
    frames = [frame for path, header in headers.items() for frame in _frames(path, header)]
    require_alike(frames, name)
    frames = one_frame_per_place(frames, component, name)
    affine, grid_notes = grid_of(frames, name)
    first = headers[frames[0].path]
    if first.get("PhotometricInterpretation") == "MONOCHROME1":
        notes.append("the images are MONOCHROME1: a viewer shows their low values bright, here the values count")
    identity = {keyword: str(first.get(keyword, "")) for keyword in _KEPT}
    instances = [(str(headers[frame.path].get("SOPInstanceUID", "")), frame.number + 1) for frame in frames]
    return Volume(
        _pixels(frames),
        affine,
        name=name.removesuffix(".dcm") if single else name,
        modality=first.get("Modality") or None,
        metadata={"format": "DICOM", "notes": [*notes, *grid_notes], "dicom": {**identity, "instances": instances}},
    )


def _header(path: Path, must: bool) -> Dataset | None:
    """The header of a DICOM image, None for another file; if it `must` be one, VolumeError says that it is not."""
    if not path.is_file():
        raise VolumeError(f"{path}: there is no such file; check the list.")
    with damage_named(path):
        if is_dicom(path):
            header = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=list(HEADER_TAGS))
            list(header)  # pydicom parses a value, and finds its damage, only when it is asked for
            if header.get("Rows") and header.get("Columns"):
                return header
    if must:
        raise VolumeError(f"{path.name}: not a DICOM image; pass the image files of one series, or their folder.")
    return None


def _frames(path: Path, header: Dataset) -> list[Frame]:
    with damage_named(path):
        return frames_of(path, header)


def _one_series(headers: dict[Path, Dataset], wanted: str | None, name: str) -> tuple[dict[Path, Dataset], list[str]]:
    """The headers of the series `wanted`, or of the only one; localisers do not count beside other images."""
    groups: dict[str, dict[Path, Dataset]] = {}
    for path, header in headers.items():
        groups.setdefault(str(header.get("SeriesInstanceUID", "")), {})[path] = header
    if wanted is not None:
        if wanted not in groups:
            raise VolumeError(f"{name}: there is no series {wanted}; choose one of {_listing(groups)}.")
        return groups[wanted], []
    kept = {uid: {p: h for p, h in group.items() if not _localiser(h)} for uid, group in groups.items()}
    kept = {uid: group for uid, group in kept.items() if group} or groups
    if len(kept) > 1:
        raise VolumeError(
            f"{name}: it holds {len(kept)} series, {_listing(kept)}; pass the files of one series, or series=UID."
        )
    left_out = len(headers) - sum(map(len, kept.values()))
    return next(iter(kept.values())), [f"{left_out} localiser images were left out"] if left_out else []


def _localiser(header: Dataset) -> bool:
    return "LOCALIZER" in (header.get("ImageType") or ())


def _listing(groups: dict[str, dict[Path, Dataset]]) -> str:
    texts = []
    for uid, group in list(groups.items())[:_LISTED]:
        first = next(iter(group.values()))
        count = sum(int(header.get("NumberOfFrames") or 1) for header in group.values())
        texts.append(f"{first.get('SeriesDescription') or first.get('Modality') or 'unnamed'} ({count} slices, {uid})")
    more = len(groups) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more else "")


def _pixels(frames: list[Frame]) -> np.ndarray:
    """(columns, rows, slices), column index fastest, of the frames in their order."""
    dtype = np.result_type(*(frame.dtype for frame in frames))
    if any((frame.slope, frame.intercept) != (1, 0) for frame in frames):
        dtype = np.result_type(dtype, np.float32)
    array = np.empty((len(frames), *frames[0].size), dtype=dtype)
    path, values = None, array
    for k, frame in enumerate(frames):
        if frame.path != path:
            path, values = frame.path, stored_values(frame)
        array[k] = values[frame.number]
        if (frame.slope, frame.intercept) != (1, 0):
            array[k] = array[k] * frame.slope + frame.intercept
    return array.transpose(2, 1, 0)
