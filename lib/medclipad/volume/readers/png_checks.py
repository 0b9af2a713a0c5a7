"""What Pillow lets pass in PNG files: pixels that are not there, which it takes for black, and bits that it cuts."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from medclipad.errors import VolumeError

_SIGNATURE = 8
_PIECE = 1 << 22  # bytes inflated at a time
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # a pixel, by colour type
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of interlaced pictures: first column and row, distance of columns and of rows."""


def check_png(path: Path) -> None:
    """Raise ValueError unless a PNG holds just the pixels that its header says; VolumeError for 16-bit colours."""
    chunks = _chunks(path)
    _, header = next(chunks, (b"", b""))
    if len(header) != 13:
        raise ValueError("it has no header")
    width, height = int.from_bytes(header[:4], "big"), int.from_bytes(header[4:8], "big")
    bits, colour, compression, filtering, interlaced = header[8:]
    if compression or filtering or interlaced > 1:
        raise ValueError("its header names a kind of compression that there is not")
    if bits == 16 and colour != 0:
        raise VolumeError(f"{path.name}: its 16-bit colours would be cut; save it as grey values.")
    pixel = bits * _SAMPLES.get(colour, 0)
    passes = _PASSES if interlaced else ((0, 0, 1, 1),)
    sizes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in passes]
    wanted = sum(rows * (1 + -(-columns * pixel // 8)) for columns, rows in sizes if columns > 0 < rows)
    inflated = _inflated((content for kind, content in chunks if kind == b"IDAT"), wanted)
    if inflated != wanted:
        has = f"more than {wanted}" if inflated > wanted else f"{inflated} instead of {wanted}"
        raise ValueError(f"its pixels are {has} bytes")


def _chunks(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """(kind, content) up to the last, see https://www.w3.org/TR/png/#5Chunk-layout; ValueError for one that is cut off,
    of which Pillow would allocate what it promises."""
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


def _inflated(pieces: Iterator[bytes], wanted: int) -> int:
    """Bytes that a whole zlib stream unpacks to, counted until there are more than `wanted`."""
    inflater, inflated = zlib.decompressobj(), 0
    for piece in pieces:
        while piece and not inflater.eof and inflated <= wanted:
            inflated += len(inflater.decompress(piece, _PIECE))
            piece = inflater.unconsumed_tail
    if not inflater.eof and inflated == wanted:
        raise ValueError("its pixels are cut off before their checksum")
    return inflated
