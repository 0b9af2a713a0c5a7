"""NRRD and MetaImage files of every kind, and the expected result for each."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from tests.volume.format_case import Case, shared
from tests.volume.format_cases_files import ITK, THREE_COMPONENTS, bit_flipped, edited, itk, values, written

_LPS = "space: left-posterior-superior\nspace directions: (1,0,0) (0,2,0) (0,0,3)\nspace origin: (5,6,7)\n"
_RAS = _LPS.replace("left-posterior", "right-anterior")


def nrrd(extra: str, name: str = "case.nrrd", sizes: str = "2 3 4", data: bytes = bytes(range(48))):
    dimension = len(sizes.split())
    head = f"NRRD0005\ntype: short\ndimension: {dimension}\nsizes: {sizes}\nencoding: raw\nendian: little\n{extra}\n"
    return written(name, head.encode() + data)


def detached(folder: Path) -> Path:
    (folder / "voxels").mkdir()
    (folder / "voxels" / "case.raw").write_bytes(values(np.int16, (2, 3, 4)).tobytes("F"))
    return nrrd(f"{_LPS}data file: voxels/case.raw\n", "case.nhdr", data=b"")(folder)


NRRD_AND_META = [
    Case("NRRD, gzip", itk("case.nrrd"), readers=ITK),
    Case("NRRD, raw", itk("case.nrrd", packed=False), readers=ITK),
    Case("NRRD with detached data, `.nhdr` and `.raw.gz`", itk("case.nhdr"), readers=ITK),
    Case("NRRD with detached data in a folder below", detached, readers=ITK),
    Case(
        "NRRD whose detached data lies elsewhere",
        nrrd(f"{_LPS}data file: ../other.raw\n", "case.nhdr"),
        refused="its header says that its voxels are in ../other.raw, outside its folder; "
        "put both files into one folder",
    ),
    Case(
        "NRRD without its detached data",
        nrrd(f"{_LPS}data file: none.raw\n", "case.nhdr"),
        refused="the file is damaged or not what its name says",
    ),
    Case("NRRD in RAS", nrrd(_RAS), readers=ITK),
    Case("NRRD without a space", nrrd("spacings: 1 2 3\n"), note="the file gives no orientation; its axes are assumed"),
    Case(
        "NRRD without space directions",
        nrrd("space: LPS\nspace origin: (5,6,7)\n"),
        note="the file gives no space directions; 1 mm along the axes of its space is assumed",
    ),
    Case(
        "NRRD in micrometres",
        nrrd(f'{_LPS}space units: "um" "um" "um"\n'),
        refused="the file is damaged or not what its name says (its spacing is in units of um, not millimetres)",
    ),
    Case(
        "NRRD, 2D with space directions",
        nrrd("space dimension: 2\nspace directions: (2,0) (0,3)\n", sizes="2 3", data=bytes(12)),
        note="a 2D image has no slice thickness; 1 mm is assumed",
    ),
    Case(
        "NRRD, 2D in 3D space",
        nrrd("space: LPS\nspace directions: (2,0,0) (0,3,0)\nspace origin: (5,6,7)\n", sizes="2 3", data=bytes(12)),
        refused="the file is damaged or not what its name says (NrrdImageIO: ReadImageInformation: number of domain",
    ),
    Case(
        "NRRD of which an axis has no direction",
        nrrd(_LPS.replace("(0,0,3)", "none")),
        refused="the file is damaged or not what its name says (an axis has no space direction)",
    ),
    Case(
        "NRRD, raw, with more voxels than its header says",
        nrrd(_LPS, data=bytes(96)),
        refused="the file is damaged or not what its name says (its voxels are 96 bytes instead of 48)",
    ),
    Case(
        "NRRD as text",
        edited(
            nrrd(_LPS, data=b" ".join(b"%d" % n for n in range(24))),
            (b"encoding: raw\nendian: little", b"encoding: ascii"),
        ),
        readers=ITK,
    ),
    Case(
        "NRRD as text whose numbers do not fit its type",
        edited(nrrd(_LPS, data=b"1.5 " * 24), (b"encoding: raw", b"encoding: ascii")),
        refused="the file is damaged or not what its name says (its 24 numbers do not fit its type and size)",
    ),
    Case(
        "NRRD, three components",
        itk("case.nrrd", values(np.uint8, (9, 10, 11, 3)), vector=True),
        refused=THREE_COMPONENTS,
    ),
    Case("NRRD, 4D", itk("case.nrrd", values(np.int16, (4, 5, 6, 3))), refused=THREE_COMPONENTS),
    Case("NRRD broken in the middle", edited(itk("case.nrrd"), bit_flipped), refused="the file is damaged or not what"),
    Case("MetaImage, `.mha` compressed", itk("case.mha"), readers=ITK),
    Case("MetaImage, `.mha` raw", itk("case.mha", packed=False), readers=ITK),
    Case("MetaImage, `.mhd` and `.zraw`", itk("case.mhd"), readers=ITK),
    Case(
        "MetaImage whose voxels lie elsewhere",
        edited(itk("case.mhd", packed=False), (b"= case.raw", b"= /etc/hostname")),
        refused="its header says that its voxels are in /etc/hostname, outside its folder",
    ),
    Case(
        "MetaImage whose voxels lie elsewhere, after a colon",
        edited(itk("case.mhd", packed=False), (b" = case.raw", b": /etc/hostname")),
        refused="its header says that its voxels are in /etc/hostname, outside its folder",
    ),
    Case(
        "MetaImage, 2D",
        itk("case.mha", values(np.int16, (9, 10))),
        note="a 2D image has no slice thickness; 1 mm is assumed",
    ),
    Case(
        "MetaImage, compressed without its size",
        edited(itk("case.mha"), (b"CompressedDataSize", b"Xompressed")),
        refused="the file is damaged or not what its name says (its header lacks CompressedDataSize",
    ),
    Case(
        "MetaImage, `Offset = nan 0 0`",
        edited(itk("case.mha"), lambda d: d.replace(b"Offset = ", b"Offset = nan ")),
        refused="the file is damaged or not what its name says (its offset is nan",
    ),
    Case(
        "MetaImage without its offset",
        edited(itk("case.mha"), (b"\nOffset = ", b"\nOfset = ")),
        note="the file gives no Offset; 0 is assumed",
    ),
    Case(
        "MetaImage with its offset twice",
        edited(itk("case.mha"), (b"\nOffset = ", b"\nPosition = 1 2 3\nOffset = ")),
        refused="the file is damaged or not what its name says (its header gives Offset twice)",
    ),
    Case(
        "MetaImage with ElementSpacing and ElementSize",
        edited(itk("case.mha"), (b"\nOffset = ", b"\nElementSize = 7 8 9\nOffset = ")),
        remark="ElementSpacing counts",
        readers=ITK,
    ),
    Case(
        "MetaImage whose matrix is not of unit vectors",
        edited(itk("case.mha"), lambda d: re.sub(rb"TransformMatrix = .*", b"TransformMatrix = 2 0 0 0 2 0 0 0 2", d)),
        refused="its TransformMatrix is not of unit vectors; correct it and the spacing",
    ),
    Case(
        "MetaImage, raw, with more voxels than its header says",
        edited(itk("case.mha", packed=False), lambda d: d + bytes(180)),
        refused="the file is damaged or not what its name says (its voxels are 2160 bytes instead of 1980)",
    ),
    Case(
        "MetaImage whose header would count as voxels",
        edited(itk("case.mha", packed=False), (b"\nOffset = ", b"\nHeaderSize = 10\nOffset = ")),
        refused="the file is damaged or not what its name says (its HeaderSize is 10, so the header would count",
    ),
    Case(
        "MetaImage of which the values have a slope",
        edited(itk("case.mha"), (b"\nOffset = ", b"\nElementToIntensityFunctionSlope = 2\nOffset = ")),
        refused="the file is damaged or not what its name says (its values need a slope and offset",
    ),
    Case(
        "MetaImage as text",
        edited(itk("case.mha", packed=False), (b"BinaryData = True", b"BinaryData = False")),
        refused="the file is damaged or not what its name says (its voxels are text",
    ),
    Case(
        "MetaImage whose voxels lie in several files",
        edited(itk("case.mhd", packed=False), (b"= case.raw", b"= slice%d.raw 0 1 1")),
        refused="the file is damaged or not what its name says (its voxels lie in several files",
    ),
    Case(
        "MetaImage broken in the middle",
        edited(itk("case.mha"), bit_flipped),
        refused="the file is damaged or not what",
    ),
    Case("real: brain MR, NRRD", shared("pyradiomics_cases/brain1_image.nrrd"), readers=ITK),
    Case("real: cropped breast MR, NRRD", shared("pyradiomics_cases/breast1_image.nrrd"), readers=ITK),
]
