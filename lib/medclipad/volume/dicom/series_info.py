"""DICOM: what is known of a series before its pixels are read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class VolumeInfo:
    """One volume of a series that holds several.

    Attributes
    ----------
    label : str
        What tells it apart, such as "b=1000, direction=1 0 0".
    size : tuple of int or None
        Voxels along columns, rows and slices; None if its images do not lie on one grid.
    spacing : tuple of float or None
        Distance between voxels in mm along columns, rows and slices; None if its images do not lie on one grid.
    problem : str or None
        Why its images do not lie on one grid, with the remedy.
    """

    label: str
    size: tuple[int, int, int] | None
    spacing: tuple[float, float, float] | None
    problem: str | None


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
    volumes : tuple of VolumeInfo
        The volumes of the series if there are several; `component` of `read_volume` takes one by its index or label.
        Size, spacing and problem of the series are those of the first.
    """

    uid: str
    description: str
    modality: str
    images: int
    size: tuple[int, int, int] | None
    spacing: tuple[float, float, float] | None
    problem: str | None
    volumes: tuple[VolumeInfo, ...] = ()

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> SeriesInfo:
        """Return what `dataclasses.asdict` gave, after it was JSON, which has lists for tuples."""
        volumes = tuple(VolumeInfo(**_with_tuples(volume)) for volume in found["volumes"])
        return cls(**{**_with_tuples(found), "volumes": volumes})


def _with_tuples(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, **{key: tuple(found[key]) for key in ("size", "spacing") if found[key] is not None}}
