"""Slices that the reader marked as normal or abnormal.

They are stored on the volume's node, and so saved with the scene.

Marks are a dict ``{"plane": name or None, "normal": [slice numbers], "abnormal": [slice numbers]}``, as on the server.
"""

from __future__ import annotations

import json
from typing import Any

from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError

MARKS = "MedCLIPAD.marks"
KINDS = ("normal", "abnormal")


def marks(node: Any, image: str) -> dict:
    """Return the marks of a volume node.

    Parameters
    ----------
    node : vtkMRMLVolumeNode or None
        The volume.
    image : str
        Id of the volume on the server: components and time points of one node are separate images.
    """
    return _all_marks(node).get(image) or {"plane": None, "normal": [], "abnormal": []}


def set_marks(node: Any, image: str, value: dict) -> None:
    """Store the marks of a volume node under its id on the server."""
    node.SetAttribute(MARKS, json.dumps({**_all_marks(node), image: value}))


def _all_marks(node: Any) -> dict:
    """Return the marks of a node by image id."""
    text = node.GetAttribute(MARKS) if node is not None else None
    return json.loads(text) if text else {}


def mark(known: dict, plane: str, first: int, last: int, kind: str | None, count: int) -> dict:
    """Return marks with a range of slices marked or unmarked.

    Parameters
    ----------
    known : dict
        The marks so far; not changed.
    plane : str
        Plane of the slice numbers.
    first, last : int
        First and last slice of the range, in either order.
    kind : str or None
        "normal" or "abnormal"; None removes the marks.
    count : int
        Number of slices of the volume in this plane.

    Raises
    ------
    ModuleError
        If a slice does not exist, or if slices of another plane are already marked.
    """
    first, last = sorted((first, last))
    if not 0 <= first <= last < count:
        raise ModuleError(
            _("Slice {number} does not exist: the volume has slices 0 to {last}.").format(
                number=first if first < 0 else last, last=count - 1
            )
        )
    marked = known["normal"] or known["abnormal"]
    if marked and known["plane"] != plane:
        raise ModuleError(
            _("This volume's marks are on {plane} slices: mark {plane} slices, or remove the marks first.").format(
                plane=known["plane"]
            )
        )
    span = set(range(first, last + 1))
    new = {name: sorted(set(known[name]) - span | (span if name == kind else set())) for name in KINDS}
    return {"plane": plane if new["normal"] or new["abnormal"] else None, **new}


def merge_marks(own: dict, remote: dict) -> dict:
    """Return the union of the scene's marks and the server's.

    The scene's marks win where both mark a slice, and are kept alone if the planes differ.
    """
    if not (remote["normal"] or remote["abnormal"]):
        return own
    if not (own["normal"] or own["abnormal"]):
        return remote
    if own["plane"] != remote["plane"]:
        return own
    marked = set(own["normal"]) | set(own["abnormal"])
    new = {name: sorted(set(own[name]) | (set(remote[name]) - marked)) for name in KINDS}
    return {"plane": own["plane"], **new}


def summary(value: dict) -> str:
    """Return marks as text, for example "axial slices 2-3, 5 normal; 12 abnormal", or "axial slice 7 normal"."""
    if not (value["normal"] or value["abnormal"]):
        return _("no slices marked")
    words = {"normal": _("{slices} normal"), "abnormal": _("{slices} abnormal")}
    parts = [words[kind].format(slices=ranges(value[kind])) for kind in KINDS if value[kind]]
    several = sum(len(value[kind]) for kind in KINDS) > 1
    sentence = _("{plane} slices {marks}") if several else _("{plane} slice {marks}")
    return sentence.format(plane=value["plane"], marks="; ".join(parts))


def ranges(numbers: list[int]) -> str:
    """Return sorted numbers as ranges: "1-3, 7" for [1, 2, 3, 7]."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in spans)
