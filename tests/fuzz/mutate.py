"""Mutate files: their bytes, the numbers in their text, and the content of gzip, zip and PNG."""

from __future__ import annotations

import gzip
import io
import random
import re
import struct
import zipfile
import zlib

_NUMBERS = (0, 1, -1, 2, 7, 127, 128, 255, 256, 32767, 32768, 65535, 65536, 2**31 - 1, -(2**31), 2**32 - 1)
_FLOATS = (0.0, -0.0, 1e-40, 1e30, -1e300, float("nan"), float("inf"), 0.5, -1.0, 3.0)
_TEXTS = (
    b"0", b"-1", b"1", b"2", b"3", b"999999999", b"99999999999999999999", b"1e308", b"nan", b"inf", b"0.5", b"",
    b"x", b"%d", b"../../x", b"/etc/hostname", b"LIST",
)  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    """Return `data` with one to six changes."""
    if data[:2] == b"\x1f\x8b" and rng.random() < 0.8:
        return gzip.compress(mutated(gzip.decompress(data), rng), mtime=0)
    if data[:4] == b"PK\3\4" and rng.random() < 0.6:
        return _with_a_member(data, rng)
    if data[:8] == b"\x89PNG\r\n\x1a\n" and rng.random() < 0.7:
        return _with_checksums(data, rng)
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice(_CHANGES)(changed, rng)
    return bytes(changed)


def _offset(data: bytearray, rng: random.Random) -> int:
    """Return a random offset, in the header more often than not."""
    return rng.randrange(max(1, min(len(data), 400 if rng.random() < 0.6 else len(data))))


def _flip(data: bytearray, rng: random.Random) -> None:
    """Flip a bit."""
    if data:
        data[_offset(data, rng)] ^= 1 << rng.randrange(8)


def _byte(data: bytearray, rng: random.Random) -> None:
    """Replace a byte."""
    if data:
        data[_offset(data, rng)] = rng.randrange(256)


def _number(data: bytearray, rng: random.Random) -> None:
    """Replace a binary number by one that is often handled wrongly."""
    form, values = rng.choice((("b", _NUMBERS), ("h", _NUMBERS), ("i", _NUMBERS), ("q", _NUMBERS), ("f", _FLOATS)))
    size = struct.calcsize(form)
    offset = _offset(data, rng) // size * size
    value = rng.choice(values)
    packed = struct.pack(form, value) if form == "f" and abs(value) < 1e38 else None
    if packed is None:
        packed = (int(value) if value == value and abs(value) < 1e38 else -1).to_bytes(16, "little", signed=True)[:size]
    data[offset : offset + size] = packed if rng.random() < 0.7 else packed[::-1]


def _text(data: bytearray, rng: random.Random) -> None:
    """Replace a number in text."""
    found = list(re.finditer(rb"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?", data[:4000]))
    if found:
        number = rng.choice(found)
        data[number.start() : number.end()] = rng.choice(_TEXTS)


def _same_length_digit(data: bytearray, rng: random.Random) -> None:
    """Replace a digit, which keeps DICOM's lengths right."""
    offsets = [offset for offset, byte in enumerate(data) if 48 <= byte <= 57]
    if offsets:
        data[rng.choice(offsets)] = rng.choice(b"0123456789.-")


def _cut(data: bytearray, rng: random.Random) -> None:
    """Cut off the end."""
    del data[rng.randrange(len(data) + 1) :]


def _remove(data: bytearray, rng: random.Random) -> None:
    """Remove some bytes."""
    offset = _offset(data, rng)
    del data[offset : offset + rng.choice((1, 2, 4, 16, 100))]


def _repeat(data: bytearray, rng: random.Random) -> None:
    """Repeat some bytes."""
    offset = _offset(data, rng)
    data[offset:offset] = data[offset : offset + rng.choice((1, 2, 4, 16, 100))]


def _line(data: bytearray, rng: random.Random) -> None:
    """Remove or repeat a line of a text header."""
    lines = bytes(data).split(b"\n")
    index = rng.randrange(len(lines))
    lines[index : index + 1] = [] if rng.random() < 0.5 else [lines[index]] * 2
    data[:] = b"\n".join(lines)


_CHANGES = (_flip, _flip, _byte, _byte, _number, _number, _text, _same_length_digit, _cut, _remove, _repeat, _line)


def _with_a_member(data: bytes, rng: random.Random) -> bytes:
    """Return a zip archive with the content, or name, of one file mutated."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = [(member, archive.read(member)) for member in archive.infolist()]
    chosen, target = rng.randrange(len(members)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for n, (member, content) in enumerate(members):
            if n == chosen and rng.random() < 0.1:
                member.filename = mutated(member.filename.encode(), rng).decode(errors="replace") or "x"
            elif n == chosen:
                content = mutated(content, rng)
            archive.writestr(member, content)
    return target.getvalue()


def _with_checksums(data: bytes, rng: random.Random) -> bytes:
    """Return a PNG with one chunk mutated and its checksum corrected, so that the change is read."""
    chunks, offset = [], 8
    while offset + 12 <= len(data):
        size = int.from_bytes(data[offset : offset + 4], "big")
        chunks.append((data[offset + 4 : offset + 8], data[offset + 8 : offset + 8 + size]))
        offset += 12 + size
    chosen = rng.randrange(len(chunks))
    kind, content = chunks[chosen]
    if kind == b"IDAT" and rng.random() < 0.5:
        content = zlib.compress(mutated(zlib.decompress(content), rng))
    else:
        content = mutated(content, rng) if content else content + b"x"
    chunks[chosen] = kind, content
    parts = [len(c).to_bytes(4, "big") + k + c + zlib.crc32(k + c).to_bytes(4, "big") for k, c in chunks]
    return data[:8] + b"".join(parts)
