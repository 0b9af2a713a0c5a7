"""What ITK lets pass in NRRD and MetaImage files: damaged streams, numbers that are none, other units than mm."""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medclipad.errors import VolumeError

_HEADER = 1 << 20  # no header is longer
_PIECE = 1 << 22  # bytes inflated at a time
_REAL = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_VECTOR = rf"(?:\(\s*{_REAL}(?:\s*,\s*{_REAL})*\s*\)|none)"
_NRRD_FORMS = {  # teem reads on in the next line where a number ends too early
    "dimension": r"\d+", "sizes": r"\d+(?:\s+\d+)*", "spacings": rf"(?:{_REAL}|nan)(?:\s+(?:{_REAL}|nan))*",
    "spacedirections": rf"{_VECTOR}(?:\s+{_VECTOR})*", "spaceorigin": _VECTOR,
}  # fmt: skip
_META_NUMBERS = {
    "offset", "position", "origin", "elementspacing", "elementsize", "transformmatrix", "rotation", "orientation",
    "dimsize", "compresseddatasize",
}  # fmt: skip
_META_SWITCHES = {"binarydata", "binarydatabyteordermsb", "elementbyteordermsb", "compresseddata"}
_META_SEPARATOR = rb"[=:]"
_NO_TEXT = re.compile(rb"[^\t\n\r\x20-\x7e\x80-\xff]")
_META_PLACE = {
    ("Offset", "Position", "Origin"): "0", ("ElementSpacing", "ElementSize"): "1 mm",
    ("TransformMatrix", "Rotation", "Orientation"): "left, posterior, superior",
}  # fmt: skip


class _Stream(NamedTuple):
    """Voxels: data file ("" for the header's own), offset, and size in bytes where the header says it."""

    name: str
    offset: int = 0
    size: int | None = None


def check_header(path: Path) -> list[str]:
    """Raise ValueError over a header that ITK would take for another one, or crash on; return what it leaves open."""
    header = _header(path)
    end = _nrrd_end(header) if header.startswith(b"NRRD") else _meta_end(header)
    if _NO_TEXT.search(header[:end]):  # where ITK sees a key end, or a line, is anybody's guess
        raise ValueError("its header is not text")
    if header.startswith(b"NRRD"):
        fields = _fields(header[:end], rb":")
        units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
        notes = []
        for key, form in _NRRD_FORMS.items():
            if key in fields and not re.fullmatch(form, fields[key], re.IGNORECASE):
                raise ValueError(f"its {key} is {fields[key][:60]}, which is not what belongs there")
        if len(re.findall(r"\(", fields.get("spacedirections", "((("))) < 3 <= len(fields.get("sizes", "").split()):
            raise ValueError("an axis has no space direction")
        for vector in re.findall(r"\(([^)]*)\)", fields.get("spacedirections", "")):
            if not 0 < sum(x * x for x in map(float, vector.split(","))) < math.inf:  # ITK loops, or takes 1 mm
                raise ValueError(f"its space direction {vector[:40]} has no length")
        if any(float(text) < 0 for text in fields.get("spacings", "").split()):
            raise ValueError("its spacing is negative")
        if "space" in fields:
            defaults = {"space directions": "1 mm along the axes of its space", "space origin": "0"}
            missing = [key for key in defaults if key.replace(" ", "") not in fields]
            notes = [f"the file gives no {key}; {defaults[key]} is taken" for key in missing]
    else:
        fields = _fields(header[:end], _META_SEPARATOR)
        units = [fields.get("distanceunits", "mm")]
        for key in _META_NUMBERS & fields.keys():
            if not all(_number(text) for text in fields[key].split()):
                raise ValueError(f"its {key} is {fields[key][:40]}, which is not a row of numbers")
        if fields.get("ndims") not in ("1", "2", "3", "4", "5"):
            raise ValueError(
                f"its header gives {fields.get('ndims', '')[:20] or 'nothing'} as its number of dimensions"
            )
        notes = _check_meta(path, header)
    others = [unit for unit in units if unit.lower() not in ("mm", "millimeter", "millimetre", "?", "")]
    _require_beside(path, header)
    if others:
        raise ValueError(f"its spacing is in units of {others[0][:20]}, not millimetres")
    return notes


