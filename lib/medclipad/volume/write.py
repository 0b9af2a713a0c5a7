"""Writing a volume: the grid as exactly as the format can, and never half a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK

from medclipad.errors import VolumeError
from medclipad.files import atomic_file
from medclipad.volume.read_errors import itk_name, reason
from medclipad.volume.readers.itk import itk_image
from medclipad.volume.readers.nifti import nifti_image
from medclipad.volume.volume import Volume

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")

_HELD_AS = {"?": np.uint8, "e": np.float32, "g": np.float64}  # types that the formats do not have


def write_volume(volume: Volume, path: str | Path) -> None:
    """Write a volume as .nii, .nii.gz, .nrrd or .mha, chosen by the suffix, replacing a file of that name in one step.

    What came from NIfTI (or lies on the grid of what did) comes back from NIfTI with its affine bit for bit; other
    affines are rounded to NIfTI's float32. NRRD and MetaImage hold the grid in double precision. bool is written as
    uint8, float16 as float32, other types as they are.

    Raises VolumeError for another suffix, an array that the format cannot hold, and whatever the disk refuses.
    """
    path = Path(path).expanduser()
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise VolumeError(f"{path.name}: volumes are written as {', '.join(SUFFIXES)}; choose one of these suffixes.")
    if not path.parent.is_dir():
        raise VolumeError(f"{path}: the folder {path.parent} does not exist; make it first.")
    dtype = np.dtype(_HELD_AS.get(volume.array.dtype.char, volume.array.dtype)).newbyteorder("=")
    array = np.asarray(volume.array, dtype=dtype)
    try:
        with atomic_file(path) as temp_path:
            if suffix in (".nii", ".nii.gz"):
                nifti_image(array, volume).to_filename(temp_path)
            else:
                SimpleITK.WriteImage(itk_image(array, volume.affine), itk_name(temp_path), useCompression=True)
    except VolumeError:
        raise
    except Exception as error:  # nibabel and ITK raise many kinds
        raise VolumeError(f"{path}: it cannot be written ({reason(error)}); check space, rights and format.") from error
