"""Bring whole volumes into one pose before they are cut into slices.

People lie differently in the scanner, and a slice of a tilted head shows something else than the remembered slices of
the same height. An affine transform onto one of the normal volumes takes out pose and size; the map is brought back
onto exactly the volume's own grid.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, Self

import numpy as np
import SimpleITK
import torch
from nibabel.orientations import io_orientation
from scipy.ndimage import affine_transform, binary_dilation, gaussian_filter, uniform_filter

from medclipad.detection.cases import Case
from medclipad.detection.config import FitConfig
from medclipad.detection.slice_frames import FramedVolume, box_of, detection_memory
from medclipad.errors import TrainingError
from medclipad.volume import Volume, to_unit
from medclipad.volume.progress import Progress
from medclipad.volume.readers.itk import itk_image
from medclipad.volume.shelf import beside, volume_beside
from medclipad.volume.volume import LPS_TO_RAS

COARSE = 4.0  # mm between the voxels that are registered
FINEST = 1.0  # mm between the voxels of aligned volumes, at least: their maps are smoothed by 3 mm
COARSEST = 2.0  # mm between the voxels of most volumes, up to which "auto" aligns: resampling blurs coarser ones
LEAST_CORRELATION = 0.6  # of the brightness of volume and reference, once they are aligned
MOST_STRETCH = 1.5  # by which one may be larger than the other in any direction
MOST_TURN = 40.0  # degrees
_LEAST_SIDE = 8  # voxels along an axis: fewer cannot be registered
_MARGIN = 20.0  # mm around the body, so that its outline counts
_ITERATIONS = 200
_INSIDE = 0.5  # share of a voxel that is body, from which on it is body
_LEAST_SHARE = 1e-3
_VOXEL_BYTES = 20  # of each voxel of both grids, while values are brought from one to the other
NOT_ALIGNED = (
    "The volume could not be aligned with the normal ones (another part of the body, or another sequence?): no verdict "
    "is given."
)


class NotAlikeError(TrainingError):
    """A volume cannot be brought into the pose of the normal ones."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f'"{name}" cannot be aligned with the normal volumes: leave it out, or fit with align="off" (--align off).'
        )


