"""DICOM series of every kind, and the expected result for each."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, JPEGLSLossless, RLELossless

from tests.volume.format_case import Case, bundled, shared
from tests.volume.volume_cases import series

HERE = Path(__file__).parent
ALL = ("pydicom", "SimpleITK", "Slicer")
HEIGHTS = [4.0, 0.0, 8.0, 2.0, 6.0]
OBLIQUE = (0.7, 0.7141428428542850, 0, -0.42, 0.4116882454314266, 0.8087583346189614)
EDGE = "dicom_edge_cases/"


def stack(heights=HEIGHTS, orientation=(1, 0, 0, 0, 1, 0), each=lambda n: {}, change=lambda dataset: None, **tags: Any):
    """Return a maker of a folder `case` of slices of 20 x 24 voxels, each dataset changed before it is saved again."""

    def make(folder: Path) -> Path:
        def own(n: int) -> dict[str, Any]:
            i, j = np.indices((20, 24))
            pixels = ((i * 131 + j * 977 + n * 53) % 2039).astype(np.uint16)
            return {"Rows": 20, "Columns": 24, "PixelData": pixels.tobytes(), **each(n)}

        series(folder / "case", heights, orientation, each=own, **tags)
        for file in sorted((folder / "case").iterdir()):
            dataset = pydicom.dcmread(file)
            if (changed := change(dataset)) is not None:
                dataset = changed
            dataset.save_as(file, enforce_file_format=True)
        return folder / "case"

    return make


def joined(*makes):
    """Return a maker of several stacks in one folder."""

    def make(folder: Path) -> Path:
        for n, make_stack in enumerate(makes):
            make_stack(folder / str(n))
        return folder

    return make


def renamed(folder: Path) -> Path:
    home = stack()(folder)
    for n, file in enumerate(sorted(home.iterdir())):
        (home / f"part{n % 2}").mkdir(exist_ok=True)
        file.rename(home / f"part{n % 2}" / ("IM1", "b.ima", "x y", "z.1", "é")[n])
    (home / "notes.txt").write_text("not an image")
    return home


def zipped(folder: Path) -> Path:
    home = stack()(folder)
    with zipfile.ZipFile(folder / "case.zip", "w") as archive:
        for file in home.iterdir():
            archive.write(file, f"deep/{file.name}")
    return folder / "case.zip"


def compressed(syntax: str):
    return lambda dataset: dataset.compress(syntax)


def big_endian(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    setattr(dataset, "_set_pixel_representation", None)  # noqa: B010 - pydicom would look for it in a frame
    dataset["PixelData"].VR = "OW"


def deflated(dataset: Dataset) -> None:
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def overlay_bits(dataset: Dataset) -> None:
    """Old scanners keep an overlay in the bits above the 12 bits of the pixel."""
    pixels = np.frombuffer(dataset.PixelData, "<u2") | np.arange(480, dtype=np.uint16) % 3 << 13
    dataset.BitsStored, dataset.HighBit, dataset.PixelData = 12, 11, pixels.astype("<u2").tobytes()


def broken(change):
    """Return a maker of a stack whose second file is damaged on disk."""

    def make(folder: Path, source=None) -> Path:
        home = (source or stack())(folder)
        file = sorted(home.iterdir())[1]
        file.write_bytes(change(file.read_bytes()))
        return home

    return make


def _signed(n: int) -> dict[str, Any]:
    pixels = (np.arange(480, dtype=np.int16) * 7 - 1024 - n).tobytes()
    return {"PixelRepresentation": 1, "PixelData": pixels}


def _tilted(degrees: float, shape=None):
    shift = np.tan(np.radians(degrees))
    return stack(
        [0.0] * 6,
        each=lambda n: {"ImagePositionPatient": [-11.0, round(float(7 + n * 5 * shift), 6), n * 5.0]},
    )


def _echoes(n: int) -> dict[str, Any]:
    return {"EchoTime": 10.5 if n < 3 else 8.5, "AcquisitionNumber": n // 3}


_SCOUT = {"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"], "SeriesInstanceUID": "1.2.3.5"}
_MIP = {"ImageType": ["DERIVED", "SECONDARY", "MIP"], "SeriesInstanceUID": "1.2.3.6"}
_TWO = joined(stack(), stack([0, 3], SeriesInstanceUID="1.2.3.5", SeriesDescription="T2 axial"))
_STACKS = "it has 2 volumes (0: stack=0 axial"

SERIES = [
    Case("a folder of slices in any order", stack(), readers=ALL),
    Case("any names, nested folders, other files beside", renamed, readers=("pydicom",)),
    Case("a zip of a series", zipped),
    Case(
        "DICOMDIR of several studies",
        bundled("dicomdirtests/DICOMDIR"),
        refused="it holds 8 series, Routine Brain (4 slices, ",
    ),
    Case("oblique slices", stack(orientation=OBLIQUE), readers=ALL),
    Case("sagittal slices", stack(orientation=(0, 1, 0, 0, 0, -1)), readers=ALL),
    Case(
        "several series", _TWO, refused="it holds 2 series, T1 axial (5 slices, 1.2.3.4), T2 axial (2 slices, 1.2.3.5)"
    ),
    Case("several series, one chosen", _TWO, options={"series": "1.2.3.5"}),
    Case(
        "localisers beside a series",
        joined(stack(), stack([0, 50], (0, 1, 0, 0, 0, -1), **_SCOUT)),
        note="2 localiser images were left out",
    ),
    Case(
        "derived images beside a series", joined(stack(), stack([0, 5], **_MIP)), note="2 derived images were left out"
    ),
    Case(
        "derived images within the series",
        stack([*HEIGHTS, 30.0], each=lambda n: {"ImageType": ["DERIVED", "SECONDARY"]} if n == 5 else {}),
        note="1 derived image was left out",
    ),
    Case("a derived series alone", stack(**_MIP), readers=ALL),
    Case(
        "two echoes",
        stack([0, 2, 4] * 2, each=_echoes),
        refused="it has 2 volumes (0: echo=8.5; 1: echo=10.5); choose one with component=0 to 1 (--component)",
    ),
    Case("two echoes, one chosen", stack([0, 2, 4] * 2, each=_echoes), options={"component": 1}),
    Case(
        "two echoes, one chosen by what it says", stack([0, 2, 4] * 2, each=_echoes), options={"component": "echo=8.5"}
    ),
    Case("a slice twice", stack([0, 2, 4, 2]), refused="1.dcm and 3.dcm have the same position"),
    Case("a missing slice", stack([0, 2, 4, 8, 10]), refused="1 slice is missing (4 instead of 2 mm between 2.dcm and"),
    Case("unevenly spaced slices", stack([0, 2, 4, 7, 10]), refused="its slices are unevenly spaced (2 to 3 mm)"),
    Case(
        "positions rounded to 0.1 mm",
        stack([round(n * 0.625, 1) for n in range(9)]),
        remark="evened out, by less than 0.1 mm",
    ),
    Case(
        "gantry tilt",
        _tilted(-18.5),
        refused="its slices are shifted sideways by a gantry tilt of 18.5 degrees; resample it",
    ),
    Case(
        "gantry tilt, resampled",
        _tilted(-18.5),
        options={"tilt": "resample"},
        note="a gantry tilt of 18.5 degrees is resampled to upright slices",
    ),
    Case(
        "slices shifted sideways irregularly",
        stack(each=lambda n: {"ImagePositionPatient": [0, (0, 9, 3, 8, 1)[n], 2.0 * n]}),
        refused="its slices are shifted sideways by up to",
    ),
    Case(
        "two stacks of different orientation",
        stack(each=lambda n: {"ImageOrientationPatient": [0.8, 0.6, 0, -0.6, 0.8, 0]} if n else {}),
        refused=_STACKS,
    ),
    Case(
        "different image sizes",
        stack(each=lambda n: {"Rows": 10, "Columns": 48} if n else {}),
        refused=_STACKS,
    ),
    Case(
        "different pixel spacings",
        stack(each=lambda n: {"PixelSpacing": [0.5, 0.5]} if n else {}),
        refused=_STACKS,
    ),
    Case(
        "no position in the patient",
        stack(ImagePositionPatient=None, each=lambda n: {"ImagePositionPatient": None}),
        refused="it does not say where in the patient its pixels lie",
    ),
    Case(
        "one slice without thickness",
        stack([0.0], SliceThickness=None),
        note="the single slice has no thickness; 1 mm is",
    ),
]

PIXELS = [
    Case(
        "rescale slope and intercept of each slice",
        stack(each=lambda n: {"RescaleSlope": 0.5 + n, "RescaleIntercept": -n}),
        readers=("pydicom",),
        remark="as float32; ITK takes the first slice's for all",
    ),
    Case("signed pixels with rescale", stack(each=_signed, RescaleSlope=1, RescaleIntercept=-24), readers=ALL),
    Case("signed and unsigned slices", stack(each=lambda n: _signed(n) if n else {}), readers=("pydicom",)),
    Case(
        "MONOCHROME1",
        stack(PhotometricInterpretation="MONOCHROME1"),
        readers=("pydicom",),
        note="the images are MONOCHROME1: a viewer shows their low values bright",
    ),
    Case(
        "pixel padding",
        stack(PixelPaddingValue=0, each=lambda n: {"PixelData": bytes(480) + b"\1\2" * 240}),
        note="50.0% of the voxels hold the padding value; they count like any others",
        readers=ALL,
    ),
    Case("12 bits stored, overlay in the bits above", stack(change=overlay_bits), readers=("SimpleITK", "Slicer")),
    Case(
        "colour",
        stack(
            [0.0],
            SamplesPerPixel=3,
            PhotometricInterpretation="RGB",
            PlanarConfiguration=0,
            BitsAllocated=8,
            BitsStored=8,
            HighBit=7,
            PixelData=bytes(1440),
            each=lambda n: {"PixelData": bytes(1440)},
        ),
        refused="a colour image has no single scale of values",
    ),
    Case(
        "palette colour",
        stack([0.0], PhotometricInterpretation="PALETTE COLOR"),
        refused="a colour image has no single scale of values",
    ),
    Case(
        "modality lookup table",
        stack(ModalityLUTSequence=[Dataset()]),
        refused="its values need a modality lookup table",
    ),
    Case(
        "rescale slope 0",
        stack(RescaleSlope=0, RescaleIntercept=1),
        refused="its rescale slope 0.0 and intercept 1.0 are not usable",
    ),
    Case("RLE", stack(change=compressed(RLELossless)), readers=ALL),
    Case(
        "RLE with rescale and MONOCHROME1",
        stack(
            change=compressed(RLELossless), PhotometricInterpretation="MONOCHROME1", RescaleSlope=3, RescaleIntercept=-1
        ),
        note="the images are MONOCHROME1",
        readers=("pydicom",),
    ),
    Case("JPEG-LS", stack(change=compressed(JPEGLSLossless)), readers=ALL),
    Case("JPEG lossless", lambda folder: HERE / "data" / "jpeg_lossless.dcm", readers=ALL),
    Case("HTJ2K", lambda folder: HERE / "data" / "htj2k.dcm", remark="decoded by OpenJPEG; ITK 5.4 cannot"),
    Case("deflated", stack(change=deflated), readers=("pydicom", "SimpleITK")),
    Case(
        "a header of which a length is wrong",
        broken(lambda data: data.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99\0")),
        refused="the file is damaged or not what its name says",
    ),
    Case("pixels cut off", broken(lambda data: data[:-15]), refused="its pixels (Explicit VR Little Endian) cannot be"),
    Case(
        "pixels missing",
        stack(change=lambda d: d.__delattr__("PixelData")),
        refused="its pixels (Explicit VR Little Endian) cannot be decoded",
    ),
    Case(
        "RLE cut off",
        lambda folder: broken(lambda data: data[:-30])(folder, stack(change=compressed(RLELossless))),
        refused="its pixels (RLE Lossless) cannot be decoded",
    ),
    Case(
        "a number that is none in the header",
        broken(lambda data: data.replace(b"0.5\\0.75", b"0.5\\0.x5")),
        refused="it does not say where in the patient its pixels lie",
    ),
]

_TILT = "its slices are shifted sideways by a gantry tilt of {} degrees; resample it"
REAL = [
    Case("CT, small, signed", bundled("CT_small.dcm"), readers=ALL),
    Case("MR, big-endian", bundled("MR_small_bigendian.dcm"), readers=("pydicom", "SimpleITK")),
    Case("MR, implicit VR", bundled("MR_small_implicit.dcm"), readers=ALL),
    Case("MR, RLE", bundled("MR_small_RLE.dcm"), readers=ALL),
    Case("MR, JPEG 2000 lossless", bundled("MR_small_jp2klossless.dcm"), readers=ALL),
    Case("MR, JPEG-LS lossless", bundled("MR_small_jpeg_ls_lossless.dcm"), readers=ALL),
    Case(
        "MR, cut off", bundled("MR_truncated.dcm"), refused="its pixels (Explicit VR Little Endian) cannot be decoded"
    ),
    Case(
        "NM, 12-bit JPEG, one frame without a place",
        bundled("JPGExtended.dcm"),
        refused="it does not say where in the patient its pixels lie",
    ),
    Case("JPEG 2000 with a sign that the header denies", bundled("J2K_pixelrep_mismatch.dcm"), readers=("pydicom",)),
    Case("colour secondary capture", bundled("examples_rgb_color.dcm"), refused="a colour image has no single scale"),
    Case("dose grid", bundled("rtdose.dcm"), refused="it holds 15 frames without their positions in the patient"),
    Case(
        "head CT, tilt 18.5°, uneven", shared(f"{EDGE}ge_ct_gantry_tilt_variable_spacing"), refused=_TILT.format(18.5)
    ),
    Case(
        "head CT, tilt 18.5°, uneven, to be resampled",
        shared(f"{EDGE}ge_ct_gantry_tilt_variable_spacing"),
        options={"tilt": "resample"},
        refused="its slices are unevenly spaced (1.08 to 7 mm)",
    ),
    Case("CT phantom, tilt −18.5°", shared(f"{EDGE}philips_ct_phantom_tilt_-18.5"), refused=_TILT.format(18.5)),
    Case(
        "CT phantom, tilt −18.5°, resampled",
        shared(f"{EDGE}philips_ct_phantom_tilt_-18.5"),
        options={"tilt": "resample"},
        refused="7 slices are missing (19 instead of 2.37 mm between I20 and I100)",
    ),
    Case("CT, tilt 14°", shared(f"{EDGE}dicom2nifti_gantrytilting/001"), refused=_TILT.format("14.0")),
    Case(
        "CT, tilt 14°, resampled",
        shared(f"{EDGE}dicom2nifti_gantrytilting/001"),
        options={"tilt": "resample"},
        note="a gantry tilt of 14.0 degrees is resampled to upright slices",
    ),
    Case("CT, tilt 15.5°", shared(f"{EDGE}dicom2nifti_sliceincrement/002"), refused=_TILT.format(15.5)),
    Case(
        "CT, a missing slice",
        shared(f"{EDGE}dicom2nifti_sliceincrement/001"),
        refused="1 slice is missing (10 instead of 5 mm between",
    ),
    Case(
        "CT, both in one folder",
        shared(f"{EDGE}dicom2nifti_sliceincrement"),
        refused="it holds 2 series, CT (4 slices, ",
    ),
    Case(
        "CT perfusion, one place",
        shared(f"{EDGE}dicom2nifti_notavolume/001"),
        refused="it has 4 volumes (0: acquisition=12; 1: acquisition=13; 2: acquisition=14; 3: acquisition=15)",
    ),
    Case(
        "MR, two orientations",
        shared(f"{EDGE}dicom2nifti_sliceorientation/001"),
        refused="it has 2 volumes (0: stack=0 sagittal 288 x 288; 1: stack=1 axial 288 x 288)",
    ),
    Case("MR, two slices", shared(f"{EDGE}dicom2nifti_slicecount/001"), readers=ALL),
    *(
        Case(f"MR series, {name}", shared(f"{EDGE}mr_compressed_{kind}"), readers=ALL)
        for kind, name in (("rle", "RLE"), ("j2k", "JPEG 2000"), ("jpeg", "JPEG lossless"), ("jpegls", "JPEG-LS"))
    ),
    Case("enhanced MR, 8 frames", shared(f"{EDGE}philips_enhanced_multiframe"), readers=("pydicom", "SimpleITK")),
]
