"""DICOM: list the series of a source, and select one of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
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
from medclipad.volume.dicom.copies import without_copies
from medclipad.volume.dicom.files import dicom_files, is_dicom, require_bounded_deflate
from medclipad.volume.dicom.frames import HEADER_TAGS
from medclipad.volume.dicom.grid import grid_of
from medclipad.volume.dicom.mosaic import MOSAIC_TAGS, slices_of
from medclipad.volume.dicom.series_info import SeriesInfo, VolumeInfo
from medclipad.volume.dicom.volumes import FoundVolume, volumes_of
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
_TAGS = frozenset(map(Tag, (*HEADER_TAGS, *MOSAIC_TAGS)))
_PIXELS = frozenset(map(Tag, ("PixelData", "FloatPixelData", "DoubleFloatPixelData")))
_PIXEL_DATA = re.compile(rb"\xe0\x7f\x10\x00|\x7f\xe0\x00\x10")

_Groups = dict[str, dict[Path, Dataset]]


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
        headers, _ = headers_of(files, explicit, name)
        return [_series_info(uid, group) for uid, group in series_of(headers).items()]


def _series_info(uid: str, group: dict[Path, Dataset]) -> SeriesInfo:
    """Return what there is to know about the images of one series."""
    first = next(iter(group.values()))
    count = sum(int(header.get("NumberOfFrames") or 1) for header in group.values())
    description = str(first.get("SeriesDescription", ""))
    size = spacing = problem = None
    volumes: list[VolumeInfo] = []
    try:
        name = description or "the series"
        group, _ = without_copies(group)
        count = sum(int(header.get("NumberOfFrames") or 1) for header in group.values())
        found = volumes_of([frame for path, header in group.items() for frame in slices_of(path, header)], name)
        volumes = [_volume_info(each, name) for each in found]
        size, spacing, problem = volumes[0].size, volumes[0].spacing, volumes[0].problem
    except VolumeError as error:
        problem = str(error)
    modality = str(first.get("Modality", ""))
    several = tuple(volumes) if len(volumes) > 1 else ()
    return SeriesInfo(uid, description, modality, count, size, spacing, problem, several)


def _volume_info(found: FoundVolume, name: str) -> VolumeInfo:
    """Return what there is to know about one volume of a series."""
    try:
        affine, _ = grid_of(found.frames, name)
    except VolumeError as error:
        return VolumeInfo(str(found), None, None, str(error))
    rows, columns = found.frames[0].size
    along_columns, along_rows, along_slices = (float((affine[:3, axis] ** 2).sum() ** 0.5) for axis in range(3))
    return VolumeInfo(str(found), (columns, rows, len(found.frames)), (along_columns, along_rows, along_slices), None)


def headers_of(files: Sequence[Path], explicit: bool, name: str) -> tuple[dict[Path, Dataset], list[str]]:
    """Return the headers of the files that are DICOM images, and a note on those that are DICOM but hold no image.

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
    headers: dict[Path, Dataset] = {}
    without_image: list[str] = []
    for path in files:
        header = _header(path, required=explicit)
        if isinstance(header, str):
            without_image.append(header)
        elif header is not None:
            headers[path] = header
    if not headers:
        raise VolumeError(f"{name}: it holds no DICOM images; pass a folder or a list of DICOM image files.")
    kinds = ", ".join(dict.fromkeys(without_image))
    if len(without_image) > 1:
        return headers, [f"{len(without_image)} DICOM objects without an image were left out ({kinds})"]
    return headers, [f"1 DICOM object without an image was left out ({kinds})"] if without_image else []


def _header(path: Path, required: bool) -> Dataset | str | None:
    """Return the header of a DICOM image.

    Of another DICOM object return what it is, of a DICOMDIR or a file that is not DICOM None. Raise VolumeError if an
    image is `required`.
    """
    if not path.is_file():
        raise VolumeError(f"{path}: there is no such file; check the list.")
    other = None
    with volume_errors(path):
        if is_dicom(path):
            require_bounded_deflate(path)
            elements = _Elements()
            with BoundedFile(path) as stream:
                header = read_partial(stream, elements, force=True, specific_tags=list(_TAGS))
            _require_complete_numbers(header)
            list(header)  # pydicom parses a value, and finds its damage, only when it is accessed
            if header.get("Rows") and header.get("Columns") and (elements.have_pixels or _is_image(header)):
                return header
            other = _kind_without_image(header, path)
    if required and other:
        raise VolumeError(f"{path.name}: it is {other}, which holds no image; pass image files, or their folder.")
    if required:
        raise VolumeError(f"{path.name}: not a DICOM image; pass the image files of one series, or their folder.")
    return other


class _Elements:
    """Callback that tells `read_partial` to stop at the pixels.

    It raises ValueError if one of our tags is there twice: pydicom would use the last one, other readers the first.
    """

    def __init__(self) -> None:
        self._seen: set[BaseTag] = set()
        self.have_pixels = False

    def __call__(self, tag: BaseTag, representation: str | None, length: int) -> bool:
        if not self._seen and length == 0:  # pydicom looks ahead where the transfer syntax is not what it found
            return tag in _PIXELS
        if tag in self._seen and tag in _TAGS:
            raise ValueError(f"its header gives {keyword_for_tag(tag)} twice")
        self._seen.add(tag)
        self.have_pixels = tag in _PIXELS
        return self.have_pixels


def _require_complete_numbers(dataset: Dataset) -> None:
    """Raise ValueError if a number that is written as text contains a NUL: pydicom would drop the rest of it."""
    for element in list(dataset.values()):
        vr = element.VR or (dictionary_VR(element.tag) if dictionary_has_tag(element.tag) else "UN")
        if vr == "SQ":
            for item in dataset[element.tag].value:
                _require_complete_numbers(item)
        elif vr in ("DS", "IS") and b"\0" in (dataset.get_item(element.tag).value or b"").rstrip(b"\0 "):
            raise ValueError(f"its {keyword_for_tag(element.tag)} is not a number, or is cut off")


def _is_image(header: Dataset) -> bool:
    """Return whether an object is an image by its SOP class, so that missing pixels are damage."""
    name = UID(str(header.get("SOPClassUID", ""))).name
    return "Spectroscopy" not in name and ("Image" in name or not name.startswith(("MR ", "Raw", "RT ")))


def _kind_without_image(header: Dataset, path: Path) -> str | None:
    """Return what a DICOM object without rows, columns or pixels is; None if it is a DICOMDIR.

    Raise ValueError if it ought to be an image: a slice must not be lost unnoticed.
    """
    sop_class, in_meta = UID(str(header.get("SOPClassUID", ""))), header.file_meta.get("MediaStorageSOPClassUID")
    if in_meta == MediaStorageDirectoryStorage:
        return None
    if not sop_class or (in_meta and in_meta != sop_class):
        raise ValueError("it does not name its SOP class")
    unknown = sop_class.name == sop_class  # a vendor's private class, or a damaged one
    standard = sop_class.startswith("1.2.840.10008.") or not sop_class.is_valid
    if "Image Storage" in sop_class.name or (unknown and (standard or _PIXEL_DATA.search(path.read_bytes()))):
        raise ValueError("an image without its number of rows and columns")
    return "a private object" if unknown else sop_class.name.removesuffix(" Storage")


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
            f"{name}: it holds {len(kept)} series, {_listing(kept)}; choose one with series=UID (--series)."
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
                "move those that belong together to a folder of their own."
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
