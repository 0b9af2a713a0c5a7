"""Check NRRD and MetaImage files for faults that ITK ignores: damaged streams, invalid numbers, units other than mm."""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from medclipad.errors import VolumeError
from medclipad.volume.readers.header_lines import check_meta_lines, check_nrrd_lines

_HEADER = 1 << 20  # no header is longer
_PIECE = 1 << 22  # bytes inflated at a time
_GZIP = b"\x1f\x8b"
_REAL = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_VECTOR = rf"(?:\(\s*{_REAL}(?:\s*,\s*{_REAL})*\s*\)|none)"
_NRRD_FORMS = {  # teem continues in the next line where a number ends too early
    "dimension": r"\d+", "sizes": r"\d+(?:\s+\d+)*", "spacings": rf"(?:{_REAL}|nan)(?:\s+(?:{_REAL}|nan))*",
    "spacedirections": rf"{_VECTOR}(?:\s+{_VECTOR})*", "spaceorigin": _VECTOR,
}  # fmt: skip
_NRRD_DEFAULTS = {"space directions": "1 mm along the axes of its space", "space origin": "0"}
_META_NUMBERS = {
    "offset", "position", "origin", "elementspacing", "elementsize", "transformmatrix", "rotation", "orientation",
    "dimsize", "compresseddatasize",
}  # fmt: skip
_META_SWITCHES = {"binarydata", "binarydatabyteordermsb", "elementbyteordermsb", "compresseddata"}
_META_UNIQUE = ("DimSize", "NDims", "ElementType", "ElementSpacing", "ElementSize")
_META_SEPARATOR = rb"[=:]"
_NO_TEXT = re.compile(rb"[^\t\n\r\x20-\x7e\x80-\xff]")
_META_GEOMETRY = {  # alternative keys of one field, and its default
    ("Offset", "Position", "Origin"): "0", ("ElementSpacing", "ElementSize"): "1 mm",
    ("TransformMatrix", "Rotation", "Orientation"): "left, posterior, superior",
}  # fmt: skip
_MILLIMETRES = ("mm", "millimeter", "millimetre", "?", "")


class _Stream(NamedTuple):
    """Voxels: data file ("" for the header's own), offset, and size in bytes if the header gives it."""

    name: str
    offset: int = 0
    size: int | None = None


def check_header(path: Path) -> list[str]:
    """Check a header that ITK might misread or crash on.

    Parameters
    ----------
    path
        A .nrrd, .nhdr, .mha or .mhd file.

    Returns
    -------
    list of str
        Sentences for the user on what the header leaves open.

    Raises
    ------
    ValueError
        If the header is damaged or ambiguous.
    VolumeError
        If its voxels lie outside its folder, or its matrix is not of unit vectors.
    """
    header = _header(path)
    end = _nrrd_end(header) if header.startswith(b"NRRD") else _meta_end(header)
    if _NO_TEXT.search(header[:end]):  # it is undefined where ITK sees a key or a line end
        raise ValueError("its header is not text")
    if header.startswith(b"NRRD"):
        check_nrrd_lines(header[:end].decode("latin-1"))
        fields = _fields(header[:end], rb":")
        units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
        notes = _check_nrrd(fields)
    else:
        fields = _fields(header[:end], _META_SEPARATOR)
        units = [fields.get("distanceunits", "mm")]
        notes = _check_meta(path, header[:end], fields)
    others = [unit for unit in units if unit.lower() not in _MILLIMETRES]
    _require_beside(path, header)
    if others:
        raise ValueError(f"its spacing is in units of {others[0][:20]}, not millimetres")
    return notes


def _check_nrrd(fields: dict[str, str]) -> list[str]:
    """Raise ValueError if ITK would misread a field of NRRD; return what the header leaves open."""
    for key, form in _NRRD_FORMS.items():
        if key in fields and not re.fullmatch(form, fields[key], re.IGNORECASE):
            raise ValueError(f"its {key} is {fields[key][:60]}, which is not valid")
    if len(re.findall(r"\(", fields.get("spacedirections", "((("))) < 3 <= len(fields.get("sizes", "").split()):
        raise ValueError("an axis has no space direction")
    for vector in re.findall(r"\(([^)]*)\)", fields.get("spacedirections", "")):
        if not 0 < sum(x * x for x in map(float, vector.split(","))) < math.inf:  # ITK would loop, or assume 1 mm
            raise ValueError(f"its space direction {vector[:40]} has no length")
    if any(float(text) < 0 for text in fields.get("spacings", "").split()):
        raise ValueError("its spacing is negative")
    if "space" not in fields:
        return []
    missing = [key for key in _NRRD_DEFAULTS if key.replace(" ", "") not in fields]
    return [f"the file gives no {key}; {_NRRD_DEFAULTS[key]} is assumed" for key in missing]


