"""Read and write NIfTI: the affine is exactly nibabel's, and a written map keeps the geometry of its source."""

from __future__ import annotations

from io import BufferedIOBase
from pathlib import Path
from typing import cast

import nibabel as nib
import numpy as np
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import HeaderDataError

from medclipad.errors import VolumeError, VolumeSizeError
from medclipad.volume.components import Component, select_component
from medclipad.volume.memory_budget import in_words, require_allowed, require_memory
from medclipad.volume.read_errors import BoundedFile, BoundedGzip, require_enough_bytes, volume_errors
from medclipad.volume.scaling import scaled_type
from medclipad.volume.volume import Volume, check_affine, furthest_apart

_BEHIND = 64 * 1024**2  # bytes after the voxels that are read; more are refused, fewer if they make a slice
_LONGER = 1e-4  # that the square of a quaternion may exceed 1; of what programs write, 1e-6 at most was seen
_NO_REST = 1e-7  # of a quaternion's square that is left for its real part, below which ITK takes that for 0
_UNITS = ("unknown", "meter", "mm", "micron")
_GEOMETRY = (
    "pixdim", "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip


class _Header1(nib.Nifti1Header):
    """NIfTI-1 header that takes a quaternion for one of length 1 as ITK does: programs round it to 32 bits."""

    def get_qform_quaternion(self) -> np.ndarray:
        """Return the quaternion (w, x, y, z) of length 1; HeaderDataError if the stored part is too long for one."""
        stored = np.array([self[f"quatern_{part}"] for part in "bcd"], dtype=np.float64)
        square = float(stored @ stored)
        if square > 1 + _LONGER or np.isnan(square):
            return super().get_qform_quaternion()
        if square > 1 - _NO_REST:
            return np.array([0.0, *stored]) / np.sqrt(square)
        return np.array([np.sqrt(1 - square), *stored])


class _Header2(_Header1, nib.Nifti2Header):
    """NIfTI-2 header, as `_Header1`."""


class _Nifti1(nib.Nifti1Image):
    """NIfTI-1 image with `_Header1`."""

    header_class = _Header1


class _Nifti2(nib.Nifti2Image):
    """NIfTI-2 image with `_Header2`."""

    header_class = _Header2


def read_nifti(path: Path, component: Component, name: str) -> Volume:
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
        image_class = _Nifti2 if version == 2 else _Nifti1
        raw_header = image_class.header_class.from_fileobj(stream, check=False)  # before nibabel corrects it
        stream.seek(0)
        image = image_class.from_file_map(image_class.make_file_map({"image": stream}), mmap=False)
        header = image.header
        data = cast(ArrayProxy, image.dataobj)  # of every image that was read from a file
        affine = cast(np.ndarray, image.affine)
        stored = np.prod(data.shape, dtype=float) * data.dtype.itemsize
        require_allowed(stored, path.name, data.shape)
        require_enough_bytes(path, stored, data.offset, packed)
        require_memory(_needed(data), path.name, f"reading {in_words(data.shape)}")
        raw, slope, intercept = data.get_unscaled(), float(data.slope), float(data.inter)
        _read_to_end(stream, path, data.offset + stored)
        _require_announced_length(header, data, stream.tell())
        unit, notes = _unit(header), _notes(header, raw_header)
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
    image_class = _Nifti2 if wide else _Nifti1
    candidates = (image_class, _Nifti2) if version == 2 else (image_class,)
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


def _read_to_end(stream: BufferedIOBase, path: Path, announced: float) -> None:
    """Read what follows the voxels, since gzip compares its checksum only at the end; raise an error over a flood."""
    while stream.read(1 << 20):
        if stream.tell() > announced + _BEHIND:
            raise VolumeSizeError(f"{path.name}: it decompresses to more than its header declares; export it again.")


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


def _unit(header: nib.Nifti1Header) -> str:
    """Return the unit of the spacing; bits that stand for none are as good as none."""
    code = int(header["xyzt_units"]) % 8
    return _UNITS[code] if code < len(_UNITS) else _UNITS[0]


def _notes(header: nib.Nifti1Header, raw_header: nib.Nifti1Header) -> list[str]:
    """Return sentences for the user on what the header leaves open."""
    sform = header.get_sform(coded=True)[0]
    try:
        qform = header.get_qform(coded=True)[0]
    except (HeaderDataError, ValueError):  # it decides nothing, or the affine could not have been read
        return ["its qform is not valid; the sform is used, other programs may use the qform"]
    spacing = np.asarray(raw_header["pixdim"], dtype=float)[1 : 1 + min(3, int(header["dim"][0]))]
    if (spacing < 0).any():
        return ["its spacing is negative along an axis; its size is taken, ITK and 3D Slicer may mirror that axis"]
    flat = spacing == 0
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
