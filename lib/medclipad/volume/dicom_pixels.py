"""DICOM: the stored values of a file, whatever its encoding."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.encaps import generate_fragments
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from medclipad.errors import VolumeError

from .damage import reason
from .dicom_frames import Frame

# With these GDCM would rescale the values on its own, and invert MONOCHROME1.
_GDCM_HEEDS = (
    "RescaleSlope", "RescaleIntercept", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
)  # fmt: skip


def stored_values(frame: Frame) -> np.ndarray:
    """(frames, rows, columns) of all frames in the frame's file, of type `frame.dtype`, before rescaling.

    Uncompressed pixels are taken by pydicom, compressed ones decoded by GDCM, or by pydicom's decoders where GDCM has
    none. Raises VolumeError, naming the encoding, where neither can.
    """
    encoding = "unknown encoding"
    try:
        dataset = pydicom.dcmread(frame.path, force=True)
        if "TransferSyntaxUID" not in dataset.file_meta:  # old files without a header of their own
            implicit, _ = dataset.original_encoding
            dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian
        syntax = dataset.file_meta.TransferSyntaxUID
        encoding = syntax.name
        values = _decoded_by_gdcm(dataset) if syntax.is_encapsulated else dataset.pixel_array
        return values.reshape(-1, *frame.size).astype(frame.dtype, casting="safe", copy=False)
    except Exception as error:  # whatever a decoder raises over damaged or unknown pixels
        raise VolumeError(
            f"{frame.path.name}: its pixels ({encoding}) cannot be decoded ({reason(error)}); "
            "export the series again, uncompressed."
        ) from error


def _decoded_by_gdcm(dataset: Dataset) -> np.ndarray:
    for _ in generate_fragments(dataset.PixelData):  # raises where they are damaged; GDCM may read on for seconds
        pass
    plain = Dataset()
    plain.update({element.tag: element for element in dataset if element.keyword not in _GDCM_HEEDS})
    plain.PhotometricInterpretation = "MONOCHROME2"
    plain.file_meta = dataset.file_meta
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "pixels.dcm")
        plain.save_as(path, enforce_file_format=True)
        try:
            return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(path, imageIO="GDCMImageIO"))
        except RuntimeError:
            return dataset.pixel_array
