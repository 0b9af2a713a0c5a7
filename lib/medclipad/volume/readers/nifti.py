"""Read and write NIfTI: the affine is exactly nibabel's, and a written map keeps the geometry of its source."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy

from medclipad.errors import VolumeError
from medclipad.volume.components import select_component
from medclipad.volume.memory_budget import in_words, require_memory
from medclipad.volume.read_errors import BoundedFile, BoundedGzip, require_enough_bytes, volume_errors
from medclipad.volume.scaling import scaled_type
from medclipad.volume.volume import Volume, check_affine, furthest_apart

_GEOMETRY = (
    "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip


def read_nifti(path: Path, component: int | None, name: str) -> Volume:
    """Read a .nii or .nii.gz file (NIfTI-1 or NIfTI-2).

    Parameters
    ----------
    path
        The file.
    component
        Index of the component, time point or colour channel to read, if there are several.
    name
        Name of the case.

    Raises
    ------
    VolumeError
        If the file cannot be read as one volume at one position, or does not fit into memory.
    """
    packed = path.suffix.lower() == ".gz"
    with volume_errors(path), (BoundedGzip if packed else BoundedFile)(path) as stream:
        sizeof_hdr = stream.read(4)
        stream.seek(0)
        version = 2 if 540 in (int.from_bytes(sizeof_hdr, order) for order in ("little", "big")) else 1
        image_class = nib.Nifti2Image if version == 2 else nib.Nifti1Image
        raw_header = image_class.header_class.from_fileobj(stream, check=False)  # before nibabel corrects it
        stream.seek(0)
        image = image_class.from_file_map(image_class.make_file_map({"image": stream}), mmap=False)
        header = image.header
        data = cast(ArrayProxy, image.dataobj)  # of every image that was read from a file
        affine = cast(np.ndarray, image.affine)
        require_enough_bytes(path, np.prod(data.shape, dtype=float) * data.dtype.itemsize, data.offset, packed)
        require_memory(_needed(data), path.name, f"reading {in_words(data.shape)}")
        raw, slope, intercept = data.get_unscaled(), float(data.slope), float(data.inter)
        while stream.read(1 << 20):  # gzip compares its checksum only at the end
            pass
        _require_announced_length(header, data, stream.tell())
        unit, notes = header.get_xyzt_units()[0], _notes(header, raw_header)
        geometry = {field: np.asarray(header[field]).tolist() for field in _GEOMETRY}
    if unit not in ("mm", "unknown"):
        raise VolumeError(f"{path.name}: its spacing is in units of {unit}; convert it to millimetres.")
    check_affine(affine, path.name)
    raw = raw.reshape(raw.shape + (1,) * (3 - raw.ndim))
    if raw.dtype.fields:  # RGB, RGBA
        raw = np.stack([raw[field] for field in raw.dtype.fields], axis=-1)
    array = select_component(raw, component, path.name)
    native = np.float64 if array.dtype.kind == "f" and array.dtype.itemsize > 8 else array.dtype.newbyteorder("=")
    scaled = (slope, intercept) != (1, 0)
    dtype = scaled_type(np.dtype(native), slope, intercept) if scaled else native
    # A copy also if one of many time points was chosen, so that the others are not kept in memory.
    array = np.array(array, dtype=dtype, order="F", copy=None if array.nbytes == raw.nbytes else True)
    if scaled:
        array *= slope
        array += intercept
    metadata = {"format": "NIfTI", "nifti": {"version": version, **geometry}, "notes": notes}
    return Volume(array, affine, name=name, metadata=metadata)


def nifti_image(array: np.ndarray, volume: Volume) -> nib.Nifti1Image:
    """Return an array on the grid of a volume as a NIfTI image.

    Parameters
    ----------
    array
        (I, J, K) voxels.
    volume
        Volume that defines the grid.

    Notes
    -----
    If the volume came from NIfTI, the image keeps the geometry fields of its header, so every program shows a map where
    it shows the source, whether it uses sform or qform. Other affines go into the sform and, unless they are sheared,
    into the qform. NIfTI-2, which ITK does not read, is written only if NIfTI-1 cannot hold the size, or cannot hold
    the affine of a NIfTI-2 file exactly.
    """
    source = dict(volume.metadata.get("nifti", {}))
    version = source.pop("version", 1)
    wide = max(volume.shape) > np.iinfo(np.int16).max
    image_class = nib.Nifti2Image if wide else nib.Nifti1Image
    candidates = (image_class, nib.Nifti2Image) if version == 2 else (image_class,)
    for candidate in candidates if source else ():
        image = candidate(array, None, dtype=array.dtype)
        for field, value in source.items():
            image.header[field] = value
        image.header["pixdim"][4:] = 1
        image.header.set_xyzt_units("mm")
        if np.array_equal(cast(np.ndarray, image.header.get_best_affine()), volume.affine):
            return image
    image = image_class(array, volume.affine, dtype=array.dtype)
    image.set_sform(volume.affine, code="scanner")
    image.set_qform(volume.affine, code="scanner")
    if furthest_apart(cast(np.ndarray, image.get_qform()), volume.affine, volume.shape) > 1e-2 * min(volume.spacing):
        image.set_qform(None, code=0)
    image.header.set_xyzt_units("mm")
    return image


def _require_announced_length(header: nib.Nifti1Header, data: ArrayProxy, size: int) -> None:
    """Raise ValueError if voxels start within the header, or if there are more slices than the header says."""
    if data.offset < header.single_vox_offset:
        raise ValueError(f"its header says that its voxels start at byte {data.offset}, inside the header")
    more = size - data.offset - int(np.prod(data.shape, dtype=float)) * data.dtype.itemsize
    if more >= np.prod(data.shape[:2], dtype=float) * data.dtype.itemsize:
        raise ValueError(f"it holds {more} more bytes of voxels than its header says")


def _needed(data: ArrayProxy) -> float:
    """Return the bytes that reading takes at its peak: the stored voxels and, if they change, the returned image."""
    stored = np.prod(data.shape, dtype=float) * data.dtype.itemsize
    scaled = (data.slope, data.inter) != (1, 0)
    returned = scaled_type(data.dtype, float(data.slope), float(data.inter)) if scaled else data.dtype
    changed = scaled or len(data.shape) > 3 or not data.dtype.isnative
    return stored + (np.prod(data.shape[:3], dtype=float) * returned.itemsize if changed else 0)


def _notes(header: nib.Nifti1Header, raw_header: nib.Nifti1Header) -> list[str]:
    """Return sentences for the user on what the header leaves open."""
    sform, qform = header.get_sform(coded=True)[0], header.get_qform(coded=True)[0]
    flat = raw_header["pixdim"][1 : 1 + min(3, int(header["dim"][0]))] == 0
    if sform is None and flat.any():
        return ["the file gives no spacing along an axis; 1 mm is assumed"]
    if sform is None and qform is None:
        return ["the file gives no orientation; its axes are assumed to be left, anterior, superior"]
    shape = (*header.get_data_shape(), 1, 1)[:3]
    if sform is not None and qform is not None and (apart := furthest_apart(sform, qform, shape)) > 0.1:
        return [
            f"its sform and qform lie up to {apart:.3g} mm apart; the sform is used, other programs may use the qform"
        ]
    return []
