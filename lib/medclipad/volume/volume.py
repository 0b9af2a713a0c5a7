"""The volume: an array with its place in the patient."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from medclipad.errors import VolumeError

LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
"""ITK and DICOM count millimetres towards left, posterior, superior; this package towards right, anterior, superior."""

GRID_TOLERANCE = 0.05
"""Two grids are the same if no corner voxel is further apart than this part of the smallest spacing."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A scalar volume on a regular grid in RAS+ millimetres (nibabel's convention).

    `array` is (I, J, K) in the file's own index order (nibabel's and ITK's i, j, k; a single 2D image is (I, J, 1)), of
    any real dtype; NaN and infinite voxels are allowed. `affine` is (4, 4) float64, voxel index to RAS+ mm, kept to the
    last bit. `metadata` holds plain values only: `format`, `notes` (sentences that the user should hear about how the
    file was understood) and what writing back needs.

    Raises VolumeError if the array is not a non-empty real 3D array or the affine is not a finite, invertible one.
    """

    array: np.ndarray
    affine: np.ndarray
    name: str = ""
    modality: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        array = np.asanyarray(self.array)
        who = self.name or "volume"
        if array.ndim != 3 or array.size == 0:
            raise VolumeError(
                f"{who}: an array of shape {array.shape} is not a volume; pass a non-empty (I, J, K) array."
            )
        if array.dtype.kind not in "buif":
            raise VolumeError(
                f"{who}: voxels of type {array.dtype} are not numbers on one scale; pass a real scalar array."
            )
        affine = np.array(self.affine, dtype=np.float64)
        check_affine(affine, who)
        affine.setflags(write=False)
        object.__setattr__(self, "array", array)
        object.__setattr__(self, "affine", affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.array.shape

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along each array axis, in mm."""
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def origin(self) -> np.ndarray:
        """(3,) RAS+ mm of the centre of voxel (0, 0, 0)."""
        return self.affine[:3, 3].copy()

    @property
    def direction(self) -> np.ndarray:
        """(3, 3), column a is the unit vector in RAS+ along array axis a."""
        return self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences for the user on how the file was understood, such as a spacing that had to be assumed."""
        return tuple(self.metadata.get("notes", ()))

    def with_array(self, array: np.ndarray) -> Volume:
        """The same grid, name and metadata with other voxels; raises VolumeError if the shape differs."""
        if np.shape(array) != self.shape:
            raise VolumeError(
                f"{self.name or 'volume'}: an array of shape {np.shape(array)} does not fit the grid {self.shape}."
            )
        return replace(self, array=array)


def check_affine(affine: np.ndarray, who: str) -> None:
    """Raise VolumeError unless `affine` is a (4, 4) matrix that places each voxel at its own finite point."""
    remedy = "correct the file's orientation and spacing, or convert it anew from its source"
    if affine.shape != (4, 4) or not np.array_equal(affine[3], (0, 0, 0, 1)):
        raise VolumeError(f"{who}: the affine is not a (4, 4) matrix with last row 0 0 0 1; {remedy}.")
    if not np.isfinite(affine).all():
        raise VolumeError(f"{who}: its orientation matrix holds NaN or infinity; {remedy}.")
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing == 0).any():
        raise VolumeError(f"{who}: its spacing is zero along an axis; {remedy}.")
    # The volume of a voxel of unit spacing: 1 for orthogonal axes, 0 if two of them coincide.
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise VolumeError(f"{who}: its orientation matrix is singular, two axes point the same way; {remedy}.")


def require_same_grid(volume: Volume, other: Volume) -> None:
    """Raise VolumeError unless `other`, a mask for example, lies on the grid of `volume` (within GRID_TOLERANCE)."""
    names = f"{other.name or 'the mask'} and {volume.name or 'the volume'}"
    remedy = "resample the one onto the other first"
    if other.shape != volume.shape:
        raise VolumeError(f"{names} have different sizes, {other.shape} and {volume.shape}; {remedy}.")
    apart = furthest_apart(other.affine, volume.affine, volume.shape)
    if apart > GRID_TOLERANCE * min(volume.spacing):
        raise VolumeError(f"{names} lie up to {apart:.3g} mm apart in space; {remedy}.")


def furthest_apart(one: np.ndarray, other: np.ndarray, shape: tuple[int, ...]) -> float:
    """Largest distance in mm between where two affines put the same voxel of a (I, J, K) grid (it is at a corner)."""
    corners = np.array([(*corner, 1.0) for corner in product(*((0, n - 1) for n in shape))])
    return float(np.linalg.norm(corners @ (one - other)[:3].T, axis=1).max())
