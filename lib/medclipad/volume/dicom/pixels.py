"""DICOM: decode the stored values of a file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000TransferSyntaxes,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSTransferSyntaxes,
)

from medclipad.errors import VolumeError
from medclipad.volume.dicom.frames import Frame
from medclipad.volume.read_errors import BoundedFile, reason

_BY_GDCM = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
"""Encodings for which pydicom has no decoder with a permissive licence."""

_HTJ2K = "1.2.840.10008.1.2.4.20"
_MAX_TILES = 65_535  # as many as the codestream's 16-bit tile index can number

# With these tags GDCM would rescale the values itself, and invert MONOCHROME1.
_GDCM_APPLIES = (
    "RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


def stored_values(frame: Frame) -> np.ndarray:
    """Return the stored values of all frames in a frame's file, before rescaling.

    Parameters
    ----------
    frame
        Any frame of the file.

    Returns
    -------
    numpy.ndarray
        (frames, rows, columns) of type `frame.dtype`.

    Raises
    ------
    VolumeError
        If the pixels cannot be decoded; the message names the encoding.

    Notes
    -----
    Classic JPEG is decoded by GDCM, all other encodings by pydicom and its plugins: RLE, JPEG-LS (pyjpegls), JPEG 2000
    and HTJ2K (pylibjpeg-openjpeg).
    """
    encoding = "unknown encoding"
    try:
        with BoundedFile(frame.path) as stream:
            dataset = pydicom.dcmread(stream, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # old files without a header of their own
            implicit, _ = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        syntax = dataset.file_meta.TransferSyntaxUID
        encoding = syntax.name
        if syntax in JPEG2000TransferSyntaxes or syntax.startswith(_HTJ2K):
            _require_codestream_sizes(dataset, _jpeg_2000_size)
            dataset.pixel_array_options(decoding_plugin="pylibjpeg")
        elif syntax in JPEGLSTransferSyntaxes:
            _require_codestream_sizes(dataset, _jpeg_ls_size)
        if not syntax.is_compressed:
            _require_whole_element(dataset)
            _require_no_more_pixels(dataset)
        values = _decoded_by_gdcm(dataset) if syntax in _BY_GDCM else dataset.pixel_array
        tiles = max(1, frame.tiles)
        return values.reshape(-1, frame.size[0] * tiles, frame.size[1] * tiles).astype(
            frame.dtype, casting="safe", copy=False
        )
    except Exception as error:  # decoders raise many kinds of exception over damaged or unknown pixels
        raise VolumeError(
            f"{frame.path.name}: its pixels ({encoding}) cannot be decoded ({reason(error)}); "
            "export the series again, uncompressed."
        ) from error


def _require_whole_element(dataset: Dataset) -> None:
    """Raise ValueError if the header of the pixel data element is damaged; call it before pixel data are accessed.

    pydicom reads an invalid value representation as part of the length, and then the wrong bytes as pixels; and where
    the length goes beyond the end of the file, it reads what there is.
    """
    element = dataset.get_item("PixelData")
    if not isinstance(element, RawDataElement):
        return
    if (element.VR is None and not element.is_implicit_VR) or element.length != len(element.value or b""):
        raise ValueError(f"the header of their element, which gives {element.length} bytes, is damaged")


def _require_no_more_pixels(dataset: Dataset) -> None:
    """Raise ValueError if there are more pixels than the header says; pydicom would read the first ones."""
    frame = dataset.Rows * dataset.Columns * dataset.BitsAllocated // 8
    more = len(dataset.get("PixelData", b"")) - frame * int(dataset.get("NumberOfFrames") or 1)
    if more >= frame > 0:
        raise ValueError(f"{more} bytes of pixels more than its header says")


def _require_codestream_sizes(dataset: Dataset, size_of: Callable[[bytes], tuple[int, int, int]]) -> None:
    """Raise ValueError unless every codestream has the image's size: decoders allocate what the codestream says."""
    for frame in generate_frames(dataset.PixelData, number_of_frames=int(dataset.get("NumberOfFrames") or 1)):
        size = size_of(frame)
        if size != (dataset.Rows, dataset.Columns, dataset.SamplesPerPixel):
            raise ValueError(f"a codestream of {' x '.join(map(str, size))} values, which is not the image's size")


def _jpeg_2000_size(frame: bytes) -> tuple[int, int, int]:
    """Return (rows, columns, components) from a codestream's SIZ segment (ISO 15444-1, A.5.1)."""
    start = frame.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(frame) < start + 42:
        raise ValueError("no JPEG 2000 codestream")
    right, bottom, left, top, width, height = np.frombuffer(frame, ">u4", count=6, offset=start + 8).tolist()
    if 0 in (width, height) or -(-right // width) * -(-bottom // height) > _MAX_TILES:
        raise ValueError(f"a codestream in tiles of {height} x {width} values")
    return bottom - top, right - left, int.from_bytes(frame[start + 40 : start + 42], "big")


def _jpeg_ls_size(frame: bytes) -> tuple[int, int, int]:
    """Return (rows, columns, components) from the frame header (ISO 14495-1, C.2.2), which DICOM requires."""
    start = frame.find(b"\xff\xf7")
    if start < 0 or not frame.rstrip(b"\0").endswith(b"\xff\xd9"):  # CharLS would search for the end for seconds
        raise ValueError("no whole JPEG-LS codestream")
    rows, columns = np.frombuffer(frame, ">u2", count=2, offset=start + 5).tolist()
    return rows, columns, frame[start + 9]


def _jpeg_size(frame: bytes) -> tuple[int, int, int]:
    """Return (rows, columns, components) from the frame header (ISO 10918-1, B.2.2)."""
    offset = 2
    while frame[offset : offset + 1] == b"\xff" and len(frame) >= offset + 10:
        if frame[offset + 1] in (0xC0, 0xC1, 0xC3):
            if not 2 <= frame[offset + 4] <= 16:  # GDCM would write beyond its memory
                raise ValueError(f"a JPEG codestream of {frame[offset + 4]} bits")
            rows, columns = np.frombuffer(frame, ">u2", count=2, offset=offset + 5).tolist()
            return rows, columns, frame[offset + 9]
        offset += 2 + int.from_bytes(frame[offset + 2 : offset + 4], "big")
    raise ValueError("no JPEG codestream")


def _decoded_by_gdcm(dataset: Dataset) -> np.ndarray:
    """Return the stored values of classic JPEG, decoded by GDCM without rescaling."""
    _require_codestream_sizes(dataset, _jpeg_size)
    plain = Dataset()
    plain.update({element.tag: element for element in dataset if element.keyword not in _GDCM_APPLIES})
    plain.PhotometricInterpretation = "MONOCHROME2"
    plain.file_meta = dataset.file_meta
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "pixels.dcm")
        plain.save_as(path, enforce_file_format=True)
        return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path, imageIO="GDCMImageIO"))