def _check_meta(path: Path, header: bytes, fields: dict[str, str]) -> list[str]:
    """Raise an error if MetaIO would ignore or misread a field; return what the header leaves open."""
    for key in _META_NUMBERS & fields.keys():
        if not all(_is_number(text) for text in fields[key].split()):
            raise ValueError(f"its {key} is {fields[key][:40]}, which is not a list of numbers")
    if fields.get("ndims") not in ("1", "2", "3", "4", "5"):
        raise ValueError(f"its number of dimensions is {fields.get('ndims', '')[:20] or 'missing'}, not 1 to 5")
    pairs = _meta_fields(header)
    check_meta_lines(pairs)
    keys = [key for key, _ in pairs]
    notes = []
    for names, default in _META_GEOMETRY.items():
        if sum(keys.count(name) for name in names) > (len(names) if "ElementSize" in names else 1):
            raise ValueError(f"its header gives {names[0]} twice")
        if not set(names) & set(keys):
            notes.append(f"the file gives no {names[0]}; {default} is assumed")
    _check_meta_sizes(path, keys, fields)
    twice = [key for key in _META_UNIQUE if keys.count(key) > 1]
    if twice:
        raise ValueError(f"its header gives {twice[0]} twice")
    if any(float(text) < 0 for key in ("elementspacing", "elementsize") for text in fields.get(key, "").split()):
        raise ValueError("its spacing is negative")
    _check_meta_voxels(fields)
    return notes


def _meta_fields(header: bytes) -> list[tuple[str, str]]:
    """Return key and value of each line of a MetaImage header; raise ValueError over a line without a key."""
    pairs = []
    for line in header.decode("latin-1").splitlines():
        key, *value = re.split(r"[=:]", line, maxsplit=1)
        if line.strip() and not value:  # ITK would skip the next line too
            raise ValueError(f"its header has a line that is not a field ({line[:40]})")
        key, text = key.strip(), "".join(value).strip()
        if key.lower() in _META_SWITCHES and text.lower() not in ("true", "false", "1", "0"):
            raise ValueError(f"its {key} is neither True nor False")  # ITK looks at the first letter only
        pairs.append((key, text))
    return pairs


def _check_meta_sizes(path: Path, keys: list[str], fields: dict[str, str]) -> None:
    """Raise an error unless size and geometry have as many numbers as dimensions, and the matrix unit vectors."""
    dimensions = int(fields["ndims"])
    for names in (("DimSize",), *_META_GEOMETRY):
        count = dimensions**2 if "Rotation" in names else dimensions
        for key in set(names) & set(keys):
            numbers = fields.get(key.lower(), "").split()
            if len(numbers) != count:
                raise ValueError(f"its {key} does not have {count} numbers")
            if "Rotation" in names and not _has_unit_rows(np.reshape(numbers, (dimensions, dimensions)).astype(float)):
                raise VolumeError(f"{path.name}: its {key} is not of unit vectors; correct it and the spacing.")


def _check_meta_voxels(fields: dict[str, str]) -> None:
    """Raise ValueError if ITK would read other voxels than the header describes."""
    if _in_several_files(fields.get("elementdatafile", "")):
        raise ValueError("its voxels lie in several files, which ITK does not count; save it as one .mha")
    if fields.get("binarydata", "true").lower() not in ("true", "1"):
        raise ValueError("its voxels are text, of which ITK truncates what does not fit; save them in binary")
    scale = fields.get("elementtointensityfunctionslope", "1"), fields.get("elementtointensityfunctionoffset", "0")
    if not all(_is_number(text) for text in scale) or tuple(map(float, scale)) != (1, 0):
        raise ValueError("its values need a slope and offset, which ITK does not apply")
    if fields.get("elementdatafile", "").upper() == "LOCAL" and fields.get("headersize", "-1") not in ("-1", "0"):
        raise ValueError(f"its HeaderSize is {fields['headersize'][:20]}, so the header would count as voxels")