@dataclass(frozen=True)
class Reference:
    """The pose that volumes are brought into: that of a normal one.

    Attributes
    ----------
    image
        float32 (I, J, K) in [0, 1], brightness on a grid of 4 mm along the axes of that volume; 0 outside the body.
    affine
        (4, 4), from the voxels of `image` to RAS+ mm.
    spacing
        mm between the voxels of aligned volumes, along each axis.
    """

    image: np.ndarray
    affine: np.ndarray
    spacing: float

    @classmethod
    def of(cls, volumes: Sequence[FramedVolume]) -> Reference | None:
        """Return the pose of the volume with the finest voxels, the first of several; None if it is too small."""
        finest = min(volumes, key=lambda framed: float(np.prod(framed.volume.spacing)))
        if not _can_register(finest):
            return None
        spacing = max(FINEST, float(np.median([min(framed.volume.spacing) for framed in volumes])))
        affine, shape = _grid_around(finest, _anatomical_axes(finest.volume), COARSE)
        return cls(_brightness(finest, affine, shape), affine, spacing)

    def mean_of(self, volumes: Sequence[FramedVolume], progress: Progress) -> Reference:
        """Return the same pose, shown by the mean of volumes instead of one.

        A mean is easier to align with than any person, and whoever gets the detector sees nobody's head in it.

        Raises
        ------
        NotAlikeError
            If one of them cannot be aligned.
        """
        total = np.zeros_like(self.image)
        for done, framed in enumerate(volumes):
            progress("align", done, len(volumes), {"volume": framed.volume.name})
            total += _brightness(framed, self.to_volume(framed) @ self.affine, self.image.shape)
        progress("align", len(volumes), len(volumes), {})
        rounded = (total / len(volumes)).astype(np.float16)  # as it is saved: a loaded detector gives the same maps
        return replace(self, image=rounded.astype(np.float32))

    def align(self, given: FramedVolume) -> AlignedVolume:
        """Return a volume, framed along some plane, in the pose of the reference along the same plane.

        Raises
        ------
        NotAlikeError
            If it cannot be brought into it.
        """
        return AlignedVolume(given, self.affine[:3, :3] / COARSE, self.to_volume(given), self.spacing)

    def memory(self, volume: Volume, planes: Sequence[str], smoothing: float, batch: int) -> int:
        """Return the bytes that a detection takes at its peak beside volume and encoder, from the grid alone.

        The aligned grid is taken to be as large as the volume's, as if the body filled it.
        """
        shape = np.ceil(np.multiply(volume.shape, volume.spacing) / self.spacing).astype(int)
        alike = Volume(np.broadcast_to(np.float32(0), shape), np.diag((self.spacing,) * 3 + (1.0,)))
        moved = _VOXEL_BYTES * (alike.array.size + volume.array.size)
        return detection_memory(alike, planes, smoothing, batch) + moved

    def to_volume(self, given: FramedVolume) -> np.ndarray:
        """Return the affine (4, 4) from mm of the reference to mm of a volume.

        Raises
        ------
        NotAlikeError
            If the two are not alike.
        """
        if not _can_register(given):
            raise NotAlikeError(given.volume.name)
        affine, shape = _grid_around(given, _anatomical_axes(given.volume), COARSE)
        fixed, moving = itk_image(self.image, self.affine), itk_image(_brightness(given, affine, shape), affine)
        try:
            found, correlation = _register(fixed, moving)
        except RuntimeError as error:  # the two do not overlap
            raise NotAlikeError(given.volume.name) from error
        if correlation < LEAST_CORRELATION or not _is_plausible(found[:3, :3]):
            raise NotAlikeError(given.volume.name)
        return found

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all that it consists of, by name, to be saved with the weights of a detector."""
        parts = {"image": self.image.astype(np.float16), "affine": self.affine, "spacing": np.array(self.spacing)}
        return {f"alignment.{name}": torch.from_numpy(value) for name, value in parts.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor]) -> Reference | None:
        """Return what `tensors` came from, taking it out of the tensors of a detector; None if nothing is there.

        Raises
        ------
        KeyError
            If a part is missing.
        """
        names = [name for name in tensors if name.startswith("alignment.")]
        found = {name.removeprefix("alignment."): tensors.pop(name).numpy() for name in names}
        if not found:
            return None
        return cls(found["image"].astype(np.float32), found["affine"], float(found["spacing"]))


class AlignedVolume(FramedVolume):
    """A volume in the pose of a reference, and the way of its map back.

    Parameters
    ----------
    given
        The volume as it is, along some plane; this one is cut along the same.
    axes
        (3, 3), whose columns are the axes of the aligned grid, in RAS+ of the reference.
    to_volume
        (4, 4), from mm of the reference to mm of the volume.
    spacing
        mm between the voxels of the aligned grid.
    """

    def __init__(self, given: FramedVolume, axes: np.ndarray, to_volume: np.ndarray, spacing: float) -> None:
        vars(self).update(vars(given))
        self._given = given
        affine, shape = _grid_around(given, axes, spacing, np.linalg.inv(to_volume))
        self._to_given = np.linalg.inv(given.volume.affine) @ to_volume @ affine  # voxels to voxels
        values, body = _sampled(given.volume.array, given.foreground, self._to_given, shape, _INSIDE)
        self.volume = volume_beside(given.volume, Volume(values, affine, given.volume.name, given.volume.modality))
        self._foreground = beside(given.volume, body)
        self._cut(given.slicing.plane)

    @property
    def given(self) -> FramedVolume:
        """The volume as it was given, along the same plane."""
        return self._given

    @property
    def weight(self) -> float:
        """What this plane's map counts beside other planes', by the given volume's voxels; see `FramedVolume`."""
        return self._given.weight

    def along(self, plane: str) -> Self:
        """Return the same volume along another plane."""
        other = super().along(plane)
        other._given = self._given.along(plane)
        return other

    def map_to_given(self, values: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Return a map float32 on this grid, which is 0 where nothing was seen, on the given volume's grid.

        There it is 0 outside the body, and farther than two voxels from what was seen.
        """
        given = self._given
        wider: np.ndarray = binary_dilation(seen)  # a thin part of the body may be lost between two grids
        around: np.ndarray = uniform_filter(values * seen, 3, mode="constant")
        share: np.ndarray = uniform_filter(seen.astype(np.float32), 3, mode="constant")
        np.divide(around, share, where=wider, out=around)
        np.copyto(around, values, where=seen)
        found, _ = _sampled(around, wider, np.linalg.inv(self._to_given), given.volume.shape, _LEAST_SHARE)
        found[~given.foreground] = 0
        return found

    def scores_to_given(self, scores: np.ndarray) -> np.ndarray:
        """Return scores of this volume's slices, nan where skipped, for the given volume's.

        A slice of the given volume that cuts several of this one's gets their mean, by the area of the body.
        """
        known = np.flatnonzero(np.isfinite(scores))
        spread = np.zeros(self.volume.shape, dtype=np.float32)
        self.slicing.slices(spread)[known] = scores[known, None, None]
        given = self._given
        slices = given.slicing.slices(self.map_to_given(spread, self.foreground & self.flags(known)))
        body = given.slicing.slices(given.foreground)
        found = np.full(len(given.slicing), np.nan)
        for number in given.analysed:
            found[number] = slices[number][body[number]].mean()
        return found


def align_volumes(
    framed: list[FramedVolume], cases: Sequence[Case], config: FitConfig, progress: Progress
) -> tuple[list[FramedVolume], Reference | None]:
    """Return volumes to learn from in one pose, and that pose; as they are, and None, where they are not aligned.

    Parameters
    ----------
    framed
        The volumes.
    cases
        What is known of each.
    config
        Its `align` decides; where it is "auto", volumes are taken as they are if one cannot be aligned.
    progress
        Called as progress("align", done, volumes, {"volume": name}).

    Raises
    ------
    TrainingError
        If volumes are to be aligned and cannot be.
    """
    known_whole = all(case.mask is None and case.normal is None and not case.abnormal for case in cases)
    if config.align == "off" or (config.align == "auto" and not (known_whole and config.planes == "all")):
        return framed, None
    if not known_whole:
        raise TrainingError(
            "Volumes with masks or marked slices are not aligned: leave align at auto, or give whole normal volumes."
        )
    first = Reference.of(framed) if len(framed) > 1 else None
    if first is None and config.align == "on":
        raise TrainingError("Alignment takes at least two normal volumes of eight voxels or more along each axis.")
    if first is None or (config.align == "auto" and first.spacing > COARSEST):
        return framed, None
    try:
        reference = first.mean_of(framed, progress)
        return [reference.align(one) for one in framed], reference
    except NotAlikeError:
        if config.align == "on":
            raise
        return framed, None


def _register(fixed: SimpleITK.Image, moving: SimpleITK.Image) -> tuple[np.ndarray, float]:
    """Return the affine (4, 4) in RAS+ mm from one image to another, and the correlation of the two; as ITK may raise.

    In one thread: sums in one order, so that the same volume always gives the same map.
    """
    middle = SimpleITK.CenteredTransformInitializerFilter.MOMENTS
    method = SimpleITK.ImageRegistrationMethod()
    method.SetNumberOfThreads(1)
    method.SetMetricAsCorrelation()
    method.SetInterpolator(SimpleITK.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(1.0, 1e-3, _ITERATIONS)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([2, 1])
    method.SetSmoothingSigmasPerLevel([COARSE, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(
        SimpleITK.CenteredTransformInitializer(fixed, moving, SimpleITK.AffineTransform(3), middle), inPlace=False
    )
    found = method.Execute(fixed, moving)
    origin = np.array(found.TransformPoint((0.0, 0.0, 0.0)))
    columns = [np.array(found.TransformPoint(unit)) - origin for unit in np.eye(3).tolist()]
    matrix = LPS_TO_RAS @ _matrix(np.stack(columns, axis=1), origin) @ LPS_TO_RAS
    return matrix, max(0.0, -method.GetMetricValue()) ** 0.5  # ITK's metric is the negative square


def _sampled(
    values: np.ndarray, where: np.ndarray, to_voxels: np.ndarray, shape: Sequence[int], least: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return values within a mask at the voxels of another grid, float32, and whether as much of a mask is there.

    What lies outside the mask does not count: a border is not mixed with background. NaN counts as 0.
    """
    box = box_of(where)
    if box is None:
        return np.zeros(shape, dtype=np.float32), np.zeros(shape, dtype=bool)
    to_box = _matrix(to_voxels[:3, :3], to_voxels[:3, 3] - [side.start for side in box])
    share = _interpolated(where[box].astype(np.float32), to_box, shape)
    inside_box = np.zeros(where[box].shape, dtype=np.float32)
    np.copyto(inside_box, values[box], where=where[box], casting="unsafe")
    total = _interpolated(np.nan_to_num(inside_box, copy=False), to_box, shape)
    inside = share > least
    np.divide(total, share, where=inside, out=total)
    total[~inside] = 0
    return total, inside


def _brightness(framed: FramedVolume, affine: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return the brightness of the body in [0, 1] on a coarse grid, float32, 0 around it."""
    unit = to_unit(framed.volume.array, *framed.window)
    unit[~framed.foreground] = 0
    steps = framed.volume.spacing
    unit = gaussian_filter(unit, [COARSE / 2 / step for step in steps], mode="constant", truncate=2.0)
    return _interpolated(unit, np.linalg.inv(framed.volume.affine) @ affine, shape)


def _interpolated(array: np.ndarray, to_voxels: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Return an array at the voxels of another grid, linear between its own, 0 around it."""
    offset: Any = to_voxels[:3, 3]  # scipy's stubs know of single numbers only
    return affine_transform(array, to_voxels[:3, :3], offset, tuple(shape), order=1)


def _grid_around(
    framed: FramedVolume, axes: np.ndarray, spacing: float, move: np.ndarray | None = None
) -> tuple[np.ndarray, tuple[int, int, int]]:
    """Return affine and shape of a grid along some axes that holds the body of a volume, moved by an affine."""
    box = box_of(framed.foreground)
    assert box is not None, "a volume that can be registered shows a body"
    ends = [(side.start - 0.5, side.stop - 0.5) for side in box]
    corners = np.array([(*corner, 1.0) for corner in product(*ends)])
    to_space = (np.eye(4) if move is None else move) @ framed.volume.affine
    along = np.linalg.inv(axes) @ (corners @ to_space[:3].T).T
    margin = _MARGIN if spacing >= COARSE else spacing
    low, high = along.min(axis=1) - margin, along.max(axis=1) + margin
    i, j, k = (int(n) for n in np.ceil((high - low) / spacing))
    return _matrix(axes * spacing, axes @ (low + spacing / 2)), (i, j, k)


def _matrix(linear: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Return the affine (4, 4) of a linear part and an offset."""
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = linear, offset
    return matrix


def _anatomical_axes(volume: Volume) -> np.ndarray:
    """Return the axes of a volume's own grid as columns, the one that runs closest to R first, then A, then S."""
    orientation = io_orientation(volume.affine)
    order = np.argsort(orientation[:, 0])
    axes = volume.direction[:, order] * orientation[order, 1]
    left, _, right = np.linalg.svd(axes)  # a sheared grid gets the closest upright one
    return left @ right


def _can_register(framed: FramedVolume) -> bool:
    box = box_of(framed.foreground)
    return box is not None and all(side.stop - side.start >= _LEAST_SIDE for side in box)


def _is_plausible(linear: np.ndarray) -> bool:
    """Whether the linear part of a transform is one between two people in a scanner."""
    turn, stretch = _polar(linear)
    angle = np.degrees(np.arccos(np.clip((np.trace(turn) - 1) / 2, -1, 1)))
    return bool(stretch.min() >= 1 / MOST_STRETCH and stretch.max() <= MOST_STRETCH and angle <= MOST_TURN)


def _polar(linear: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rotation of a linear map, and how far it stretches along its own three directions."""
    left, stretch, right = np.linalg.svd(linear)
    return left @ right, stretch
