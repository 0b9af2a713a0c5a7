"""Damage that a library would read over: the sentence that names each."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.volume.format_case import bundled
from tests.volume.format_cases_dicom import HERE, compressed, stack
from tests.volume.test_untrusted import META, NRRD
from tests.volume.volume_cases import fault, save, series, slice_header


def edited(source: Path, folder: Path, *changes: tuple[bytes, bytes]) -> Path:
    """Return a copy of a file in which some bytes, which are there, are replaced once."""
    data = source.read_bytes()
    for old, new in changes:
        assert old in data
        data = data.replace(old, new, 1)
    (folder / source.name).write_bytes(data)
    return folder / source.name


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (NRRD.replace("NRRD0004", "NRRD0009"), "its first line is NRRD0009, not NRRD0001 to NRRD0005"),
        (f"{NRRD}foo: 1\n", "its header has a line that is not a field of NRRD (foo: 1)"),
        (f"{NRRD}kinds: {'domain ' * 90}\n", "its kinds has 631 characters"),
        (f"{NRRD}# \x01\n", "its header is not text"),
        (NRRD.replace("sizes: 8 8 8", "sizes: 8 8 x"), "its sizes is 8 8 x, which is not valid"),
        (f"{META}{'k' * 201} = 1\n", "its header has a key of 201 characters"),
        (f"{META}Name = {'n' * 251}\n", "its Name has 251 characters"),
        (f"{META}hello\n", "its header has a line that is not a field (hello)"),
        (META.replace("BinaryData = True", "BinaryData = Tru"), "its BinaryData is neither True nor False"),
    ],
)
def test_headers_of_nrrd_and_metaimage(text, why, tmp_path):
    path = tmp_path / ("a.nrrd" if text.startswith("NRRD") else "a.mha")
    path.write_bytes(f"{text}{'' if path.suffix == '.nrrd' else 'ElementDataFile = LOCAL'}\n".encode() + bytes(512))
    assert why in fault(path)


def test_a_way_to_treat_tilt_that_is_unknown(tmp_path):
    assert "tilt='cut' is unknown; choose refuse or resample." in fault(tmp_path, tilt="cut")


# --- DICOM ----------------------------------------------------------------------------------------------------------


def test_dicom_headers(tmp_path):
    series(tmp_path / "a", [0, 2], SliceThickness="2.55")
    cut = edited(tmp_path / "a" / "0.dcm", tmp_path, (b"DS\x04\x002.55", b"DS\x04\x002\x0055"))
    assert "its SliceThickness is not a number, or is cut off" in fault(cut)
    nameless = slice_header(Rows=None)
    del nameless.SOPClassUID
    nameless.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"
    nameless.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    assert "it does not name its SOP class" in fault(save(nameless, tmp_path / "b" / "0.dcm").parent)
    shifted = edited(tmp_path / "a" / "1.dcm", tmp_path, (b"\xe0\x7f\x10\x00OW", b"\xe0\x7f\x10\x00\x01\x02"))
    assert "the header of their element, which gives " in fault(shifted)


@pytest.mark.parametrize(
    ("source", "change", "why"),
    [
        ("lossless", (b"\xff\xd8\xff", b"\x00\x00\x00"), "no JPEG codestream"),
        ("lossless", (b"\xff\xc3\x00\x0b", b"\xff\xc3\x00\x0b\x8d"), "a JPEG codestream of 141 bits"),
        ("2000", (b"\xff\x4f\xff\x51", b"\xff\x4f\xff\x50"), "no JPEG 2000 codestream"),
        ("2000 tiles", None, "a codestream in tiles of 1 x 1 values"),
        ("2000 size", None, "values, which is not the image's size"),
        ("ls", (b"\xff\xf7", b"\xff\xf6"), "no whole JPEG-LS codestream"),
    ],
)
def test_codestreams_of_dicom(source, change, why, tmp_path):
    """Decoders would allocate what they promise, write beyond their memory, or search for their end."""
    if source == "lossless":
        path = HERE / "data" / "jpeg_lossless.dcm"
    elif source == "ls":
        path = sorted(stack([0], change=compressed("1.2.840.10008.1.2.4.80"))(tmp_path).iterdir())[0]
    else:
        path = bundled("MR_small_jp2klossless.dcm")(tmp_path)
    if change is None:  # the SIZ segment: width and height of the image, offset, then of a tile
        data = path.read_bytes()
        start = data.index(b"\xff\x4f\xff\x51") + 8
        old = data[start : start + 24]
        x, y, left, top, width, height = struct.unpack(">6I", old)
        new = (x, y, left, top, 1, 1) if "tiles" in source else (x + 8, y, left, top, width + 8, height)
        if "tiles" in source:
            new = (70_000, 70_000, left, top, 1, 1)
        change = (old, struct.pack(">6I", *new))
    if why.endswith("141 bits"):
        data = path.read_bytes()
        start = data.index(b"\xff\xc3\x00\x0b")
        change = (data[start : start + 5], data[start : start + 4] + b"\x8d")
    (tmp_path / "edited").mkdir()
    assert why in fault(edited(path, tmp_path / "edited", change))


# --- pictures -------------------------------------------------------------------------------------------------------


def png(folder: Path, header: bytes = b"", packed: bytes | None = None) -> Path:
    """Write a PNG of 4 x 3 grey pixels, with another header or other compressed pixels."""
    pixels = b"".join(b"\0" + bytes([row] * 4) for row in range(3))

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = header or struct.pack(">2I5B", 4, 3, 8, 0, 0, 0, 0)
    packed = zlib.compress(pixels) if packed is None else packed
    path = folder / "a.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b""))
    return path


def test_damaged_png(tmp_path):
    assert "it has no header" in fault(png(tmp_path, struct.pack(">2I6B", 4, 3, 8, 0, 0, 0, 0, 0)))
    assert "its header names an unknown compression" in fault(png(tmp_path, struct.pack(">2I5B", 4, 3, 8, 0, 1, 0, 0)))
    whole = zlib.compress(b"".join(b"\0" + bytes([row] * 4) for row in range(3)))
    assert "its pixels are cut off before their checksum" in fault(png(tmp_path, packed=whole[:-4]))
    path = png(tmp_path)
    path.write_bytes(path.read_bytes()[:-20])
    assert "a part of it is cut off" in fault(path)


def test_pictures_of_several_sizes(tmp_path):
    for name, size in (("1.png", (4, 3)), ("2.png", (5, 3))):
        Image.new("L", size).save(tmp_path / name)
    assert "2.png is 5 x 3 grey pixels of type uint8, 1.png is 4 x 3" in fault(tmp_path)
    assert "; pass pictures of one type and size, or a single one." in fault(tmp_path)


def test_a_tiff_whose_compressed_pixels_are_cut_off(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 50), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.tif", compression="tiff_adobe_deflate")
    data = bytearray((tmp_path / "a.tif").read_bytes())
    with Image.open(tmp_path / "a.tif") as image:
        start, size = image.tag_v2[273][0], image.tag_v2[279][0]  # type: ignore[attr-defined]
    data[start : start + size] = zlib.compress(noise.tobytes())[: size - 100].ljust(size, b"\0")[:size]
    counts = struct.pack("<I", size)
    data = data.replace(counts, struct.pack("<I", size - 100))
    (tmp_path / "b.tif").write_bytes(data)
    assert "its compressed pixels are cut off" in fault(tmp_path / "b.tif")


def test_a_jpeg_that_two_decoders_read_differently(tmp_path):
    """libjpeg reads on after damage, and each decoder in its own way; some flipped bit shows it."""
    ramp = np.add.outer(np.arange(64), np.arange(64)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "a.jpg", quality=95)
    data, said = (tmp_path / "a.jpg").read_bytes(), []
    start = data.index(b"\xff\xda") + 10
    for at in range(start, len(data) - 2, 3):
        broken = bytearray(data)
        broken[at] ^= 0x10
        (tmp_path / "b.jpg").write_bytes(broken)
        try:
            said.append(fault(tmp_path / "b.jpg"))
        except pytest.fail.Exception:  # both decoders read the same, as if nothing were damaged
            continue
        if "two decoders read different pixels from it" in said[-1]:
            return
    pytest.skip(f"these decoders agree on all {len(said)} damaged files")