def _has_unit_rows(matrix: np.ndarray) -> bool:
    """Return whether the rows are unit vectors in their first three dimensions; ITK never returns from 1e308."""
    space = matrix[:3, :3]
    return bool((abs(matrix) <= 1.001).all()) and np.allclose(np.linalg.norm(space, axis=1), 1, rtol=1e-3)


def _meta_end(header: bytes) -> int:
    """Return where the voxels, or the names of their files, start."""
    last = re.search(rb"^[ \t]*ElementDataFile[ \t]*[=:].*?(?:\n|\Z)", header, re.MULTILINE)
    return last.end() if last else len(header)


def _is_number(text: str) -> bool:
    """Return whether a text is a finite number to ITK.

    Not by float(): Python reads 0.9_1 as a number, ITK stops at the underscore and leaves the rest of the row at 0.
    """
    return re.fullmatch(_REAL, text) is not None and math.isfinite(float(text))


def _require_beside(path: Path, header: bytes) -> None:
    """Raise VolumeError if detached voxels lie outside the header's folder: the header may be from anyone."""
    field = re.search(rb"^[ \t]*(?:data ?file[ \t]*:|ElementDataFile[ \t]*[=:])(.*)$", header, re.M | re.I)
    if field is None:
        return
    names = [field[1].decode(errors="replace").strip(' \t\r"')]
    if names[0].upper().startswith("LIST"):
        names = header[field.end() :].decode(errors="replace").split("\n")
    for name in names:
        if re.match(r"\s*([\\/]|[A-Za-z]:)", name) or ".." in re.split(r"[\\/\s]", name):
            raise VolumeError(
                f"{path.name}: its header says that its voxels are in {name.strip()[:80]}, outside its folder; "
                "put both files into one folder and correct the header."
            )


def check_text(path: Path, array: np.ndarray) -> None:
    """Check the voxels of a .nrrd file that stores them as text.

    Parameters
    ----------
    path
        The file; others than text are accepted.
    array
        The voxels as ITK read them.

    Raises
    ------
    ValueError
        If the text holds other numbers than `array`: ITK truncates what does not fit the type.
    """
    header = _header(path)
    end = _nrrd_end(header)
    fields = _fields(header[:end], rb":")
    if fields.get("encoding", "").lower() not in ("ascii", "text", "txt") or "datafile" in fields:
        return
    words = path.read_bytes()[end:].split()
    numbers = np.array([float(word) for word in words])
    if len(numbers) != array.size or not np.allclose(numbers, array.ravel(order="F"), rtol=1e-6, atol=0):
        raise ValueError(f"its {len(numbers)} numbers do not fit its type and size")


def check_voxels(path: Path, expected: int) -> None:
    """Check length and checksum of the voxels before ITK allocates them.

    Parameters
    ----------
    path
        A .nrrd, .nhdr, .mha or .mhd file. Text, and voxels that lie in several files, are not checked.
    expected
        Bytes of voxels, uncompressed, by the header.

    Raises
    ------
    EOFError
        If there are fewer voxels, or more: ITK would read the first ones.
    zlib.error
        If compressed voxels are damaged.
    """
    header = _header(path)
    if stream := (_nrrd_raw(header) if header.startswith(b"NRRD") else _meta_raw(header)):
        file = path.parent / stream.name if stream.name else path
        held = file.stat().st_size - stream.offset
        if held != expected and not (held in (expected + 1, expected + 2) and file.read_bytes().endswith(b"\n")):
            raise EOFError(f"its voxels are {held} bytes instead of {expected}")
        return
    stream = _nrrd_zipped(header) if header.startswith(b"NRRD") else _meta_zipped(header)
    if stream is None:
        return
    source = path.parent / stream.name if stream.name else path
    held = source.stat().st_size - stream.offset
    left = held if stream.size is None else stream.size
    if not 0 <= left <= held:
        raise EOFError(f"its compressed voxels are {held} bytes instead of the {left} in its header")
    inflated, inflater = 0, zlib.decompressobj(wbits=47)  # zlib or gzip
    with source.open("rb") as file:
        file.seek(stream.offset)
        chunk = b""
        while inflated <= expected and (chunk or left):
            if not chunk:
                chunk = file.read(min(left, 1 << 20))
                left -= len(chunk)
            if inflater.eof:
                if not chunk.startswith(_GZIP[: len(chunk)]):
                    break
                inflater = zlib.decompressobj(wbits=47)  # gzip may have several members, as bgzip and pigz write
            inflated += len(inflater.decompress(chunk, _PIECE))
            chunk = inflater.unconsumed_tail or inflater.unused_data
    if not inflater.eof or inflated != expected:
        raise EOFError(f"its compressed voxels are {inflated} bytes instead of {expected}")


