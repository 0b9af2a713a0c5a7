"""The volume: an array with its position in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from medclipad.errors import VolumeError

LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
"""ITK and DICOM measure towards left, posterior, superior; this package towards right, anterior, superior."""

GRID_TOLERANCE = 0.05
"""Two grids are the same if no corner voxel is further apart than this fraction of the smallest spacing."""


@dataclass(frozen=True, eq=False)
class Volume:
    """Scalar volume on a regular grid in RAS+ millimetres (nibabel's convention).

    Parameters
    ----------
    array
        (I, J, K) voxels in the file's own index order (i, j, k of nibabel and ITK; a single 2D image is (I, J, 1)), of
        any real dtype. NaN and infinite voxels are allowed.
    affine
        (4, 4) matrix from voxel index to RAS+ mm.
    name
        Name of the case, used in messages and file names.
    modality
        DICOM modality, such as "CT" or "MR"; None if unknown.
    metadata
        Plain values only: "format", "notes" and what writing the file back needs.

    Attributes
    ----------
    array : numpy.ndarray
        (I, J, K) voxels; not a copy.
    affine : numpy.ndarray
        (4, 4) float64, kept to the last bit and read-only.
    name : str
        Name of the case.
    modality : str or None
        DICOM modality.
    metadata : dict
        Plain values.

    Raises
    ------
    VolumeError
        If the array is not a non-empty real 3D array, or the affine is not finite and invertible.

    Examples
    --------
    >>> import numpy as np
    >>> from medclipad.volume import Volume
    >>> volume = Volume(np.zeros((4, 5, 3)), np.diag((1.0, 1.0, 5.0, 1.0)), name="case")
    >>> volume.shape
    (4, 5, 3)
    >>> volume.spacing
    (1.0, 1.0, 5.0)
    """

    array: np.ndarray
    affine: np.ndarray
    name: str = ""
    modality: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        array = np.asanyarray(self.array)
        name = self.name or "volume"
        if array.ndim != 3 or array.size == 0:
            raise VolumeError(
                f"{name}: an array of shape {array.shape} is not a volume; pass a non-empty (I, J, K) array."
            )
        if array.dtype.kind not in "buif":
            raise VolumeError(f"{name}: voxels of type {array.dtype} are not real numbers; pass a real scalar array.")
        affine = np.array(self.affine, dtype=np.float64)
        check_affine(affine, name)
        affine.setflags(write=False)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(I, J, K), number of voxels along each array axis."""
        return self.array.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance in mm between neighbouring voxels along each array axis."""
        i, j, k = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(i), float(j), float(k)

    @property
    def origin(self) -> np.ndarray:
        """(3,) RAS+ mm, centre of voxel (0, 0, 0)."""
        return self.affine[:3, 3].copy()

    @property
    def direction(self) -> np.ndarray:
        """(3, 3), whose column a is the unit vector in RAS+ along array axis a."""
        return self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user on how the file was interpreted, such as a spacing that had to be assumed."""
        return tuple(self.metadata.get("notes", ()))

    def with_array(self, array: np.ndarray) -> Volume:
        """Return a volume with other voxels on the same grid, with the same name and metadata.

        Parameters
        ----------
        array
            (I, J, K) voxels of any real dtype.

        Raises
        ------
        VolumeError
            If the shape differs.
        """
        if np.shape(array) != self.shape:
            raise VolumeError(
                f"{self.name or 'volume'}: an array of shape {np.shape(array)} does not fit the grid {self.shape}."
            )
        return replace(self, array=array)


def check_affine(affine: np.ndarray, name: str) -> None:
    """Raise VolumeError unless a (4, 4) matrix maps each voxel to a finite point of its own."""
    remedy = "correct the file's orientation and spacing, or convert it again from its source"
    if affine.shape != (4, 4) or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise VolumeError(f"{name}: the affine is not a (4, 4) matrix with last row 0 0 0 1; {remedy}.")
    if not np.isfinite(affine).all():
        raise VolumeError(f"{name}: its orientation matrix contains NaN or infinity; {remedy}.")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing == 0).any():
        raise VolumeError(f"{name}: its spacing is zero along an axis; {remedy}.")
    # The volume of a voxel of unit spacing: 1 for orthogonal axes, 0 if two of them coincide.
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise VolumeError(f"{name}: its orientation matrix is singular, two axes point the same way; {remedy}.")


def require_same_grid(volume: Volume, other: Volume) -> None:
    """Raise VolumeError unless two volumes lie on the same grid.

    Parameters
    ----------
    volume
        Volume that defines the grid.
    other
        Volume to compare, such as a mask. Its corner voxels may be off by `GRID_TOLERANCE` of the smallest spacing.

    Raises
    ------
    VolumeError
        If the sizes differ, or the volumes lie apart in space.
    """
    names = f"{other.name or 'the mask'} and {volume.name or 'the volume'}"
    remedy = "resample one onto the other first"
    if other.shape != volume.shape:
        raise VolumeError(f"{names} have different sizes, {other.shape} and {volume.shape}; {remedy}.")
    apart = furthest_apart(other.affine, volume.affine, volume.shape)
    if apart > GRID_TOLERANCE * min(volume.spacing):
        raise VolumeError(f"{names} lie up to {apart:.3g} mm apart in space; {remedy}.")


def furthest_apart(first: np.ndarray, second: np.ndarray, shape: tuple[int, ...]) -> float:
    """Return the largest distance between the positions that two affines give to the same voxel.

    Parameters
    ----------
    first, second
        (4, 4) affines, voxel index to mm.
    shape
        (I, J, K) of the grid.

    Returns
    -------
    float
        Distance in mm. Only corners are compared, because the maximum of a linear difference is at one of them.
    """
    corners = np.array([(*corner, 1.0) for corner in product(*((0, n - 1) for n in shape))])
    return float(np.linalg.norm(corners @ (first - second)[:3].T, axis=1).max())
