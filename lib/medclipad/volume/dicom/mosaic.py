"""DICOM: Siemens mosaics, the slices of a volume tiled in one picture."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset

from medclipad.errors import VolumeError
from medclipad.volume.dicom.frames import Frame, frames_of
from medclipad.volume.read_errors import volume_errors

COUNT = (0x0019, 0x100A)
"""Siemens's element with the number of slices in a mosaic."""

MOSAIC_TAGS = (
    COUNT, *((0x0029, creator) for creator in range(0x0010, 0x0013)),
    *((0x0029, block << 8 | 0x10) for block in range(0x10, 0x13)),
)  # fmt: skip
"""Private tags that mosaics need: the number of slices and, in one of these blocks, the CSA header."""


def slices_of(path: Path, header: Dataset) -> list[Frame]:
    """Return the slices of one file: its image, its frames, or the tiles of a mosaic.

    Parameters
    ----------
    path
        The file.
    header
        Its header, with at least `HEADER_TAGS` and `MOSAIC_TAGS`.

    Raises
    ------
    VolumeError
        As from `frames_of`, or if a mosaic does not say where its slices lie.
    """
    frames = frames_of(path, header)
    if len(frames) > 1:
        return frames
    with volume_errors(path):
        return _split(frames[0], header)


def _split(frame: Frame, header: Dataset) -> list[Frame]:
    """Return the slices of a mosaic, or the only frame of its file itself if it is none.

    Notes
    -----
    A mosaic is known by Siemens's own elements, not by ImageType, which other images inherit. The picture's position is
    that of a slice of the picture's size with the same centre, so a slice's own lies half the difference further in.
    """
    count, normal = _tiles(header)
    if not count or count < 2:
        return [frame]
    side = int(np.ceil(np.sqrt(count)))
    spacing = header.get("SpacingBetweenSlices") or frame.thickness
    if any(n % side for n in frame.size):
        raise VolumeError(
            f"{frame.path.name}: it is a mosaic of {count} slices, but its {frame.size[1]} x {frame.size[0]} pixels "
            f"are not {side} x {side} tiles; export it again in its original size."
        )
    if normal is None or spacing is None or abs(abs(normal @ frame.normal) - 1) > 1e-3:
        raise VolumeError(
            f"{frame.path.name}: it is a mosaic of {count} slices, but its private Siemens header, which says where "
            "they lie, is missing or damaged; export it again with its private elements, or convert it with dcm2niix."
        )
    rows, columns = (n // side for n in frame.size)
    along_row, along_column = frame.orientation
    first = frame.position + along_row * frame.spacing[1] * (frame.size[1] - columns) / 2
    first = first + along_column * frame.spacing[0] * (frame.size[0] - rows) / 2
    direction = frame.normal * np.sign(normal @ frame.normal)
    return [
        replace(frame, number=k, tiles=side, size=(rows, columns), position=first + k * float(spacing) * direction)
        for k in range(count)
    ]


def _tiles(header: Dataset) -> tuple[int | None, np.ndarray | None]:
    """Return the number of slices in a mosaic and the vector along which they follow each other, None if not given."""
    count = header[COUNT].value if COUNT in header else None
    if not _is_from_siemens(header):
        return None, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # nibabel calls its reader experimental
        from nibabel.nicom.csareader import get_csa_header, get_scalar, get_vector
    csa = get_csa_header(header, "image")
    if csa is None:
        return count, None
    normal = get_vector(csa, "SliceNormalVector", 3)
    count = get_scalar(csa, "NumberOfImagesInMosaic") if count is None else count
    return count and int(count), None if normal is None else np.array(normal, dtype=float)


def _is_from_siemens(header: Dataset) -> bool:
    """Return whether an image says that it is from Siemens, or has one of their private blocks."""
    creators = (str(header[tag].value) for tag in MOSAIC_TAGS if tag[1] < 0x1000 and tag in header)
    return any(creator.strip().upper().startswith("SIEMENS") for creator in creators)


def require_no_lost_mosaic(frames: Sequence[Frame], header: Dataset) -> None:
    """Raise VolumeError if a volume is one picture that by its ImageType is a mosaic, but lacks Siemens's elements."""
    if len(frames) == 1 and "MOSAIC" in (header.get("ImageType") or ()):
        raise VolumeError(
            f"{frames[0].path.name}: its ImageType says that it is a mosaic, but the private Siemens elements that "
            "give the number of its slices are missing; export it again with them, or convert it with dcm2niix."
        )


def untiled(values: np.ndarray, tiles: int) -> np.ndarray:
    """Return the tiles of a picture, row by row.

    Parameters
    ----------
    values
        (1, rows, columns) picture.
    tiles
        Tiles along each side.

    Returns
    -------
    numpy.ndarray
        (tiles * tiles, rows / tiles, columns / tiles); the last ones may be empty.
    """
    rows, columns = (n // tiles for n in values.shape[1:])
    return values.reshape(tiles, rows, tiles, columns).swapaxes(1, 2).reshape(-1, rows, columns)
