"""Slices that the reader calls normal or abnormal, kept on the volume's node and so in the scene."""

from __future__ import annotations

import json
from typing import Any

from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError

MARKS = "MedCLIPAD.marks"
KINDS = ("normal", "abnormal")


def marks(node: Any, image: str) -> dict:
    """{"plane": name or None, "normal": [slice numbers], "abnormal": [...]} of a volume node.

    image: what the server calls it; components and time points of one node are images of their own.
    """
    return _all(node).get(image) or {"plane": None, "normal": [], "abnormal": []}


def set_marks(node: Any, image: str, value: dict) -> None:
    node.SetAttribute(MARKS, json.dumps({**_all(node), image: value}))


def _all(node: Any) -> dict:
    text = node.GetAttribute(MARKS) if node is not None else None
    return json.loads(text) if text else {}


def mark(known: dict, plane: str, first: int, last: int, kind: str | None, count: int) -> dict:
    """`known` with the slices `first` to `last` marked as `kind`, or unmarked if that is None. count: of all slices.

    ModuleError if slices are marked in another plane already, or there are no such slices.
    """
    first, last = sorted((first, last))
    if not 0 <= first <= last < count:
        raise ModuleError(
            _("There is no slice {number}: the volume has the slices 0 to {last}.").format(
                number=first if first < 0 else last, last=count - 1
            )
        )
    marked = known["normal"] or known["abnormal"]
    if marked and known["plane"] != plane:
        raise ModuleError(
            _("This volume's marks are on {plane} slices: mark those, or clear them first.").format(
                plane=known["plane"]
            )
        )
    span = set(range(first, last + 1))
    new = {name: sorted(set(known[name]) - span | (span if name == kind else set())) for name in KINDS}
    return {"plane": plane if new["normal"] or new["abnormal"] else None, **new}


def merged(mine: dict, theirs: dict) -> dict:
    """Marks of the scene and of the server: ours where both speak of a slice; ours alone if the planes differ."""
    if not (theirs["normal"] or theirs["abnormal"]):
        return mine
    if not (mine["normal"] or mine["abnormal"]):
        return theirs
    if mine["plane"] != theirs["plane"]:
        return mine
    spoken = set(mine["normal"]) | set(mine["abnormal"])
    new = {name: sorted(set(mine[name]) | (set(theirs[name]) - spoken)) for name in KINDS}
    return {"plane": mine["plane"], **new}


def summary(value: dict) -> str:
    """In words, for the panel."""
    if not (value["normal"] or value["abnormal"]):
        return _("no slices marked")
    words = {"normal": _("normal: {slices}"), "abnormal": _("abnormal: {slices}")}
    parts = [words[kind].format(slices=ranges(value[kind])) for kind in KINDS if value[kind]]
    return _("{plane} slices {marks}").format(plane=value["plane"], marks="; ".join(parts))


def ranges(numbers: list) -> str:
    """[1, 2, 3, 7] as "1-3, 7"."""
    spans: list = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in spans)
