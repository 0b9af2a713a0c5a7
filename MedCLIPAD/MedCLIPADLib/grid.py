"""The voxel grid of a volume, and its slices as the server numbers them.

Needs numpy only, no MRML.
"""

from __future__ import annotations

import numpy as np
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError

PLANES = ("axial", "coronal", "sagittal", "acquisition")
_NORMAL = {"sagittal": 0, "coronal": 1, "axial": 2}  # world axis (R, A, S) perpendicular to the plane
_PLANE = {world: plane for plane, world in _NORMAL.items()}
_TIE = 1e-3  # relative difference below which two spacings count as equal
_SHEAR = 1e-3  # cosine between two axes, above which they are not perpendicular


def require_orthogonal(affine: np.ndarray) -> None:
    """Raise ModuleError if the axes of a voxel grid are not perpendicular.

    `affine` is the (4, 4) voxel-to-RAS matrix; axes of length zero are refused too.
    """
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() <= 0:
        raise ModuleError(_("The volume's geometry is damaged: its IJK-to-RAS matrix cannot be inverted."))
    axes = affine[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > _SHEAR:
        raise ModuleError(
            _(
                "The volume's axes are sheared (gantry tilt?): resample the volume with the module Resample Image, or "
                "harden the acquisition transform that Slicer offers for such a series, then try again."
            )
        )


def anatomical_axes(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the closest anatomical orientation of a voxel grid, by nibabel's rule.

    Parameters
    ----------
    affine : (4, 4) array
        Voxel-to-RAS matrix.

    Returns
    -------
    world : (3,) int array
        World axis (0: R, 1: A, 2: S) of each array axis.
    sign : (3,) int array
        1 where the array axis runs along its world axis, -1 where it runs against it.
    """
    scaled = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left, size, right = np.linalg.svd(scaled)
    keep = size > size.max() * 3 * np.finfo(size.dtype).eps
    rotation = left[:, keep] @ right[keep]
    world, sign = np.zeros(3, int), np.ones(3, int)
    for axis in np.argsort(np.min(-(rotation**2), axis=0), kind="stable"):
        world[axis] = int(np.argmax(np.abs(rotation[:, axis])))
        sign[axis] = -1 if rotation[world[axis], axis] < 0 else 1
        rotation[world[axis], :] = 0  # so that no two array axes get the same world axis
    return world, sign


class Slicing:
    """The slices of a voxel grid along one plane.

    Slices are numbered, as on the server, from 0 for the most inferior, posterior or left one.

    Parameters
    ----------
    shape : tuple of int
        (I, J, K).
    affine : (4, 4) array
        Voxel-to-RAS matrix.
    plane : str
        One of `PLANES`; "acquisition" is the plane across the largest spacing.

    Attributes
    ----------
    shape, affine
        As passed in.
    plane : str
        The anatomical plane: "axial", "coronal" or "sagittal".
    axis : int
        Index in (I, J, K) of the axis across the slices.
    """

    def __init__(self, shape: tuple[int, ...], affine: np.ndarray, plane: str) -> None:
        if plane not in PLANES:
            raise ModuleError(
                _("{plane} is not a plane: choose one of {planes}.").format(plane=repr(plane), planes=", ".join(PLANES))
            )
        self.shape, self.affine = tuple(int(n) for n in shape), np.asarray(affine, dtype=float)
        world, sign = anatomical_axes(self.affine)
        if plane == "acquisition":
            plane = _PLANE[int(world[self._acquisition_axis(world)])]
        self.plane = plane
        self.axis = int(np.flatnonzero(world == _NORMAL[plane])[0])
        self._forward = bool(sign[self.axis] > 0)

    def __len__(self) -> int:
        return self.shape[self.axis]

    def index(self, number: int) -> int:
        """Return the index along `axis` of a slice."""
        return int(number) if self._forward else len(self) - 1 - int(number)

    def number(self, index: int) -> int:
        """Return the number of the slice at an index along `axis`."""
        return self.index(index)  # a flip is its own inverse

    def first(self, array: np.ndarray) -> np.ndarray:
        """Return a view of an array [k, j, i] on this grid as [slice number, ...]."""
        moved = np.moveaxis(array, 2 - self.axis, 0)
        return moved if self._forward else moved[::-1]

    def of_point(self, ijk: np.ndarray) -> int | None:
        """Return the slice that contains a point (i, j, k), or None outside the volume."""
        index = int(np.floor(ijk[self.axis] + 0.5))
        return self.number(index) if 0 <= index < len(self) else None

    def _acquisition_axis(self, world: np.ndarray) -> int:
        single = [axis for axis in range(3) if self.shape[axis] == 1]
        if len(single) == 1:
            return single[0]
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        tied = [axis for axis in range(3) if spacing[axis] >= spacing.max() * (1 - _TIE)]
        return max(tied, key=lambda axis: world[axis])


def bounding_box(mask: np.ndarray) -> tuple[slice, ...] | None:
    """Return the slices of the smallest box around a mask, or None if it is empty."""
    spans = []
    for axis in range(mask.ndim):
        hits = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        if not len(hits):
            return None
        spans.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(spans)