def _check_meta(path: Path, header: bytes) -> list[str]:
    """Raise ValueError over what MetaIO silently ignores or misreads; return what the header leaves open."""
    said, notes = [], []
    for line in header[: _meta_end(header)].splitlines():
        key, *value = re.split(_META_SEPARATOR, line, maxsplit=1)
        if line.strip() and not value:  # it would cost ITK the next one too
            raise ValueError(f"its header has a line that is no field ({line.decode(errors='replace')[:40]})")
        said.append(key.decode(errors="replace").strip())
        if said[-1].lower() in _META_SWITCHES and value[0].strip().lower() not in (b"true", b"false", b"1", b"0"):
            raise ValueError(f"its {said[-1]} is neither True nor False")  # ITK looks at the first letter alone
    for names, default in _META_PLACE.items():
        if sum(said.count(name) for name in names) > (len(names) if "ElementSize" in names else 1):
            raise ValueError(f"it gives its {names[0]} twice")
        if not set(names) & set(said):
            notes.append(f"the file gives no {names[0]}; {default} is taken")
    fields = _fields(header[: _meta_end(header)], _META_SEPARATOR)
    dimensions = int(fields["ndims"]) if fields.get("ndims", "").isdigit() else 0
    for names in (("DimSize",), *_META_PLACE):
        wanted = dimensions**2 if "Rotation" in names else dimensions
        for key in set(names) & set(said):
            numbers = fields.get(key.lower(), "").split()
            if len(numbers) != wanted:
                raise ValueError(f"its {key} is not {wanted} numbers")
            if "Rotation" in names and not _unit(np.reshape(numbers, (dimensions, dimensions)).astype(float)):
                raise VolumeError(f"{path.name}: its {key} is not of unit vectors; correct it and the spacing.")
    twice = [key for key in ("DimSize", "NDims", "ElementType", "ElementSpacing", "ElementSize") if said.count(key) > 1]
    if twice:
        raise ValueError(f"it gives its {twice[0]} twice")
    if any(float(text) < 0 for key in ("elementspacing", "elementsize") for text in fields.get(key, "").split()):
        raise ValueError("its spacing is negative")
    if _several(fields.get("elementdatafile", "")):
        raise ValueError("its voxels lie in several files, which ITK does not count; save it as one .mha")
    if fields.get("binarydata", "true").lower() not in ("true", "1"):
        raise ValueError("its voxels are text, of which ITK cuts what does not fit; save them as numbers")
    scale = fields.get("elementtointensityfunctionslope", "1"), fields.get("elementtointensityfunctionoffset", "0")
    if not all(_number(text) for text in scale) or tuple(map(float, scale)) != (1, 0):
        raise ValueError("its values need a slope and offset, which ITK does not apply")
    if fields.get("elementdatafile", "").upper() == "LOCAL" and fields.get("headersize", "-1") not in ("-1", "0"):
        raise ValueError(f"its HeaderSize is {fields['headersize'][:20]}, so that the header would count as voxels")
    return notes


def _unit(matrix: np.ndarray) -> bool:
    """Whether the rows are unit vectors, of more than three dimensions in the first three; 1e308 keeps ITK for ever."""
    space = matrix[:3, :3]
    return bool((abs(matrix) <= 1.001).all()) and np.allclose(np.linalg.norm(space, axis=1), 1, rtol=1e-3)


def _meta_end(header: bytes) -> int:
    """Where the voxels, or what names their files, start."""
    last = re.search(rb"^[ \t]*ElementDataFile[ \t]*[=:].*?(?:\n|\Z)", header, re.MULTILINE)
    return last.end() if last else len(header)


def _number(text: str) -> bool:
    # Not float(): Python takes 0.9_1 for a number, ITK stops at the underscore and leaves the rest of the row at 0.
    return re.fullmatch(_REAL, text) is not None and math.isfinite(float(text))


def _require_beside(path: Path, header: bytes) -> None:
    """Detached voxels must lie in the header's folder or below: a header may come from anybody."""
    field = re.search(rb"^[ \t]*(?:data ?file[ \t]*:|ElementDataFile[ \t]*[=:])(.*)$", header, re.M | re.I)
    if field is None:
        return
    names = [field[1].decode(errors="replace").strip(' \t\r"')]
    if names[0].upper().startswith("LIST"):
        names = header[field.end() :].decode(errors="replace").split("\n")
    for name in names:
        if re.match(r"\s*([\\/]|[A-Za-z]:)", name) or ".." in re.split(r"[\\/\s]", name):
            raise VolumeError(
                f"{path.name}: its voxels are said to lie in {name.strip()[:80]}, outside of its folder; put both "
                "files into one folder and correct the header."
            )


def check_text(path: Path, array: np.ndarray) -> None:
    """Raise ValueError if the voxels of a .nrrd file are text of other numbers than `array`: ITK cuts what does not
    fit the type."""
    header = _header(path)
    end = _nrrd_end(header)
    fields = _fields(header[:end], rb":")
    if fields.get("encoding", "").lower() not in ("ascii", "text", "txt") or "datafile" in fields:
        return
    words = path.read_bytes()[end:].split()
    numbers = np.array([float(word) for word in words])
    if len(numbers) != array.size or not np.allclose(numbers, array.ravel(order="F"), rtol=1e-6, atol=0):
        raise ValueError(f"its {len(numbers)} numbers do not fit its type and size")


