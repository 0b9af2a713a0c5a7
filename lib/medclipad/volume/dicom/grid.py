"""DICOM: frames as one regular grid, or the sentence that says why they are not one."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from medclipad.errors import VolumeError
from medclipad.volume.components import component_index
from medclipad.volume.dicom.frames import VARYING_TAGS, Frame
from medclipad.volume.volume import LPS_TO_RAS

SAME_POSITION = 1e-2
"""Slices closer than this (mm) have the same position."""

OFF_GRID = 0.1
"""A slice may lie off the even grid by this fraction of the slice spacing, and by at most this many mm."""


def require_uniform(frames: list[Frame], name: str) -> None:
    """Raise VolumeError unless all frames share image size, orientation and pixel spacing."""
    first = frames[0]
    checks = {
        "image sizes": lambda frame: frame.size == first.size,
        "orientations": lambda frame: np.allclose(frame.orientation, first.orientation, rtol=0, atol=1e-3),
        "pixel spacings": lambda frame: np.allclose(frame.spacing, first.spacing, rtol=1e-3),
    }
    for what, agrees in checks.items():
        others = [frame for frame in frames if not agrees(frame)]
        if others:
            raise VolumeError(
                f"{name}: it mixes {what} ({len(others)} of {len(frames)} images differ from {_names([first])}, "
                f"for example {_names(others[:1])}); pass a list of the files of one stack only."
            )


def one_frame_per_position(frames: list[Frame], component: int | None, name: str) -> list[Frame]:
    """Return frames sorted along their normal, one per position.

    Parameters
    ----------
    frames
        Frames of one size, orientation and spacing, in any order.
    component
        Which of several images at each position (time points, echoes, b-values) to keep, counted from 0 in the order
        of the tag that distinguishes them.
    name
        Name of the series, for messages.

    Raises
    ------
    VolumeError
        If the choice is missing, or if only some positions have several images.
    """
    frames = sorted(frames, key=lambda frame: frame.depth)
    positions: list[list[Frame]] = []
    for frame in frames:
        if positions and frame.depth - positions[-1][0].depth < SAME_POSITION:
            positions[-1].append(frame)
        else:
            positions.append([frame])
    most = max(positions, key=len)
    if len(most) == 1:
        component_index(1, component, name)
        return frames
    if any(len(position) != len(most) for position in positions):
        raise VolumeError(
            f"{name}: {_names(most)} have the same position, and other positions have fewer images; "
            "pass a list without the duplicates."
        )
    tag = _distinguishing_tag(positions)
    if tag is None:
        raise VolumeError(
            f"{name}: {_names(most)} have the same position and no tag distinguishes them; pass one of them."
        )
    values = sorted({frame.labels[tag] for frame in most}, key=_by_number)
    index = component_index(len(values), component, name, f"images at each position ({tag} {', '.join(values)})")
    return [frame for position in positions for frame in position if frame.labels[tag] == values[index]]


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
            "tilt; pass a list of the files of one straight stack."
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
            "resample it to even spacing first, for example with dcm2niix, or pass a list of an evenly spaced part."
        )
    missing = int(multiples.round().sum()) - len(gaps)
    widest = int(gaps.argmax())
    raise VolumeError(
        f"{name}: {missing} {'slice is' if missing == 1 else 'slices are'} missing ({gaps[widest]:.3g} instead of "
        f"{usual:.3g} mm between {_names(frames[widest : widest + 2])}); export the whole series again."
    )


def _names(frames: Iterable[Frame]) -> str:
    """Return the names of at most three frames as text."""
    texts = [frame.path.name + (f" frame {frame.number + 1}" if frame.number else "") for frame in frames][:3]
    return " and ".join([", ".join(texts[:-1]), texts[-1]]) if len(texts) > 1 else texts[0]


def _distinguishing_tag(positions: list[list[Frame]]) -> str | None:
    """Return the first tag with one value for each image of a position and the same values at every position."""
    for tag in VARYING_TAGS:
        values = [{frame.labels.get(tag) for frame in position} for position in positions]
        if None not in values[0] and len(values[0]) == len(positions[0]) and all(v == values[0] for v in values):
            return tag
    return None


def _by_number(text: str) -> tuple[float, str]:
    """Return a key that sorts numbers by value, before other texts."""
    try:
        return float(text), ""
    except ValueError:
        return float("inf"), text
