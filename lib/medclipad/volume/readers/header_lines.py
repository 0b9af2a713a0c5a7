"""Bound each line of a NRRD or MetaImage header before ITK sees it: its parsers write beyond their buffers.

teem, ITK's reader of NRRD, copies a field that it cannot parse into a message of 1,000 characters; MetaIO copies names
of any length into 255. Both end the process. So a field must be one that the format has, and be of bounded length.
"""

from __future__ import annotations

import re

_NRRD_BOUNDED = 500  # characters: sixteen axes of honest numbers take 400
_NRRD_FIELDS = frozenset({
    "dimension", "type", "block size", "blocksize", "encoding", "endian", "sizes", "spacings", "thicknesses",
    "axis mins", "axismins", "axis maxs", "axismaxs", "centers", "centerings", "kinds", "number", "min", "max",
    "old min", "oldmin", "old max", "oldmax", "line skip", "lineskip", "byte skip", "byteskip", "space",
    "space dimension", "space directions", "space origin", "measurement frame",
})  # fmt: skip
_NRRD_TEXTS = frozenset(
    {"content", "labels", "units", "space units", "sample units", "sampleunits", "data file", "datafile"}
)
_META_KEY, _META_TEXT, _META_NUMBERS = 200, 250, 1000  # characters of a key, a text and a list of numbers
_META_LISTS = frozenset({
    "Offset", "Position", "Origin", "ElementSpacing", "ElementSize", "TransformMatrix", "Rotation", "Orientation",
    "DimSize", "CenterOfRotation", "ElementDataFile",
})  # fmt: skip
_META_TEXTS = frozenset({
    "ObjectType", "ObjectSubType", "TransformType", "NDims", "Name", "ID", "ParentID", "Color", "AnatomicalOrientation",
    "Modality", "ElementType", "ElementNumberOfChannels", "ElementMin", "ElementMax", "HeaderSize", "SequenceID",
    "DistanceUnits", "AcquisitionDate", "ElementSizeValid", "CompressionLevel", "BinaryData", "CompressedData",
    "BinaryDataByteOrderMSB", "ElementByteOrderMSB", "CompressedDataSize", "ElementToIntensityFunctionSlope",
    "ElementToIntensityFunctionOffset", "Comment",
})  # fmt: skip


def check_nrrd_lines(header: str) -> None:
    """Check the lines of a NRRD header.

    Parameters
    ----------
    header
        The header, up to its first empty line.

    Raises
    ------
    ValueError
        If a line is not a comment, a key/value pair, or a field that NRRD has and of bounded length.
    """
    magic, *lines = header.splitlines()
    if not re.fullmatch(r"NRRD000[1-5]", magic):
        raise ValueError(f"its first line is {magic[:20]}, not NRRD0001 to NRRD0005")
    for line in lines:
        name, colon, value = line.partition(":")
        if not line or line.startswith("#") or value.startswith("="):  # "a: b:=c" is a field to teem
            continue
        known = name.lower() in _NRRD_FIELDS
        if not colon or not value.startswith(" ") or not (known or name.lower() in _NRRD_TEXTS):
            raise ValueError(f"its header has a line that is not a field of NRRD ({line[:40]})")
        if known and len(value) > _NRRD_BOUNDED:
            raise ValueError(f"its {name} has {len(value)} characters")


def check_meta_lines(fields: list[tuple[str, str]]) -> None:
    """Check the fields of a MetaImage header.

    Parameters
    ----------
    fields
        Pairs of key and value, as often as they are there.

    Raises
    ------
    ValueError
        If a key, or the value of a field that MetaImage has, is longer than any honest one.
    """
    for key, value in fields:
        if len(key) > _META_KEY:
            raise ValueError(f"its header has a key of {len(key)} characters")
        if len(value) > (_META_NUMBERS if key in _META_LISTS else _META_TEXT) and key in _META_LISTS | _META_TEXTS:
            raise ValueError(f"its {key} has {len(value)} characters")
