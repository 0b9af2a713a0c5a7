"""A volume as radiological slices: pure index arithmetic, exactly invertible."""

from __future__ import annotations

import numpy as np
from nibabel.orientations import io_orientation

from medclipad.errors import VolumeError
from medclipad.volume.volume import Volume

PLANES = ("axial", "coronal", "sagittal", "acquisition")

_NORMAL = {"sagittal": 0, "coronal": 1, "axial": 2}  # world axis (R, A, S) perpendicular to the plane
_PLANE = {world: plane for plane, world in _NORMAL.items()}
_TIE = 1e-3  # spacings that differ by less than this fraction count as equal


class Slicing:
    """Slices of a volume along one plane, the same images for any axis order of the file.

    Parameters
    ----------
    volume
        Volume whose grid is sliced. Its voxels are not used: arrays to slice are passed to the methods.
    plane
        "axial", "coronal", "sagittal" or "acquisition". "acquisition" cuts across the axis of largest spacing (ties:
        the axis closest to inferior-superior, then to posterior-anterior), or, in a volume of a single slice, across
        the axis of length one.

    Attributes
    ----------
    plane : str
        Anatomical plane of the slices: "axial", "coronal" or "sagittal".
    axis : int
        Array axis perpendicular to the slices.
    pixel_spacing : tuple of float
        Distance in mm between rows and between columns.

    Raises
    ------
    VolumeError
        If the plane is unknown.

    Notes
    -----
    The array axes are matched to the closest anatomical axes (`nibabel.orientations.io_orientation`), so oblique
    volumes are sliced along their own grid. Slice 0 is the most inferior (axial), posterior (coronal) or left
    (sagittal) one. Axial and coronal slices show the patient's right at the left of the image, and anterior or superior
    at the top; sagittal slices show anterior at the left and superior at the top.

    Examples
    --------
    >>> volume = Volume(np.arange(60).reshape(4, 5, 3), np.diag((1.0, 1.0, 5.0, 1.0)))
    >>> slicing = Slicing(volume, "acquisition")
    >>> slicing.plane, len(slicing), slicing.shape
    ('axial', 3, (5, 4))
    >>> slices = slicing.slices(volume.array)
    >>> slices.shape
    (3, 5, 4)
    >>> bool((slicing.stack(slices) == volume.array).all())
    True
    """

    def __init__(self, volume: Volume, plane: str) -> None:
        if plane not in PLANES:
            raise VolumeError(f"{plane!r} is not a plane; choose one of {', '.join(PLANES)}.")
        self._shape, self._affine = volume.shape, volume.affine
        spacing = volume.spacing
        orientation = io_orientation(volume.affine)
        world = orientation[:, 0].astype(int)  # world axis of each array axis
        if plane == "acquisition":
            plane = _PLANE[world[_acquisition_axis(self._shape, spacing, world)]]
        self.plane: str = plane
        normal = _NORMAL[plane]
        # Display rows run along the higher remaining world axis (S before A before R), columns along the lower.
        column, row = sorted({0, 1, 2} - {normal})
        order = [int(np.flatnonzero(world == w)[0]) for w in (normal, row, column)]
        self.axis: int = order[0]
        self.pixel_spacing: tuple[float, float] = (spacing[order[1]], spacing[order[2]])
        self._order = tuple(order)
        self._forward = orientation[self.axis, 1] > 0
        # Slices run towards RAS+; rows and columns run from RAS+ to RAS- (the radiological display).
        signs = (1, -1, -1)
        self._flips = tuple(slice(None, None, int(s * orientation[a, 1])) for s, a in zip(signs, order, strict=True))

    def __len__(self) -> int:
        return self._shape[self.axis]

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W), rows and columns of each slice."""
        return self._shape[self._order[1]], self._shape[self._order[2]]

    def slices(self, array: np.ndarray) -> np.ndarray:
        """Return all slices of an array as one view.

        Parameters
        ----------
        array
            (I, J, K) array on the volume's grid.

        Returns
        -------
        numpy.ndarray
            (N, H, W) view: writing to it writes to `array`.

        Raises
        ------
        VolumeError
            If the array has another shape.
        """
        if np.shape(array) != self._shape:
            raise VolumeError(f"an array of shape {np.shape(array)} does not fit the volume's grid {self._shape}.")
        return array.transpose(self._order)[self._flips]

    def slice(self, array: np.ndarray, n: int) -> np.ndarray:
        """Return slice `n` of an (I, J, K) array on the volume's grid, as an (H, W) view."""
        self.index(n)
        return self.slices(array)[n]

    def index(self, n: int) -> int:
        """Return the index of slice `n` along `axis` of the file's array.

        Raises
        ------
        VolumeError
            If `n` is not in 0 ... len - 1.
        """
        if not 0 <= n < len(self):
            raise VolumeError(f"{self.plane} slice {n} does not exist; the volume has slices 0 to {len(self) - 1}.")
        return int(n) if self._forward else len(self) - 1 - int(n)

    def number(self, index: int) -> int:
        """Return the number of the slice at an index along `axis` of the file's array, the inverse of `index`."""
        return int(index) if self._forward else len(self) - 1 - int(index)

    def position(self, n: int) -> np.ndarray:
        """Return the centre of slice `n` as (3,) RAS+ mm."""
        centre = (np.array(self._shape, dtype=float) - 1) / 2
        centre[self.axis] = self.index(n)
        return self._affine[:3, :3] @ centre + self._affine[:3, 3]

    def stack(self, slices: np.ndarray) -> np.ndarray:
        """Return slices as an array on the volume's own axes, the exact inverse of `slices`.

        Parameters
        ----------
        slices
            (N, H, W) values of any dtype.

        Returns
        -------
        numpy.ndarray
            (I, J, K) array of the same dtype.

        Raises
        ------
        VolumeError
            If number or shape of the slices differ from the volume's.
        """
        slices = np.asarray(slices)
        expected = (len(self), *self.shape)
        if slices.shape != expected:
            raise VolumeError(f"slices of shape {slices.shape} do not fill the volume, which needs {expected}.")
        array = np.empty(self._shape, dtype=slices.dtype)
        self.slices(array)[:] = slices
        return array


def _acquisition_axis(shape: tuple[int, ...], spacing: tuple[float, ...], world: np.ndarray) -> int:
    """Return the array axis across which the volume was acquired."""
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0]
    largest = max(spacing)
    tied = [axis for axis in range(3) if spacing[axis] >= largest * (1 - _TIE)]
    return max(tied, key=lambda axis: world[axis])
