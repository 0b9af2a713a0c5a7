"""DICOM: list the series of a source, and select one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.datadict import dictionary_has_tag, dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag, Tag
from pydicom.uid import (
    UID,
    MediaStorageDirectoryStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from medclipad.errors import VolumeError
from medclipad.volume.dicom.files import dicom_files, is_dicom
from medclipad.volume.dicom.frames import HEADER_TAGS, frames_of
from medclipad.volume.dicom.grid import grid_of, one_frame_per_position, require_uniform
from medclipad.volume.read_errors import BoundedFile, not_found_error, volume_errors

_LISTED = 12  # series named in an error; more would not be read
_MADE_OF_IMAGES = (  # not to be analysed if there are other images beside them
    SegmentationStorage,
    ParametricMapStorage,
    SecondaryCaptureImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
)

_COMMON = {
    "PatientID": "patients",
    "StudyInstanceUID": "studies",
    "FrameOfReferenceUID": "frames of reference",
    "Modality": "modalities",
}
_TAGS = frozenset(map(Tag, HEADER_TAGS))
_PIXELS = frozenset(map(Tag, ("PixelData", "FloatPixelData", "DoubleFloatPixelData")))
_PIXEL_DATA = re.compile(rb"\xe0\x7f\x10\x00|\x7f\xe0\x00\x10")

_Groups = dict[str, dict[Path, Dataset]]


@dataclass(frozen=True)
class SeriesInfo:
    """Series of images in a DICOM source.

    Attributes
    ----------
    uid : str
        SeriesInstanceUID, to pass as `series` to `read_volume`.
    description : str
        SeriesDescription.
    modality : str
        DICOM modality, such as "CT" or "MR".
    images : int
        Number of images, frames of multi-frame files included.
    size : tuple of int or None
        Voxels along columns, rows and slices; None if the images do not lie on one grid.
    spacing : tuple of float or None
        Distance between voxels in mm along columns, rows and slices; None if the images do not lie on one grid.
    problem : str or None
        Why the images do not lie on one grid, with the remedy.
    """

    uid: str
    description: str
    modality: str
    images: int
    size: tuple[int, int, int] | None
    spacing: tuple[float, float, float] | None
    problem: str | None


def list_series(source: str | Path | Sequence[str | Path]) -> list[SeriesInfo]:
    """Return the series of images in a folder, zip, DICOMDIR or list of files.

    Parameters
    ----------
    source
        Where to look; folders are searched with their subfolders.

    Returns
    -------
    list of SeriesInfo
        In the order of their files.

    Raises
    ------
    VolumeError
        If there are no images, or the source cannot be searched.

    Examples
    --------
    >>> from medclipad.volume import list_series
    >>> from pydicom.data import get_testdata_file
    >>> (series,) = list_series([get_testdata_file("CT_small.dcm")])
    >>> series.modality, series.images, series.size
    ('CT', 1, (128, 128, 1))
    """
    source = Path(source).expanduser() if isinstance(source, (str, Path)) else [Path(file) for file in source]
    if isinstance(source, Path) and not source.exists():
        raise not_found_error(source)
    with dicom_files(source) as (files, explicit):
        name = source.name if isinstance(source, Path) else "the list"
        return [_series_info(uid, group) for uid, group in series_of(headers_of(files, explicit, name)).items()]


def _series_info(uid: str, group: dict[Path, Dataset]) -> SeriesInfo:
    """Return what there is to know about the images of one series."""
    first = next(iter(group.values()))
    count = sum(int(header.get("NumberOfFrames") or 1) for header in group.values())
    description = str(first.get("SeriesDescription", ""))
    size = spacing = problem = None
    try:
        frames = [frame for path, header in group.items() for frame in frames_of(path, header)]
        name = description or "the series"
        require_uniform(frames, name)
        frames = one_frame_per_position(frames, None, name)
        affine, _ = grid_of(frames, name)
        rows, columns = frames[0].size
        size = (columns, rows, len(frames))
        along_columns, along_rows, along_slices = (float((affine[:3, axis] ** 2).sum() ** 0.5) for axis in range(3))
        spacing = (along_columns, along_rows, along_slices)
    except VolumeError as error:
        problem = str(error)
    return SeriesInfo(uid, description, str(first.get("Modality", "")), count, size, spacing, problem)


def headers_of(files: Sequence[Path], explicit: bool, name: str) -> dict[Path, Dataset]:
    """Return the headers of the files that are DICOM images.

    Parameters
    ----------
    files
        Files to read.
    explicit
        Whether each file must be a DICOM image; otherwise other files are ignored.
    name
        Name of the source, for messages.

    Raises
    ------
    VolumeError
        If a file is damaged, if one is not an image although it must be, or if there are no images at all.
    """
    headers = {path: header for path in files if (header := _header(path, required=explicit)) is not None}
    if not headers:
        raise VolumeError(f"{name}: it holds no DICOM images; pass a folder or a list of DICOM image files.")
    return headers


def _header(path: Path, required: bool) -> Dataset | None:
    """Return the header of a DICOM image; for another file None, or VolumeError if an image is `required`."""
    if not path.is_file():
        raise VolumeError(f"{path}: there is no such file; check the list.")
    with volume_errors(path):
        if is_dicom(path):
            with BoundedFile(path) as stream:
                header = read_partial(stream, _until_pixels(), force=True, specific_tags=list(_TAGS))
            _require_complete_numbers(header)
            list(header)  # pydicom parses a value, and finds its damage, only when it is accessed
            if header.get("Rows") and header.get("Columns"):
                return header
            _require_no_image(header, path)
    if required:
        raise VolumeError(f"{path.name}: not a DICOM image; pass the image files of one series, or their folder.")
    return None


def _until_pixels() -> Callable[[BaseTag, str | None, int], bool]:
    """Return a function that tells `read_partial` where to stop.

    It raises ValueError if one of our tags is there twice: pydicom would use the last one, other readers the first.
    """
    seen = set()

    def reached(tag: BaseTag, representation: str | None, length: int) -> bool:
        if tag in seen and tag in _TAGS:
            raise ValueError(f"its header gives {keyword_for_tag(tag)} twice")
        seen.add(tag)
        return tag in _PIXELS

    return reached


def _require_complete_numbers(dataset: Dataset) -> None:
    """Raise ValueError if a number that is written as text contains a NUL: pydicom would drop the rest of it."""
    for element in list(dataset.values()):
        vr = element.VR or (dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else "UN")
        if vr == "SQ":
            for item in dataset[element.tag].value:
                _require_complete_numbers(item)
        elif vr in ("DS", "IS") and b"\0" in (dataset.get_item(element.tag).value or b"").rstrip(b"\0 "):
            raise ValueError(f"its {keyword_for_tag(element.tag)} is not a number, or is cut off")


def _require_no_image(header: Dataset, path: Path) -> None:
    """Raise ValueError if a file without rows and columns ought to have them: a slice must not be lost unnoticed."""
    sop_class, in_meta = UID(str(header.get("SOPClassUID", ""))), header.file_meta.get("MediaStorageSOPClassUID")
    if in_meta == MediaStorageDirectoryStorage:
        return
    if not sop_class or (in_meta and in_meta != sop_class):
        raise ValueError("it does not name its SOP class")
    unknown = sop_class.name == sop_class  # a vendor's private class, or a damaged one
    standard = sop_class.startswith("1.2.840.10008.") or not sop_class.is_valid
    if "Image Storage" in sop_class.name or (unknown and (standard or _PIXEL_DATA.search(path.read_bytes()))):
        raise ValueError("an image without its number of rows and columns")


def series_of(headers: dict[Path, Dataset]) -> dict[str, dict[Path, Dataset]]:
    """Return headers grouped by SeriesInstanceUID."""
    groups: dict[str, dict[Path, Dataset]] = {}
    for path, header in headers.items():
        groups.setdefault(str(header.get("SeriesInstanceUID", "")), {})[path] = header
    return groups


def select_series(headers: dict[Path, Dataset], uid: str | None, name: str) -> tuple[dict[Path, Dataset], list[str]]:
    """Return the headers of the requested series, or of the only one.

    Parameters
    ----------
    headers
        Headers of images, by file.
    uid
        SeriesInstanceUID; None if there is only one series. Localisers, segmentations, parametric maps and secondary
        captures do not count beside other images, nor do derived images beside original ones.
    name
        Name of the source, for messages.

    Returns
    -------
    headers : dict
        Headers of the series, by file.
    notes : list of str
        What was left out.

    Raises
    ------
    VolumeError
        If the series was not found, if there are several, or if its images do not belong together.
    """
    groups = series_of(headers)
    if uid is not None:
        if uid not in groups:
            raise VolumeError(f"{name}: series {uid} was not found; choose one of {_listing(groups)}.")
        groups = {uid: groups[uid]}
    headers = {path: header for group in groups.values() for path, header in group.items()}
    kept = _without(_without(groups, _not_analysed), _derived)
    if len(kept) > 1:
        raise VolumeError(
            f"{name}: it holds {len(kept)} series, {_listing(kept)}; pass the files of one series, or series=UID."
        )
    chosen = next(iter(kept.values()))
    _require_common_frame(chosen, name)
    left_out = [_not_analysed(header) or _derived(header) for path, header in headers.items() if path not in chosen]
    counts = {what: left_out.count(what) for what in left_out if what}
    return chosen, [
        f"1 {one} was left out" if n == 1 else f"{n} {many} were left out" for (one, many), n in counts.items()
    ]


def _require_common_frame(headers: dict[Path, Dataset], name: str) -> None:
    """Raise VolumeError if images of one series UID do not belong together: their positions cannot be compared."""
    for keyword, what in _COMMON.items():
        values = {str(header.get(keyword) or "") for header in headers.values()}
        if len(values) > 1:
            raise VolumeError(
                f"{name}: it holds images of {len(values)} {what} under one series UID; "
                "pass a list of the files that belong together."
            )


def _without(groups: _Groups, is_excluded: Callable[[Dataset], tuple[str, str] | None]) -> _Groups:
    """Return the groups without the excluded images; unchanged if no other images would be left."""
    kept = {uid: {p: h for p, h in group.items() if not is_excluded(h)} for uid, group in groups.items()}
    return {uid: group for uid, group in kept.items() if group} or groups


def _derived(header: Dataset) -> tuple[str, str] | None:
    """Return what an image is, singular and plural, if it is derived from others, else None."""
    return ("derived image", "derived images") if "DERIVED" in (header.get("ImageType") or ())[:1] else None


def _not_analysed(header: Dataset) -> tuple[str, str] | None:
    """Return what an image is, singular and plural, if it is not one to analyse, else None."""
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localiser image", "localiser images"
    if header.get("SOPClassUID") in _MADE_OF_IMAGES:
        return "object made from images", "objects made from images"
    return None


def _listing(groups: dict[str, dict[Path, Dataset]]) -> str:
    """Return the series as text, each with its number of slices and its UID."""
    texts = []
    for uid, group in list(groups.items())[:_LISTED]:
        first = next(iter(group.values()))
        count = sum(int(header.get("NumberOfFrames") or 1) for header in group.values())
        texts.append(f"{first.get('SeriesDescription') or first.get('Modality') or 'unnamed'} ({count} slices, {uid})")
    more = len(groups) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more else "")
