"""Hash of the content of a volume, the same for every file format."""

from __future__ import annotations

import hashlib

import numpy as np

from medclipad.volume import Volume


def content_sha256(volume: Volume) -> str:
    """Return the SHA-256 (hex) of a volume's size, voxel type, position in the patient and voxels.

    Notes
    -----
    Clients that cannot import this package compute the hash too, so the recipe is fixed. These parts are hashed in
    order: the ASCII line "IxJxK type" (numpy's dtype.str, little-endian); a second line with the twelve numbers of the
    voxel-to-RAS matrix as f"{value:.4f}", that is to 0.0001 mm; the voxels, with i running fastest.

    Examples
    --------
    >>> content_sha256(Volume(np.zeros((2, 2, 2), np.int16), np.eye(4)))[:8]
    'f590beb1'
    """
    array = volume.array
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    matrix = " ".join(f"{round(float(value), 4) + 0.0:.4f}" for value in volume.affine[:3].ravel())  # + 0.0: no "-0"
    digest = hashlib.sha256(f"{'x'.join(map(str, array.shape))} {array.dtype.str}\n{matrix}\n".encode())
    digest.update(np.ascontiguousarray(array.T).data)
    return digest.hexdigest()
