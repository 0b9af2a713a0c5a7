"""DICOM: frames as one regular grid, or the sentence that says why they are not one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from medclipad.errors import VolumeError
from medclipad.volume.dicom.frames import Frame
from medclipad.volume.volume import LPS_TO_RAS

SAME_POSITION = 1e-2
"""Slices closer than this (mm) have the same position."""

OFF_GRID = 0.1
"""A slice may lie off the even grid by this fraction of the slice spacing, and by at most this many mm."""


def grid_of(frames: list[Frame], name: str, tilted: bool = False) -> tuple[np.ndarray, list[str]]:
    """Return the affine of a stack of frames.

    Parameters
    ----------
    frames
        Frames of one size, orientation and spacing, sorted along their normal, one per position.
    name
        Name of the series, for messages.
    tilted
        Whether to accept a gantry tilt; the third axis of the affine is then slanted.

    Returns
    -------
    affine : numpy.ndarray
        (4, 4), index of (column, row, slice) to RAS+ mm.
    notes : list of str
        Sentences for the user on what had to be assumed.

    Raises
    ------
    VolumeError
        If slices are missing, unevenly spaced or shifted sideways.
    """
    first, last, notes = frames[0], frames[-1], []
    if len(frames) > 1:
        _require_upright(np.array([frame.position for frame in frames]), first.normal, name, tilted)
        _require_even(frames, name)
        step = (last.position - first.position) / (len(frames) - 1)
    else:
        step = first.normal * (first.thickness or 1.0)
        if first.thickness is None:
            notes.append("the single slice has no thickness; 1 mm is assumed")
    along_row, along_column = first.orientation
    affine = np.eye(4)
    affine[:3, 0] = along_row * first.spacing[1]
    affine[:3, 1] = along_column * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    return LPS_TO_RAS @ affine + 0.0, notes  # + 0.0: no negative zeros


def names_of(frames: Iterable[Frame]) -> str:
    """Return the names of at most three frames as text."""
    texts = [frame.path.name + (f" frame {frame.number + 1}" if frame.number else "") for frame in frames][:3]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]


def _require_upright(positions: np.ndarray, normal: np.ndarray, name: str, tilted: bool) -> None:
    """Raise VolumeError unless slices are stacked straight; a gantry tilt shifts each in proportion to its height."""
    offsets = positions - positions[0]
    height = offsets @ normal
    sideways = np.linalg.norm(offsets - np.outer(height, normal), axis=1)
    if sideways.max() <= OFF_GRID + 1e-3 * height[-1]:
        return
    slanted = height[:, None] / height[-1] * offsets[-1]
    if np.linalg.norm(offsets - slanted, axis=1).max() > OFF_GRID + 1e-3 * height[-1]:
        raise VolumeError(
            f"{name}: its slices are shifted sideways by up to {sideways.max():.3g} mm, and not evenly as by a gantry "
            "tilt; move the files of one straight stack to a folder of their own."
        )
    if not tilted:
        degrees = np.degrees(np.arctan2(sideways[-1], height[-1]))
        raise VolumeError(
            f"{name}: its slices are shifted sideways by a gantry tilt of {degrees:.1f} degrees; "
            'resample it to upright slices (tilt="resample", --untilt), or use another series.'
        )


def _require_even(frames: list[Frame], name: str) -> None:
    """Raise VolumeError if slices are missing or unevenly spaced."""
    depths = np.array([frame.depth for frame in frames])
    even = np.linspace(depths[0], depths[-1], len(depths))
    if abs(depths - even).max() <= min(OFF_GRID * (even[1] - even[0]), OFF_GRID):
        return
    gaps = np.diff(depths)
    usual = gaps.min()
    multiples = gaps / usual
    if abs(multiples - multiples.round()).max() > OFF_GRID:
        raise VolumeError(
            f"{name}: its slices are unevenly spaced ({gaps.min():.3g} to {gaps.max():.3g} mm); "
            "resample it to even spacing first, as dcm2niix does, or move an evenly spaced part to a folder of its own."
        )
    missing = int(multiples.round().sum()) - len(gaps)
    widest = int(gaps.argmax())
    raise VolumeError(
        f"{name}: {missing} {'slice is' if missing == 1 else 'slices are'} missing ({gaps[widest]:.3g} instead of "
        f"{usual:.3g} mm between {names_of(frames[widest : widest + 2])}); export the whole series again."
    )
