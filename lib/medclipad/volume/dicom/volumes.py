"""DICOM: the volumes of a series: its stacks, and what lies several times at the same places."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medclipad.errors import VolumeError
from medclipad.volume.components import Component, component_index
from medclipad.volume.dicom.frames import Frame
from medclipad.volume.dicom.grid import SAME_POSITION, names_of
from medclipad.volume.dicom.labels import LABELS, PARTS

_LISTED = 6  # volumes named in an error
_PLANES = ("sagittal", "coronal", "axial")


@dataclass(frozen=True)
class FoundVolume:
    """One volume of a series.

    Attributes
    ----------
    frames : list of Frame
        Its slices, sorted along their normal, one per position.
    labels : dict of str
        What tells it apart from the other volumes; empty if it is the only one.
    """

    frames: list[Frame]
    labels: dict[str, str]

    def __str__(self) -> str:
        return ", ".join(f"{name}={text}" for name, text in self.labels.items())


def volumes_of(frames: Sequence[Frame], name: str) -> list[FoundVolume]:
    """Return the volumes that the frames of a series make up.

    Parameters
    ----------
    frames
        Frames in any order.
    name
        Name of the series, for messages.

    Returns
    -------
    list of FoundVolume
        Stack by stack, the largest first; within a stack sorted by what tells its volumes apart.

    Raises
    ------
    VolumeError
        If images at the same place cannot be told apart.

    Notes
    -----
    Frames of one size, direction and pixel spacing make up a stack. Several images at each place of a stack are told
    apart by labels that have the same values at all places, as few as possible; what these leave together is put in
    order at each place by time or number.
    """
    stacks = _stacks(frames)
    found = []
    for number, stack in enumerate(stacks):
        own = {"stack": f"{number} {_described(stack[0])}"} if len(stacks) > 1 else {}
        found += [replace(each, labels={**own, **each.labels}) for each in _at_same_places(stack, name)]
    return found


def choose_volume(found: Sequence[FoundVolume], component: Component, name: str) -> FoundVolume:
    """Return the volume that a caller chooses by its number or by what it says.

    Parameters
    ----------
    found
        The volumes of a series.
    component
        Number from 0, or labels such as "b=1000", "b=1000, direction=1 0 0" or "phase"; None if there is only one.
    name
        Name of the series, for messages.

    Raises
    ------
    VolumeError
        If the choice is missing, fits none, or fits several.
    """
    listing = "; ".join(f"{number}: {each}" for number, each in list(enumerate(found))[:_LISTED])
    listing += f" and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
    if isinstance(component, str) and not component.strip().isdecimal():
        fitting = [number for number, each in enumerate(found) if _fits(each, component)]
        if len(fitting) != 1:
            which = "none of its volumes" if not fitting else f"{len(fitting)} of its volumes"
            raise VolumeError(
                f"{name}: component {component!r} fits {which} ({listing or 'it holds one'}); "
                f"choose one by its number, 0 to {len(found) - 1}."
            )
        return found[fitting[0]]
    return found[component_index(len(found), component, name, f"volumes ({listing})")]


def _stacks(frames: Sequence[Frame]) -> list[list[Frame]]:
    """Return the frames grouped by size, direction and pixel spacing, the largest group first."""
    stacks: list[list[Frame]] = []
    for frame in frames:
        for stack in stacks:
            first = stack[0]
            if (
                frame.size == first.size
                and np.allclose(frame.orientation, first.orientation, rtol=0, atol=1e-3)
                and np.allclose(frame.spacing, first.spacing, rtol=1e-3)
            ):
                stack.append(frame)
                break
        else:
            stacks.append([frame])
    return sorted(stacks, key=len, reverse=True)


def _described(frame: Frame) -> str:
    """Return plane and size of a frame as text."""
    plane = _PLANES[int(np.argmax(abs(frame.normal)))]
    return f"{plane} {frame.size[1]} x {frame.size[0]}"


def _at_same_places(frames: list[Frame], name: str) -> list[FoundVolume]:
    """Return the volumes of one stack."""
    frames = sorted(frames, key=lambda frame: frame.depth)
    places: list[list[Frame]] = []
    for frame in frames:
        if places and frame.depth - places[-1][0].depth < SAME_POSITION:
            places[-1].append(frame)
        else:
            places.append([frame])
    most = max(places, key=len)
    if len(most) == 1:
        return [FoundVolume(frames, {})]
    whole = all(len(place) == len(most) for place in places)
    tags = _telling_labels(places, most, whole)
    groups = Counter(_values(frame, tags) for frame in most)
    if max(groups.values()) == 1:
        return _by_labels(places, tags)
    if not whole:
        raise VolumeError(
            f"{name}: {names_of(most)} have the same position, and other positions have fewer images; "
            "move the images that are too many to another folder."
        )
    return _by_rank(places, tags, name)


def _telling_labels(places: list[list[Frame]], most: list[Frame], whole: bool) -> list[str]:
    """Return the labels, as few as possible, by which the images of a place differ in the same way at every place.

    Where some places have fewer images, as after a scan that was stopped, these must be among those of the others.
    """
    tags: list[str] = []
    for tag in LABELS:
        tried = [*tags, tag]
        here = Counter(_values(frame, tried) for frame in most)
        if len(here) == len({_values(frame, tags) for frame in most}):
            continue
        others = [Counter(_values(frame, tried) for frame in place) for place in places]
        if all(other == here for other in others) if whole else all(other <= here for other in others):
            tags = tried
        if len({_values(frame, tags) for frame in most}) == len(most):
            break
    return tags


def _by_labels(places: list[list[Frame]], tags: list[str]) -> list[FoundVolume]:
    """Return one volume for each value of the labels."""
    frames = [frame for place in places for frame in place]
    keys = sorted({_values(frame, tags) for frame in frames}, key=_by_number)
    shown = _shown(keys, tags)
    return [
        FoundVolume([frame for frame in frames if _values(frame, tags) == key], labels)
        for key, labels in zip(keys, shown, strict=True)
    ]


def _by_rank(places: list[list[Frame]], tags: list[str], name: str) -> list[FoundVolume]:
    """Return one volume for each value of the labels and each rank among the images of a place that share it."""
    keys = sorted({_values(frame, tags) for frame in places[0]}, key=_by_number)
    shown = _shown(keys, tags)
    order = _rank(places, tags)
    if order is None:
        raise VolumeError(
            f"{name}: {names_of(places[0])} have the same position and nothing in their headers tells them apart; "
            "move all but one of such images to another folder."
        )

    def value(frame: Frame) -> float:
        return frame.ranks[order]

    found = []
    for key, labels in zip(keys, shown, strict=True):
        ranked = [sorted((frame for frame in place if _values(frame, tags) == key), key=value) for place in places]
        for rank, frames in enumerate(zip(*ranked, strict=True)):
            found.append(FoundVolume(list(frames), {**labels, "order": str(rank)}))
    return found


def _rank(places: list[list[Frame]], tags: list[str]) -> str | None:
    """Return what puts the images of each place that share their labels in order; None if nothing does."""
    for order in places[0][0].ranks:
        distinct = True
        for place in places:
            values = [(_values(frame, tags), frame.ranks.get(order)) for frame in place]
            distinct &= len(set(values)) == len(values) and all(value is not None for _, value in values)
        if distinct:
            return order
    return None


def _values(frame: Frame, tags: Iterable[str]) -> tuple[str, ...]:
    return tuple(frame.labels.get(tag, "") for tag in tags)


def _by_number(key: tuple[str, ...]) -> list[tuple[float, str]]:
    """Return a sorting key that puts numbers in order of value, before other texts, and nothing before both."""
    sortable = []
    for text in key:
        try:
            sortable.append((float(text or "-inf"), ""))
        except ValueError:
            sortable.append((float("inf"), text))
    return sortable


def _shown(keys: list[tuple[str, ...]], tags: list[str]) -> list[dict[str, str]]:
    """Return the labels of each volume as they are shown: of ImageType only what differs, a missing b-value as 0."""
    shown = []
    types = [set(key[tags.index("type")].split("\\")) for key in keys] if "type" in tags else []
    for key in keys:
        labels = dict(zip(tags, key, strict=True))
        if "type" in labels:
            own = [word for word in labels["type"].split("\\") if not all(word in others for others in types)]
            part = next((PARTS[word] for word in own if word in PARTS), None)
            labels["type"] = part or "\\".join(own) or "other"
        if labels.get("b") == "":
            labels["b"] = "0"  # DICOM asks for a value only where there is a gradient
        shown.append({tag: text for tag, text in labels.items() if text})
    return shown


def _fits(volume: FoundVolume, text: str) -> bool:
    """Return whether all parts of a text, such as "b=1000, phase", are among a volume's labels."""
    return all(_fits_part(volume, part) for part in text.split(",") if part.strip())


def _fits_part(volume: FoundVolume, part: str) -> bool:
    name, given, wanted = (word.strip().casefold() for word in part.partition("="))
    if not given:
        return any(name in {text.casefold(), *text.casefold().split()} for text in volume.labels.values())
    text = volume.labels.get(name, "").casefold()
    try:
        return bool(np.isclose(float(text), float(wanted), rtol=1e-3))
    except ValueError:
        return wanted == text or wanted == text.partition(" ")[0]
