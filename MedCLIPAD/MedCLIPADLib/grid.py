"""The voxel grid of a volume, and its slices as the server numbers them: numpy only, nothing of MRML."""

from __future__ import annotations

import numpy as np
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError

PLANES = ("axial", "coronal", "sagittal", "acquisition")
_NORMAL = {"sagittal": 0, "coronal": 1, "axial": 2}  # world axis (R, A, S) perpendicular to the plane
_PLANE = {world: plane for plane, world in _NORMAL.items()}
_TIE = 1e-3  # spacings that differ by less than this part are equal
_SHEAR = 1e-3  # cosine between two axes, above which they are not perpendicular


def require_orthogonal(affine: np.ndarray) -> None:
    """Raise ModuleError if the axes of a 4 x 4 voxel-to-RAS matrix are not perpendicular, or have no length."""
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if not np.isfinite(affine).all() or spacing.min() <= 0:
        raise ModuleError(_("The volume's geometry is damaged: its IJK to RAS matrix cannot be inverted."))
    axes = affine[:3, :3] / spacing
    if np.abs(axes.T @ axes - np.eye(3)).max() > _SHEAR:
        raise ModuleError(
            _(
                "The volume's axes are sheared (gantry tilt?): resample it with the module Resample Image, or harden "
                "the acquisition transform that Slicer offers when it loads such a series, then try again."
            )
        )


def anatomical_axes(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(world axis, sign) of each array axis: the closest anatomical orientation, as nibabel finds it."""
    scaled = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
    left, size, right = np.linalg.svd(scaled)
    keep = size > size.max() * 3 * np.finfo(size.dtype).eps
    rotation = left[:, keep] @ right[keep]
    world, sign = np.zeros(3, int), np.ones(3, int)
    for axis in np.argsort(np.min(-(rotation**2), axis=0), kind="stable"):
        world[axis] = int(np.argmax(np.abs(rotation[:, axis])))
        sign[axis] = -1 if rotation[world[axis], axis] < 0 else 1
        rotation[world[axis], :] = 0  # no two array axes get the same world axis
    return world, sign


class Slicing:
    """Slices of a grid along one plane, numbered from the most inferior, posterior or left one (0) to the last.

    shape: (I, J, K). affine: 4 x 4, voxels to RAS. `plane="acquisition"` cuts across the largest spacing; `.plane` then
    names the anatomical plane that this is. This is the rule of the server's slice numbers.
    """

    def __init__(self, shape: tuple[int, ...], affine: np.ndarray, plane: str) -> None:
        if plane not in PLANES:
            raise ModuleError(
                _("{plane} is not a plane; choose one of {planes}.").format(plane=repr(plane), planes=", ".join(PLANES))
            )
        self.shape, self.affine = tuple(int(n) for n in shape), np.asarray(affine, dtype=float)
        world, sign = anatomical_axes(self.affine)
        if plane == "acquisition":
            plane = _PLANE[int(world[self._acquisition_axis(world)])]
        self.plane = plane
        self.axis = int(np.flatnonzero(world == _NORMAL[plane])[0])  # of (I, J, K)
        self._forward = bool(sign[self.axis] > 0)

    def __len__(self) -> int:
        return self.shape[self.axis]

    def index(self, number: int) -> int:
        """Index along `axis` of slice `number`, and the other way round."""
        return int(number) if self._forward else len(self) - 1 - int(number)

    number = index  # a flip is its own inverse

    def first(self, array: np.ndarray) -> np.ndarray:
        """View of an array [k, j, i] on this grid, as Slicer has it, as (slice number, ...)."""
        moved = np.moveaxis(array, 2 - self.axis, 0)
        return moved if self._forward else moved[::-1]

    def of_point(self, ijk: np.ndarray) -> int | None:
        """Number of the slice that holds a point in voxel coordinates; None outside the volume."""
        index = int(np.floor(ijk[self.axis] + 0.5))
        return self.number(index) if 0 <= index < len(self) else None

    def _acquisition_axis(self, world: np.ndarray) -> int:
        single = [axis for axis in range(3) if self.shape[axis] == 1]
        if len(single) == 1:
            return single[0]
        spacing = np.linalg.norm(self.affine[:3, :3], axis=0)
        tied = [axis for axis in range(3) if spacing[axis] >= spacing.max() * (1 - _TIE)]
        return max(tied, key=lambda axis: world[axis])
