"""Pictures, and volumes with unusual voxels, and the expected result for each."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from tests.volume.format_case import Case, shared
from tests.volume.format_cases_files import ALL, ITK, edited, itk, nifti, values, written

UNIT = "a picture has no spacing and no position in the patient; 1 mm per pixel is assumed, with anterior at the top"
GREY = ((np.indices((20, 24)).sum(0) * 977) % 251).astype(np.uint8)
DEEP = (GREY.astype(np.uint16) * 257)[::-1]
COLOUR = np.stack([GREY, GREY[::-1], GREY.T[:20, :20].repeat(2, axis=1)[:, :24]], axis=-1)


def picture(array=GREY, name="case.png", mode=None, **options):
    def make(folder: Path) -> Path:
        image = Image.fromarray(array)
        (image.convert(mode) if mode else image).save(folder / name, **options)
        return folder / name

    return make


def tiff(array, name="case.tif", **options):
    def make(folder: Path) -> Path:
        tifffile.imwrite(folder / name, array, **options)
        return folder / name

    return make


def folder_of(*arrays, suffix=".png"):
    def make(folder: Path) -> Path:
        for n, array in enumerate(arrays, start=8):  # 8, 9, 10: not the order of the alphabet
            Image.fromarray(array).save(folder / f"slice{n}{suffix}")
        return folder

    return make


def animation(folder: Path) -> Path:
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    frames[0].save(folder / "case.png", save_all=True, append_images=frames[1:])
    return folder / "case.png"


def turned(folder: Path) -> Path:
    exif = Image.Exif()
    exif[274] = 6
    return picture(name="case.jpg", exif=exif)(folder)


def _wrong_checksum(data: bytes) -> bytes:
    place = data.index(b"IDAT") + int.from_bytes(data[data.index(b"IDAT") - 4 :][:4], "big") + 4
    return data[:place] + bytes(4) + data[place + 4 :]


def _png(rows: int, height: int = 20, bits: int = 8, colour: int = 0) -> bytes:
    """Return a PNG whose header gives `height` rows of 24 pixels, with the pixels of `rows` rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    row = bytes(1 + 24 * bits // 8 * (3 if colour == 2 else 1))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 24, height, bits, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(row * rows)) + chunk(b"IEND", b"")


def _wrong_adler(folder: Path) -> Path:
    """Make a TIFF whose compressed strip ends in a wrong checksum."""
    path = tiff(GREY, compression="zlib")(folder)
    with tifffile.TiffFile(path) as file:
        end = file.pages[0].dataoffsets[-1] + file.pages[0].databytecounts[-1]
    data = path.read_bytes()
    path.write_bytes(data[: end - 4] + bytes(4) + data[end:])
    return path


_STACK = np.stack([GREY, GREY[::-1], GREY[:, ::-1], 255 - GREY])
PICTURES = [
    Case("PNG, 8 bits", picture(), note=UNIT, readers=("SimpleITK",)),
    Case("PNG, 16 bits", picture(DEEP), note=UNIT, readers=("SimpleITK",)),
    Case("PNG, black and white", picture(mode="1"), note=UNIT),
    Case("JPEG, grey", picture(name="case.jpg"), note=UNIT, readers=("SimpleITK",)),
    Case("TIFF, 8 bits", tiff(GREY), note=UNIT, readers=("SimpleITK",)),
    Case("TIFF, 16 bits, big-endian", tiff(DEEP, byteorder=">"), note=UNIT, readers=("SimpleITK",)),
    Case("TIFF, signed 16 bits", tiff(DEEP.astype(np.int16)), note=UNIT, readers=("SimpleITK",)),
    Case("TIFF, float32", tiff(GREY / np.float32(7)), note=UNIT, readers=("SimpleITK",)),
    Case("TIFF of which 0 is white", tiff(GREY, photometric="miniswhite"), refused="its value 0 means white; save it"),
    Case(
        "TIFF, float64",
        tiff(GREY / 7.0),
        refused="not a PNG, JPEG or TIFF picture of 8-bit, 16-bit or float32 values; save it as one",
    ),
    Case("TIFF, unsigned 32 bits", tiff(GREY.astype(np.uint32)), refused="its 32-bit values would be truncated"),
    Case(
        "TIFF, signed 8 bits",
        tiff(GREY.astype(np.int8)),
        refused="its signed 8-bit values would be read as unsigned; save it with 16 bits",
    ),
    Case(
        "TIFF, 16-bit colours",
        tiff(np.stack([DEEP] * 3, axis=-1), photometric="rgb"),
        refused="its 3 samples per pixel of 16 bits would be truncated; save one of them as grey",
    ),
    Case(
        "TIFF, grey with a second sample",
        tiff(np.stack([GREY, GREY[::-1]], axis=-1), photometric="minisblack", planarconfig="contig"),
        refused="its 2 samples per pixel of 8 bits would be truncated; save one of them as grey",
    ),
    Case("TIFF, many pages", tiff(_STACK, photometric="minisblack"), note=UNIT, readers=("SimpleITK",)),
    Case(
        "TIFF, ImageJ stack of two channels",
        tiff(_STACK.reshape(2, 2, 20, 24), imagej=True, metadata={"axes": "ZCYX"}),
        refused="its pages are channels or time points",
    ),
    Case(
        "TIFF, OME with time points",
        tiff(_STACK, name="case.ome.tif", photometric="minisblack", metadata={"axes": "TYX"}),
        refused="its pages are channels or time points",
    ),
    Case(
        "a folder of PNGs",
        folder_of(*_STACK),
        note="4 pictures are stacked from slice8.png to slice11.png, feet to head",
    ),
    Case(
        "a list of pictures",
        lambda folder: sorted(folder_of(*_STACK)(folder).iterdir()),
        note="4 pictures are stacked from slice10.png to slice9.png",
    ),
    Case(
        "pictures of several sizes",
        folder_of(GREY, GREY[:10]),
        refused="slice9.png is 24 x 10 grey pixels of type uint8",
    ),
    Case(
        "pictures of 8 and 16 bits", folder_of(GREY, DEEP), refused="slice9.png is 24 x 20 grey pixels of type uint16"
    ),
    Case(
        "grey saved as colour",
        picture(np.stack([GREY] * 3, axis=-1)),
        note="its colour channels are identical; one of them is used as grey",
    ),
    Case("palette of greys", picture(mode="P"), note="its colour channels are identical"),
    Case("colour", picture(COLOUR), refused="it has 3 colour channels; choose one with component=0 to 2"),
    Case("colour, a channel chosen", picture(COLOUR), options={"component": 1}, note=UNIT),
    Case("transparent", picture(np.dstack([COLOUR, GREY])), refused="parts of it are transparent; save it without"),
    Case("CMYK", picture(COLOUR, "case.jpg", "CMYK"), refused="colours (CMYK) have no single scale of values"),
    Case(
        "JPEG that lies on its side (EXIF)",
        turned,
        refused="its header says that it is rotated or mirrored; save it upright",
    ),
    Case("animated PNG", animation, refused="it holds 2 pictures; save the one to read"),
    Case("PNG cut off", edited(picture(), lambda d: d[:-60]), refused="the file is damaged or not what its name says"),
    Case(
        "PNG with a wrong checksum", edited(picture(), _wrong_checksum), refused="the file is damaged or not what its"
    ),
    Case(
        "PNG of which rows are missing",
        written("case.png", _png(rows=12)),
        refused="the file is damaged or not what its name says (its pixels are 300 instead of 500 bytes)",
    ),
    Case(
        "PNG that promises gigabytes",
        written("case.png", _png(rows=20, height=3_000_000)),
        refused="the file is damaged or not what its name says (its pixels are 500 instead of 75000000 bytes)",
    ),
    Case(
        "PNG of 16-bit colours",
        written("case.png", _png(rows=20, bits=16, colour=2)),
        refused="its 16-bit colours would be truncated; save it as grey values",
    ),
    Case(
        "TIFF with a wrong checksum",
        _wrong_adler,
        refused="the file is damaged or not what its name says (Error -3 while decompressing",
    ),
    Case(
        "JPEG cut off",
        edited(picture(name="case.jpg"), lambda d: d[: len(d) // 2]),
        refused="the file is damaged or not what its name says",
    ),
    Case("real: head CT slice, PNG", shared("head_ct_hemorrhage/images/000.png"), note=UNIT, readers=("SimpleITK",)),
]


def with_values(*odd: float):
    array = values(np.float64)
    array.ravel()[: len(odd)] = odd
    return nifti(array)


_LABELS = np.kron(np.arange(27).reshape(3, 3, 3) % 5, np.ones((6, 6, 6))).astype(np.int32)
VOXELS = [
    Case("NaN and infinity", with_values(np.nan, np.inf, -np.inf), remark="kept; they count as background"),
    Case("float64 up to 1e30", with_values(1e30, -1e300), remark="kept; a few such voxels do not move the window"),
    Case(
        "constant",
        nifti(np.full((9, 10, 11), 7, np.int16)),
        readers=ALL,
        remark="no slice is analysed, the score is nan",
    ),
    Case("all background", nifti(np.zeros((9, 10, 11), np.int16)), remark="no slice is analysed, the score is nan"),
    Case("1 x 1 x 1", nifti(np.ones((1, 1, 1), np.int16)), readers=ALL),
    Case("one slice", nifti(values(np.int16, (9, 10, 1))), readers=ALL),
    Case("one column", nifti(values(np.int16, (1, 1, 11))), readers=ALL),
    Case("int32 labels", nifti(_LABELS), remark="said: “it looks like a label map (only the values 0, 1, 2, 3, ... …”"),
    Case("float labels", itk("case.nrrd", _LABELS.astype(np.float64)), readers=ITK, remark="said, as for int32"),
]
