"""Write a volume, with its grid as exact as the format allows and never half a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK

from medclipad.errors import VolumeError
from medclipad.files import atomic_file
from medclipad.volume.read_errors import itk_path, reason
from medclipad.volume.readers.itk import itk_image
from medclipad.volume.readers.nifti import nifti_image
from medclipad.volume.volume import Volume

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha")

_STORED_AS = {"?": np.uint8, "e": np.float32, "g": np.float64}  # types that the formats do not have


def write_volume(volume: Volume, path: str | Path, compress: bool = True) -> None:
    """Write a volume as NIfTI, NRRD or MetaImage.

    Parameters
    ----------
    volume
        Volume to write. bool is stored as uint8, float16 as float32, other types as they are.
    path
        File ending in .nii.gz, .nii, .nrrd or .mha, which chooses the format. Its folder must exist; a file of that
        name is replaced in one step.
    compress
        Whether the voxels of NRRD and MetaImage are compressed; of NIfTI the suffix decides.

    Raises
    ------
    VolumeError
        If the suffix is another one, if the format cannot hold the array, or if the disk refuses.

    Notes
    -----
    A volume that was read from NIfTI, or lies on the grid of one, comes back from NIfTI with its affine unchanged to
    the last bit; other affines are rounded to NIfTI's float32. NRRD and MetaImage store the grid in double precision.

    Examples
    --------
    >>> import tempfile
    >>> from medclipad.volume import Volume, read_volume, write_volume
    >>> volume = Volume(np.ones((4, 5, 3), np.int16), np.eye(4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_volume(volume, f"{folder}/case.nrrd")
    ...     read_volume(f"{folder}/case.nrrd").shape
    (4, 5, 3)
    """
    path = Path(path).expanduser()
    suffix = next((s for s in SUFFIXES if path.name.lower().endswith(s)), None)
    if suffix is None:
        raise VolumeError(f"{path.name}: volumes are written as {', '.join(SUFFIXES)}; choose one of these suffixes.")
    if not path.parent.is_dir():
        raise VolumeError(f"{path}: the folder {path.parent} does not exist; create it first.")
    dtype = np.dtype(_STORED_AS.get(volume.array.dtype.char, volume.array.dtype)).newbyteorder("=")
    array = np.asarray(volume.array, dtype=dtype)
    try:
        with atomic_file(path) as temp_path:
            if suffix in (".nii", ".nii.gz"):
                nifti_image(array, volume).to_filename(temp_path)
            else:
                SimpleITK.WriteImage(itk_image(array, volume.affine), itk_path(temp_path), useCompression=compress)
    except VolumeError:
        raise
    except Exception as error:  # nibabel and ITK raise many kinds of exception
        raise VolumeError(
            f"{path}: it cannot be written ({reason(error)}); check free space, permissions and format."
        ) from error