def _header(path: Path) -> bytes:
    """Return the start of a file, with all of its header."""
    with path.open("rb") as file:
        return file.read(_HEADER)


def _nrrd_zipped(header: bytes) -> _Stream | None:
    """Return where gzip voxels are, if they are; see https://teem.sourceforge.net/nrrd/format.html."""
    end = _nrrd_end(header)
    fields = _fields(header[:end], rb":")
    if fields.get("encoding", "").lower() not in ("gz", "gzip") or fields.get("lineskip", "0") != "0":
        return None
    name = fields.get("datafile")
    if name is None:
        return _Stream("", end)
    return None if _in_several_files(name) else _Stream(name)


def _nrrd_raw(header: bytes) -> _Stream | None:
    """Return where raw voxels are, if they are in one file of which nothing is skipped."""
    end = _nrrd_end(header)
    fields = _fields(header[:end], rb":")
    skipped = any(fields.get(key, "0") != "0" for key in ("lineskip", "byteskip"))
    name = fields.get("datafile")
    if fields.get("encoding", "").lower() != "raw" or skipped or (name and _in_several_files(name)):
        return None
    return _Stream("", end) if name is None else _Stream(name)


def _nrrd_end(header: bytes) -> int:
    """Return where the voxels start: after the first empty line."""
    end = re.search(rb"\r?\n\r?\n", header)
    return end.end() if end else len(header)


def _meta_raw(header: bytes) -> _Stream | None:
    """Return where raw voxels are, if they are in one file."""
    fields = _fields(header[: _meta_end(header)], _META_SEPARATOR)
    name, skipped = fields.get("elementdatafile", "LIST"), fields.get("headersize", "0")
    compressed = fields.get("compresseddata", "").lower() in ("true", "1")
    binary = fields.get("binarydata", "true").lower() in ("true", "1")
    if compressed or not binary or not skipped.isdigit() or _in_several_files(name):
        return None
    return _Stream("", _meta_end(header)) if name.upper() == "LOCAL" else _Stream(name, int(skipped))


def _meta_zipped(header: bytes) -> _Stream | None:
    """Return where zlib voxels are, if they are; see https://itk.org/Wiki/ITK/MetaIO/Documentation."""
    end = _meta_end(header)
    fields = _fields(header[:end], _META_SEPARATOR)
    name = fields.get("elementdatafile", "LIST")
    if fields.get("compresseddata", "").lower() not in ("true", "1") or _in_several_files(name):
        return None
    size = int(fields.get("compresseddatasize", "0"))
    if name.upper() != "LOCAL":
        return _Stream(name, 0, size or None)  # without a size ITK uses the length of the file
    if not size:
        raise ValueError("its header lacks CompressedDataSize, without which ITK reads noise")
    return _Stream("", end, size)


def _fields(header: bytes, separator: bytes) -> dict[str, str]:
    """Return the fields of a header, by their key in lower case without spaces."""
    lines = re.findall(rb"^\s*([A-Za-z ]+?)\s*" + separator + rb"\s*([^=\r\n]*?)\s*$", header, re.MULTILINE)
    return {key.decode().lower().replace(" ", ""): value.decode(errors="replace") for key, value in lines}


def _in_several_files(name: str) -> bool:
    """Return whether a data file field names more than one file."""
    return "%" in name or name.upper().startswith("LIST")
