"""What ITK lets pass in NRRD and MetaImage files: damaged streams, numbers that are none, other units than mm."""

from __future__ import annotations

import math
import re
import zlib
from pathlib import Path
from typing import NamedTuple

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


class _Stream(NamedTuple):
    """Compressed voxels: data file ("" for the header's own), offset, and size in bytes where the header says it."""

    name: str
    offset: int = 0
    size: int | None = None


def check_header(path: Path) -> list[str]:
    """Raise ValueError over a header that ITK would take for another one, or crash on; return what it leaves open."""
    header = _header(path)
    if header.startswith(b"NRRD"):
        fields = _fields(header[: _nrrd_end(header)], rb":")
        units = re.findall(r'"([^"]*)"', fields.get("spaceunits", ""))
        notes = []
        for key, form in _NRRD_FORMS.items():
            if key in fields and not re.fullmatch(form, fields[key], re.IGNORECASE):
                raise ValueError(f"its {key} is {fields[key][:60]}, which is not what belongs there")
        if "space" in fields:
            defaults = {"space directions": "1 mm along the axes of its space", "space origin": "0"}
            missing = [key for key in defaults if key.replace(" ", "") not in fields]
            notes = [f"the file gives no {key}; {defaults[key]} is taken" for key in missing]
    else:
        fields, notes = _fields(header, rb"="), []
        units = [fields.get("distanceunits", "mm")]
        for key in _META_NUMBERS & fields.keys():
            if not all(_number(text) for text in fields[key].split()):
                raise ValueError(f"its {key} is {fields[key][:40]}, which is not a row of numbers")
        if fields.get("ndims") not in ("1", "2", "3", "4", "5"):
            raise ValueError(
                f"its header gives {fields.get('ndims', '')[:20] or 'nothing'} as its number of dimensions"
            )
    others = [unit for unit in units if unit.lower() not in ("mm", "millimeter", "millimetre", "?", "")]
    _require_beside(path, header)
    if others:
        raise ValueError(f"its spacing is in units of {others[0][:20]}, not millimetres")
    return notes


def _number(text: str) -> bool:
    # Not float(): Python takes 0.9_1 for a number, ITK stops at the underscore and leaves the rest of the row at 0.
    return re.fullmatch(_REAL, text) is not None and math.isfinite(float(text))


def _require_beside(path: Path, header: bytes) -> None:
    """Detached voxels must lie in the header's folder or below: a header may come from anybody."""
    field = re.search(rb"^[ \t]*(?:data ?file[ \t]*:|ElementDataFile[ \t]*=)(.*)$", header, re.M | re.I)
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


def check_compressed(path: Path, wanted: int) -> None:
    """Inflate the compressed voxels of a .nrrd, .nhdr, .mha or .mhd file: `wanted` bytes with the right checksum.

    Uncompressed files, and the rare ones whose voxels lie in several files, pass. Raises zlib.error or EOFError.
    """
    header = _header(path)
    stream = _nrrd_voxels(header) if header.startswith(b"NRRD") else _meta_voxels(header)
    if stream is None:
        return
    left = stream.size if stream.size is not None else float("inf")
    inflated = 0
    inflater = zlib.decompressobj(wbits=47)  # zlib or gzip
    with (path.parent / stream.name if stream.name else path).open("rb") as file:
        file.seek(stream.offset)
        while not inflater.eof and (chunk := file.read(int(min(left, 1 << 20)))):
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


def _nrrd_end(header: bytes) -> int:
    """Where the voxels start: after the first empty line."""
    end = re.search(rb"\r?\n\r?\n", header)
    return end.end() if end else len(header)


def _meta_voxels(header: bytes) -> _Stream | None:
    """zlib voxels, see https://itk.org/Wiki/ITK/MetaIO/Documentation"""
    last = re.search(rb"^\s*ElementDataFile\s*=.*?\n", header, re.MULTILINE)
    fields = _fields(header[: last.end()], rb"=") if last else {}
    name = fields.get("elementdatafile", "LIST")
    if fields.get("compresseddata", "").lower() not in ("true", "1") or _several(name):
        return None
    if name.upper() != "LOCAL":
        return _Stream(name)
    if "compresseddatasize" not in fields:
        raise ValueError("its header lacks CompressedDataSize, without which ITK reads noise")
    return _Stream("", last.end(), int(fields["compresseddatasize"]))


def _fields(header: bytes, separator: bytes) -> dict[str, str]:
    lines = re.findall(rb"^\s*([A-Za-z ]+?)\s*" + separator + rb"\s*([^=\r\n]*?)\s*$", header, re.MULTILINE)
    return {key.decode().lower().replace(" ", ""): value.decode(errors="replace") for key, value in lines}


def _several(name: str) -> bool:
    return "%" in name or name.upper().startswith("LIST")
