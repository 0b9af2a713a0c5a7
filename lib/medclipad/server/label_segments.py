"""The segments of a label that is sent: lesions, not anatomy."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from medclipad.server.errors import RequestError
from medclipad.volume import Volume


class _Segment(BaseModel):
    name: str
    idx: int = 0  # 0 for the place in the list, from 1


_SEGMENTS = TypeAdapter(list[_Segment]).validate_python
_WORD = re.compile(r"[^\W\d_]+")
_ANATOMY = """
abdomen air aorta background bladder body bone bones brain brainstem cerebellum cerebrum colon csf face fat gland gray
grey head heart kidney kidneys liver lung lungs matter muscle neck normal organ pancreas pelvis prostate rib ribs scalp
skin skull spine spleen stomach thorax tissue trachea ventricle ventricles vessel vessels white
"""
_ABOUT = "a all and full healthy label left lower mask of region right segment the total upper whole"


def refuse_anatomy(mask: Volume, label_info: Any) -> None:
    """Raise RequestError 422 if a segment of a label is called by the name of an organ: all of it would be a lesion.

    Parameters
    ----------
    mask
        The label map. Its own names of segments, as of a .seg.nrrd, count where `label_info` has none.
    label_info
        What MONAI Label's clients send: a list of {"name": ..., "idx": value}, the first one of value 1 if it has no
        idx; None for none.

    Examples
    --------
    >>> mask = Volume(np.ones((2, 2, 2), np.uint8), np.eye(4))
    >>> refuse_anatomy(mask, [{"name": "brain tumour", "idx": 1}, {"name": "brain", "idx": 2}])
    >>> refuse_anatomy(mask, [{"name": "Whole brain", "idx": 1}])
    Traceback (most recent call last):
    medclipad.server.errors.RequestError: The segment 'Whole brain' is no lesion but anatomy: ...
    """
    names = {**mask.metadata.get("segments", {}), **_names(label_info)}
    for value, name in names.items():
        if value != "0" and is_anatomy(name) and _occurs(mask.array, value):
            raise RequestError(
                f"The segment {name!r} is no lesion but anatomy: send the segments of lesions alone, or rename it.", 422
            )


def _occurs(array: np.ndarray, value: str) -> bool:
    """Return whether a label map holds a value, which a header may give as any text."""
    return value.isdecimal() and bool((array == int(value)).any())


def is_anatomy(name: str) -> bool:
    """Return whether a name says an organ or tissue and nothing else.

    Examples
    --------
    >>> is_anatomy("left lung"), is_anatomy("lung nodule"), is_anatomy("Segment_1")
    (True, False, False)
    """
    words = {word.lower() for word in _WORD.findall(name)} - set(_ABOUT.split())
    return bool(words) and words <= set(_ANATOMY.split())


def _names(label_info: Any) -> dict[str, str]:
    """Return the name of each value; raise RequestError 422 if `label_info` is something else than a list of them."""
    try:
        segments = _SEGMENTS(label_info or [])
    except ValidationError as error:
        raise RequestError(
            "label_info: give a list of objects, each with the name and the idx of a segment.", 422
        ) from error
    return {str(segment.idx or place): segment.name for place, segment in enumerate(segments, 1)}
