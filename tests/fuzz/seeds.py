"""Small real files of every kind to mutate."""

from __future__ import annotations

import shutil
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np

from tests.volume.format_case import bundled
from tests.volume.format_cases_dicom import HERE, OBLIQUE, compressed, stack
from tests.volume.format_cases_files import itk, nifti, values
from tests.volume.format_cases_odd_dicom import medium, multiframe
from tests.volume.format_cases_pictures import DEEP, GREY, picture, tiff
from tests.volume.test_untrusted import META, NRRD

SMALL = (4, 5, 6)


def make_seeds(folder: Path) -> dict[str, Path]:
    """Make the seeds and return them by name: a file, or a folder whose files are mutated one at a time."""
    array = values(np.int16, SMALL)
    files = {
        "nifti": nifti(array, name="case.nii"),
        "nifti-gz": nifti(array, name="case.nii.gz"),
        "nifti-2": nifti(array, name="case.nii", image_class=nib.Nifti2Image),
        "nifti-scaled": nifti(array, name="case.nii", change=lambda image: image.header.set_slope_inter(0.5, -7)),
        "nifti-big-endian-float": nifti(array.astype(np.float32), name="case.nii", order=">"),
        "nrrd": itk("case.nrrd", array, packed=False),
        "nrrd-gz": itk("case.nrrd", array),
        "nhdr": itk("case.nhdr", array, packed=False),
        "nrrd-keys": _nrrd_with_keys,
        "mha-fields": _mha_with_fields,
        "mha": itk("case.mha", array, packed=False),
        "mha-zlib": itk("case.mha", array),
        "mhd": itk("case.mhd", array),
        "png": picture(GREY[:6, :7].copy()),
        "png-16": picture(DEEP[:6, :7].copy()),
        "jpeg": picture(name="case.jpg"),
        "tiff": tiff(GREY[:6, :7]),
        "tiff-pages": tiff(np.stack([DEEP[:6, :7]] * 3), photometric="minisblack", compression="zlib"),
        "dicom": stack([0, 2, 4], OBLIQUE, RescaleSlope=2, RescaleIntercept=-7),
        "dicom-zip": _zipped,
        "dicom-dicomdir": medium,
        "dicom-enhanced": multiframe(),
        "dicom-rle": stack([0, 2], change=compressed("1.2.840.10008.1.2.5")),
        "dicom-jpegls": stack([0, 2], change=compressed("1.2.840.10008.1.2.4.80")),
        "dicom-htj2k": lambda _: HERE / "data" / "htj2k.dcm",
        "dicom-jpeg-lossless": lambda _: HERE / "data" / "jpeg_lossless.dcm",
        "dicom-jpeg2000": bundled("MR_small_jp2klossless.dcm"),
        "detector": _detector,
        "checkpoint": _checkpoint,
    }
    seeds = {}
    for name, make in files.items():
        (folder / name).mkdir(parents=True)
        seeds[name] = make(folder / name)
    return seeds


def _nrrd_with_keys(folder: Path) -> Path:
    """Make a NRRD with fields, comments and key/value pairs of the kinds that end teem if they are long or unknown."""
    text = f"{NRRD}kinds: domain domain domain\ncenterings: cell cell cell\n# a comment\nkey:=a: {'value ' * 200}\n\n"
    path = folder / "case.nrrd"
    path.write_bytes(text.encode() + bytes(range(256)) * 2)
    return path


def _mha_with_fields(folder: Path) -> Path:
    """Make a MetaImage with the texts that MetaIO copies into short buffers."""
    path = folder / "case.mha"
    extra = f"Name = {'n' * 240}\nComment = {'c' * 240}\nAnatomicalOrientation = RAI\nOwn = {'o' * 900}\n"
    path.write_bytes(f"{META}{extra}ElementDataFile = LOCAL\n".encode() + bytes(range(256)) * 2)
    return path


def _zipped(folder: Path) -> Path:
    """Make a zip archive of a DICOM series."""
    home = stack([0, 2, 4])(folder)
    with zipfile.ZipFile(folder / "case.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(home.iterdir()):
            archive.write(file, file.name)
    shutil.rmtree(home)
    return folder / "case.zip"


def _detector(folder: Path) -> Path:
    """Make a saved detector folder with weights of a few numbers."""
    import torch

    from medclipad.detection.calibration import Calibration
    from medclipad.detection.config import FitConfig
    from medclipad.detection.storage import DetectorInfo, save_folder

    info = DetectorInfo(
        name="fuzz", config=FitConfig(image_size=224), encoder_sha256="0" * 64, normal_slices=4, abnormal_slices=0,
        spare_slices=3, training_slices=[], calibration=Calibration(),
        metrics={}, versions={},
    )  # fmt: skip
    save_folder(folder / "detector", info, {"a": torch.arange(6.0), "b": torch.ones(2, 3)})
    return folder / "detector"


def _checkpoint(folder: Path) -> Path:
    """Make a checkpoint with the names of a reference code."""
    import torch

    state = {"weight": torch.arange(6.0).reshape(2, 3)}
    torch.save({"adapter_state_dict": state, "prompt_state_dict": state}, folder / "case.pth")
    return folder / "case.pth"
