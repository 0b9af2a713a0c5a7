"""DICOM: which files belong to one series, and which series there are."""

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
from medclipad.volume.dicom.frames import HEADER_TAGS, Frame, frames_of
from medclipad.volume.dicom.grid import grid_of, one_frame_per_place, require_alike
from medclipad.volume.read_errors import BoundedFile, damage_named, no_such_file

_LISTED = 12  # series named in an error
_MADE_OF_IMAGES = (  # not to be analysed where there are other images beside
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
    """A series of images in a folder. size: voxels along columns, rows and slices; spacing: mm; both are None where the
    images do not lie on one grid, and `problem` then says why, with the remedy."""

    uid: str
    description: str
    modality: str
    images: int
    size: tuple[int, int, int] | None
    spacing: tuple[float, float, float] | None
    problem: str | None


def list_series(source: str | Path | Sequence[str | Path]) -> list[SeriesInfo]:
    """The series of images in a folder, zip, DICOMDIR or list of files, in the order of their files.

    Raises VolumeError if there is none, or the source cannot be looked through.
    """
    source = Path(source).expanduser() if isinstance(source, (str, Path)) else [Path(file) for file in source]
    if isinstance(source, Path) and not source.exists():
        raise no_such_file(source)
    with dicom_files(source) as (files, chosen):
        name = source.name if isinstance(source, Path) else "the list"
        return [_described(uid, group) for uid, group in series_of(headers_of(files, chosen, name)).items()]


def _described(uid: str, group: dict[Path, Dataset]) -> SeriesInfo:
    first = next(iter(group.values()))
    count = sum(int(header.get("NumberOfFrames") or 1) for header in group.values())
    description = str(first.get("SeriesDescription", ""))
    size = spacing = problem = None
    try:
        frames = [frame for path, header in group.items() for frame in placed_frames(path, header)]
        name = description or "the series"
        require_alike(frames, name)
        frames = one_frame_per_place(frames, None, name)
        affine, _ = grid_of(frames, name)
        rows, columns = frames[0].size
        size = (columns, rows, len(frames))
        spacing = tuple(float((affine[:3, axis] ** 2).sum() ** 0.5) for axis in range(3))
    except VolumeError as error:
        problem = str(error)
    return SeriesInfo(uid, description, str(first.get("Modality", "")), count, size, spacing, problem)


def headers_of(files: Sequence[Path], chosen: bool, name: str) -> dict[Path, Dataset]:
    """The headers of those files that are DICOM images; if they were `chosen`, VolumeError for one that is not."""
    headers = {path: header for path in files if (header := _header(path, must=chosen)) is not None}
    if not headers:
        raise VolumeError(f"{name}: it holds no DICOM images; pass a folder or a list of DICOM image files.")
    return headers


def _header(path: Path, must: bool) -> Dataset | None:
    """The header of a DICOM image, None for another file; if it `must` be one, VolumeError says that it is not."""
    if not path.is_file():
        raise VolumeError(f"{path}: there is no such file; check the list.")
    with damage_named(path):
        if is_dicom(path):
            with BoundedFile(path) as stream:
                header = read_partial(stream, _until_pixels(), force=True, specific_tags=list(_TAGS))
            _require_whole_numbers(header)
            list(header)  # pydicom parses a value, and finds its damage, only when it is asked for
            if header.get("Rows") and header.get("Columns"):
                return header
            _require_no_image(header, path)
    if must:
        raise VolumeError(f"{path.name}: not a DICOM image; pass the image files of one series, or their folder.")
    return None


def _until_pixels() -> Callable[[BaseTag, str | None, int], bool]:
    """Tells `read_partial` where to stop, and raises ValueError over a tag of ours that stands twice: pydicom would
    take the last one, other readers the first.
    """
    seen = set()

    def reached(tag: BaseTag, representation: str | None, length: int) -> bool:
        if tag in seen and tag in _TAGS:
            raise ValueError(f"it gives its {keyword_for_tag(tag)} twice")
        seen.add(tag)
        return tag in _PIXELS

    return reached


def _require_whole_numbers(dataset: Dataset) -> None:
    """Raise ValueError over a number written as text with a NUL in it: pydicom drops what stands behind it."""
    for element in list(dataset.values()):
        known = element.VR or (dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else "UN")
        if known == "SQ":
            for item in dataset[element.tag].value:
                _require_whole_numbers(item)
        elif known in ("DS", "IS") and b"\0" in (dataset.get_item(element.tag).value or b"").rstrip(b"\0 "):
            raise ValueError(f"its {keyword_for_tag(element.tag)} is no number, or is cut off")


def _require_no_image(header: Dataset, path: Path) -> None:
    """Raise ValueError if a file without rows and columns ought to have them: a slice must not get lost unnoticed."""
    kind, said = UID(str(header.get("SOPClassUID", ""))), header.file_meta.get("MediaStorageSOPClassUID")
    if said == MediaStorageDirectoryStorage:
        return
    if not kind or (said and said != kind):
        raise ValueError("it does not say what it is")
    unknown = kind.name == kind  # a maker's own class, or a damaged one
    standard = kind.startswith("1.2.840.10008.") or not kind.is_valid
    if "Image Storage" in kind.name or (unknown and (standard or _PIXEL_DATA.search(path.read_bytes()))):
        raise ValueError("an image without its rows and columns")


def placed_frames(path: Path, header: Dataset) -> list[Frame]:
    """The frames of an image file with their places; VolumeError if it has none or is damaged."""
    with damage_named(path):
        return frames_of(path, header)


def series_of(headers: dict[Path, Dataset]) -> dict[str, dict[Path, Dataset]]:
    """Headers by their series' UID."""
    groups: dict[str, dict[Path, Dataset]] = {}
    for path, header in headers.items():
        groups.setdefault(str(header.get("SeriesInstanceUID", "")), {})[path] = header
    return groups


def one_series(headers: dict[Path, Dataset], wanted: str | None, name: str) -> tuple[dict[Path, Dataset], list[str]]:
    """(headers, notes) of the series `wanted`, or of the only one. Localisers, segmentations, parametric maps and
    secondary captures do not count beside other images, nor images derived from others beside original ones."""
    groups = series_of(headers)
    if wanted is not None:
        if wanted not in groups:
            raise VolumeError(f"{name}: there is no series {wanted}; choose one of {_listing(groups)}.")
        groups = {wanted: groups[wanted]}
    headers = {path: header for group in groups.values() for path, header in group.items()}
    kept = _without(_without(groups, _aside), _derived)
    if len(kept) > 1:
        raise VolumeError(
            f"{name}: it holds {len(kept)} series, {_listing(kept)}; pass the files of one series, or series=UID."
        )
    chosen = next(iter(kept.values()))
    _require_one_of_each(chosen, name)
    left_out = [_aside(header) or _derived(header) for path, header in headers.items() if path not in chosen]
    return chosen, [f"{left_out.count(what)} {what} were left out" for what in dict.fromkeys(left_out)]


def _require_one_of_each(headers: dict[Path, Dataset], name: str) -> None:
    """Raise VolumeError for a series, by its UID, of which the images do not belong together: their places could not
    be compared."""
    for keyword, what in _COMMON.items():
        values = {str(header.get(keyword) or "") for header in headers.values()}
        if len(values) > 1:
            raise VolumeError(
                f"{name}: it holds images of {len(values)} {what} under one series UID; "
                "pass a list of the files that belong together."
            )


def _without(groups: _Groups, what: Callable[[Dataset], str | None]) -> _Groups:
    """The groups without the images that are `what`; as they are, if no other images would be left."""
    kept = {uid: {p: h for p, h in group.items() if not what(h)} for uid, group in groups.items()}
    return {uid: group for uid, group in kept.items() if group} or groups


def _derived(header: Dataset) -> str | None:
    return "derived images" if "DERIVED" in (header.get("ImageType") or ())[:1] else None


def _aside(header: Dataset) -> str | None:
    """What an image is, if it is none to analyse."""
    if "LOCALIZER" in (header.get("ImageType") or ()):
        return "localiser images"
    return "objects made from images" if header.get("SOPClassUID") in _MADE_OF_IMAGES else None


def _listing(groups: dict[str, dict[Path, Dataset]]) -> str:
    texts = []
    for uid, group in list(groups.items())[:_LISTED]:
        first = next(iter(group.values()))
        count = sum(int(header.get("NumberOfFrames") or 1) for header in group.values())
        texts.append(f"{first.get('SeriesDescription') or first.get('Modality') or 'unnamed'} ({count} slices, {uid})")
    more = len(groups) - len(texts)
    return ", ".join(texts) + (f" and {more} more" if more else "")
