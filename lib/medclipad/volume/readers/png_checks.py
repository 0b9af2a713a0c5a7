"""Check PNG files for faults that Pillow ignores: missing pixels, which it reads as black, and bits that it drops."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from medclipad.errors import VolumeError

_SIGNATURE = 8
_PIECE = 1 << 22  # bytes inflated at a time
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # samples per pixel, by colour type
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Passes of an interlaced picture: first column and row, distance between columns and between rows."""


def check_png(path: Path) -> None:
    """Raise an error unless a PNG holds exactly the pixels that its header says.

    Parameters
    ----------
    path
        PNG file.

    Raises
    ------
    ValueError
        If the file is damaged.
    VolumeError
        If its colours have 16 bits, of which Pillow would keep 8.
    """
    chunks = _chunks(path)
    _, header = next(chunks, (b"", b""))
    if len(header) != 13:
        raise ValueError("it has no header")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits, colour, compression, filtering, interlaced = header[8:]
    if compression or filtering or interlaced > 1:
        raise ValueError("its header names an unknown compression")
    if bits == 16 and colour != 0:
        raise VolumeError(f"{path.name}: its 16-bit colours would be truncated; save it as grey values.")
    pixel = bits * _SAMPLES.get(colour, 0)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    expected = sum(rows * (1 + -(-columns * pixel // 8)) for columns, rows in sizes if columns > 0 < rows)
    inflated = _inflated((content for kind, content in chunks if kind == b"IDAT"), expected)
    if inflated != expected:
        size = f"more than {expected}" if inflated > expected else f"{inflated} instead of {expected}"
        raise ValueError(f"its pixels are {size} bytes")


def _chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield (kind, content) of each chunk, see https://www.w3.org/TR/png/#5Chunk-layout.

    Raise ValueError if one is cut off: Pillow would allocate the size that it promises.
    """
    left = path.stat().st_size - _SIGNATURE
    with path.open("rb") as file:
        file.seek(_SIGNATURE)
        kind = b""
        while left > 0 and kind != b"IEND":
            size, kind = int.from_bytes(file.read(4), "big"), file.read(4)
            left -= size + 12
            if left < 0:
                raise ValueError("a part of it is cut off")
            yield kind, file.read(size)
            file.seek(4, 1)


def _inflated(pieces: Iterator[bytes], expected: int) -> int:
    """Return the bytes that a complete zlib stream unpacks to, counted until there are more than `expected`."""
    inflater, inflated = zlib.decompressobj(), 0
    for piece in pieces:
        while piece and not inflater.eof and inflated <= expected:
            inflated += len(inflater.decompress(piece, _PIECE))
            piece = inflater.unconsumed_tail
    if not inflater.eof and inflated == expected:
        raise ValueError("its pixels are cut off before their checksum")
    return inflated
