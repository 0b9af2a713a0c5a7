"""DICOM: what tells the volumes of one series apart, under short names that a user can type."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

Find = Callable[..., Any]
"""Returns the first value that is given for one of some keywords, or None."""

# Each label, and the standard tags that may give it; the labels that tell most come first.
_KEYWORDS: Mapping[str, tuple[str, ...]] = {
    "time": ("TemporalPositionIdentifier", "TemporalPositionIndex"),
    "echo": ("EchoTime", "EffectiveEchoTime"),
    "inversion": ("InversionTime", "InversionTimes"),
    "b": ("DiffusionBValue",),
    "direction": ("DiffusionGradientOrientation",),
    "part": ("ComplexImageComponent",),
    "type": ("ImageType", "FrameType"),
    "asl": ("ASLContext",),
    "trigger": ("TriggerTime", "NominalCardiacTriggerDelayTime", "ActualCardiacTriggerDelayTime"),
    "flip": ("FlipAngle",),
    "repetition": ("RepetitionTime",),
    "kvp": ("KVP",),
    "kernel": ("ConvolutionKernel",),
    "contrast": ("ContrastBolusAgentPhase", "ContrastBolusAgent"),
    "sequence": ("SequenceName",),
    "segment": ("ReferencedSegmentNumber",),
    "acquisition": ("AcquisitionNumber",),
    "frame-time": ("FrameReferenceTime",),
    "acquired": ("AcquisitionDateTime", "FrameAcquisitionDateTime", "AcquisitionTime"),
    "content": ("ContentTime",),
    "comment": ("ImageComments",),
}  # fmt: skip

_RANKS: Mapping[str, tuple[str, ...]] = {
    "trigger": _KEYWORDS["trigger"],
    "acquired": _KEYWORDS["acquired"],
    "InstanceNumber": ("InstanceNumber",),
    "content": _KEYWORDS["content"],
}
"""What may put the images of one place in order, though its values differ from place to place."""

# Vendors' own elements, by the start of Manufacturer: (group, element, component of the value).
_PRIVATE: Mapping[str, Mapping[str, tuple[tuple[int, int, int], ...]]] = {
    "SIEMENS": {"b": ((0x0019, 0x100C, 0),), "direction": ((0x0019, 0x100E, -1),)},
    "GE": {
        "b": ((0x0043, 0x1039, 0),),
        "direction": ((0x0019, 0x10BB, 0), (0x0019, 0x10BC, 0), (0x0019, 0x10BD, 0)),
    },
    "PHILIPS": {
        "b": ((0x2001, 0x1003, 0),),
        "direction": ((0x2005, 0x10B0, 0), (0x2005, 0x10B1, 0), (0x2005, 0x10B2, 0)),
        "asl": ((0x2005, 0x1429, 0),),
        "phase": ((0x2001, 0x1008, 0),),
    },
}  # fmt: skip
_GE_B_OFFSET = 1e9  # that some GE versions add to the b-value

LABELS = (*list(_KEYWORDS)[:8], "phase", *list(_KEYWORDS)[8:])
"""Names of the labels, those that tell most first."""

LABEL_TAGS: tuple[str | tuple[int, int], ...] = (
    *dict.fromkeys(keyword for keywords in (*_KEYWORDS.values(), *_RANKS.values()) for keyword in keywords),
    "Manufacturer",
    *dict.fromkeys(
        (group, element) for own in _PRIVATE.values() for each in own.values() for group, element, _ in each
    ),
    *((group, creator) for group in (0x0019, 0x0043, 0x2001, 0x2005) for creator in (0x0010, 0x0011)),
)
"""Keywords and private tags that the labels need."""

PARTS = {"M": "magnitude", "P": "phase", "R": "real", "I": "imaginary"}
"""Words for the parts of complex images in ImageType."""


def labels_of(header: Dataset, find: Find) -> dict[str, str]:
    """Return the labels of an image, each as text.

    Parameters
    ----------
    header
        Header of its file.
    find
        Returns the first value that the image has for one of some keywords; None if there is none.
    """
    found = {name: _text(name, find(*keywords)) for name, keywords in _KEYWORDS.items()}
    maker = str(header.get("Manufacturer") or "").upper()
    own = next((elements for start, elements in _PRIVATE.items() if maker.startswith(start)), {})
    for name, elements in own.items():
        if not found.get(name):
            found[name] = _text(name, _private(header, name, elements))
    return {name: text for name, text in found.items() if text}


def ranks_of(find: Find, frame: int) -> dict[str, float]:
    """Return what may put the images of one place in order, most telling first.

    Parameters
    ----------
    find
        As in `labels_of`.
    frame
        Number of the image in its file.
    """
    ranks = {name: _number(find(*keywords)) for name, keywords in _RANKS.items()}
    return {name: value for name, value in ranks.items() if value is not None} | {"frame": float(frame)}


def _private(header: Dataset, name: str, elements: Sequence[tuple[int, int, int]]) -> Any:
    """Return the value of a vendor's elements; None if one of them is missing or not as the vendor writes it."""
    values = []
    for group, element, component in elements:
        if (group, element) not in header:
            return None
        value = header[group, element].value
        if isinstance(value, bytes):  # of an unknown type, in a file without value representations
            value = value.decode("latin-1").strip("\0 ").split("\\")
            value = value[0] if len(value) == 1 else value
        many = not isinstance(value, str) and hasattr(value, "__len__")
        if component < 0:
            return value
        values.append(value[component] if many and len(value) > component else value)
    if name == "b":
        number = _number(values[0])
        return None if number is None else number % _GE_B_OFFSET
    return values[0] if len(values) == 1 else values


def _text(name: str, value: Any) -> str:
    """Return a value as the text of its label; "" if there is none."""
    if value is None or value == "":
        return ""
    if name == "direction":
        numbers = [
            _number(part) for part in (value if hasattr(value, "__len__") and not isinstance(value, str) else [])
        ]
        if len(numbers) != 3 or None in numbers:
            return ""
        return " ".join(f"{number:.3f}".rstrip("0").rstrip(".") for number in np.array(numbers) + 0.0)
    if name == "type":
        return "\\".join(map(str, value)) if not isinstance(value, str) else value
    number = _number(value)
    if number is not None and name not in ("sequence", "comment", "acquired", "content"):
        return f"{number:g}"
    return str(value).strip()


def _number(value: Any) -> float | None:
    """Return a value as a number, a time of day in its digits; None if it is not one."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None