def check_voxels(path: Path, wanted: int) -> None:
    """See, before ITK allocates them, that a .nrrd, .nhdr, .mha or .mhd file holds just `wanted` bytes of voxels,
    compressed ones with the right checksum: ITK takes the first ones of too many.

    Text, and the rare files whose voxels lie in several others, pass. Raises zlib.error or EOFError.
    """
    header = _header(path)
    if stream := (_nrrd_raw(header) if header.startswith(b"NRRD") else _meta_raw(header)):
        file = path.parent / stream.name if stream.name else path
        held = file.stat().st_size - stream.offset
        if held != wanted and not (held in (wanted + 1, wanted + 2) and file.read_bytes().endswith(b"\n")):
            raise EOFError(f"its voxels are {held} bytes instead of {wanted}")
        return
    stream = _nrrd_voxels(header) if header.startswith(b"NRRD") else _meta_voxels(header)
    if stream is None:
        return
    source = path.parent / stream.name if stream.name else path
    held = source.stat().st_size - stream.offset
    left = held if stream.size is None else stream.size
    if not 0 <= left <= held:
        raise EOFError(f"its compressed voxels are {held} bytes instead of the {left} of its header")
    inflated = 0
    inflater = zlib.decompressobj(wbits=47)  # zlib or gzip
    with source.open("rb") as file:
        file.seek(stream.offset)
        while not inflater.eof and (chunk := file.read(min(left, 1 << 20))):
            left -= len(chunk)
            while chunk and not inflater.eof and inflated <= wanted:
                inflated += len(inflater.decompress(chunk, _PIECE))
                chunk = inflater.unconsumed_tail
    if not inflater.eof or inflated != wanted:
        raise EOFError(f"its compressed voxels are {inflated} bytes instead of {wanted}")


def _header(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_HEADER)


def _nrrd_voxels(header: bytes) -> _Stream | None:
    """gzip voxels, see https://teem.sourceforge.net/nrrd/format.html"""
    end = _nrrd_end(header)
    fields = _fields(header[:end], rb":")
    if fields.get("encoding", "").lower() not in ("gz", "gzip") or fields.get("lineskip", "0") != "0":
        return None
    name = fields.get("datafile")
    if name is None:
        return _Stream("", end)
    return None if _several(name) else _Stream(name)


def _nrrd_raw(header: bytes) -> _Stream | None:
    """Raw voxels in one file, none of it skipped."""
    end = _nrrd_end(header)
    fields = _fields(header[:end], rb":")
    skipped = any(fields.get(key, "0") != "0" for key in ("lineskip", "byteskip"))
    name = fields.get("datafile")
    if fields.get("encoding", "").lower() != "raw" or skipped or (name and _several(name)):
        return None
    return _Stream("", end) if name is None else _Stream(name)


def _nrrd_end(header: bytes) -> int:
    """Where the voxels start: after the first empty line."""
    end = re.search(rb"\r?\n\r?\n", header)
    return end.end() if end else len(header)


def _meta_raw(header: bytes) -> _Stream | None:
    """Raw voxels in one file."""
    fields = _fields(header[: _meta_end(header)], _META_SEPARATOR)
    name, before = fields.get("elementdatafile", "LIST"), fields.get("headersize", "0")
    plain = fields.get("compresseddata", "").lower() not in ("true", "1") and before.isdigit() and not _several(name)
    binary = fields.get("binarydata", "true").lower() in ("true", "1")
    if not (plain and binary):
        return None
    return _Stream("", _meta_end(header)) if name.upper() == "LOCAL" else _Stream(name, int(before))


def _meta_voxels(header: bytes) -> _Stream | None:
    """zlib voxels, see https://itk.org/Wiki/ITK/MetaIO/Documentation"""
    end = _meta_end(header)
    fields = _fields(header[:end], _META_SEPARATOR)
    name = fields.get("elementdatafile", "LIST")
    if fields.get("compresseddata", "").lower() not in ("true", "1") or _several(name):
        return None
    size = int(fields.get("compresseddatasize", "0"))
    if name.upper() != "LOCAL":
        return _Stream(name, 0, size or None)  # ITK looks how long the file is
    if not size:
        raise ValueError("its header lacks CompressedDataSize, without which ITK reads noise")
    return _Stream("", end, size)


def _fields(header: bytes, separator: bytes) -> dict[str, str]:
    lines = re.findall(rb"^\s*([A-Za-z ]+?)\s*" + separator + rb"\s*([^=\r\n]*?)\s*$", header, re.MULTILINE)
    return {key.decode().lower().replace(" ", ""): value.decode(errors="replace") for key, value in lines}


def _several(name: str) -> bool:
    return "%" in name or name.upper().startswith("LIST")
