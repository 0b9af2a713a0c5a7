"""One number for the content of a volume, the same whatever file format it came in."""

from __future__ import annotations

import hashlib

import numpy as np

from medclipad.volume import Volume


def content_sha256(volume: Volume) -> str:
    """SHA-256 (hex) over size, voxel type, place in the patient to 0.0001 mm, and the voxels of a volume.

    Clients that cannot import this package compute it too, so the recipe is fixed: the ASCII line "IxJxK type" (numpy's
    dtype.str, little-endian), the twelve numbers of the voxel-to-RAS matrix as f"{value:.4f}" on a second line, then
    the voxels with i running fastest.
    """
    array = volume.array
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    matrix = " ".join(f"{round(float(value), 4) + 0.0:.4f}" for value in volume.affine[:3].ravel())  # + 0.0: no "-0"
    digest = hashlib.sha256(f"{'x'.join(map(str, array.shape))} {array.dtype.str}\n{matrix}\n".encode())
    digest.update(np.ascontiguousarray(array.T))
    return digest.hexdigest()
