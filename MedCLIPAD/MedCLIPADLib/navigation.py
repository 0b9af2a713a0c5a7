"""From slice numbers and voxels to positions in the slice views, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from MedCLIPADLib.results import Result

_TILT = 0.999  # cosine of the angle between a view and a volume's slices below which the volume counts as tilted
_PROMINENCE = 0.1  # how far a peak must stand out, as a fraction of the range of the scores


def peaks(scores: np.ndarray) -> list[int]:
    """Return the slices whose score is a peak, in slice order.

    Parameters
    ----------
    scores : float array
        Score of each slice; nan for skipped slices.
    """
    from scipy.signal import find_peaks

    known = np.isfinite(scores)
    if not known.any():
        return []
    low, high = scores[known].min(), scores[known].max()
    if low == high:
        return []
    filled = np.concatenate([[low], np.where(known, scores, low), [low]])
    return [int(index) - 1 for index in find_peaks(filled, prominence=_PROMINENCE * (high - low))[0]]


def next_peak(scores: np.ndarray, current: int | None, step: int = 1) -> int | None:
    """Return the peak after or before a slice.

    Parameters
    ----------
    scores : float array
        Score of each slice; nan for skipped slices.
    current : int or None
        The slice; None if the views are outside the volume.
    step : int
        1 for the next peak, -1 for the previous one.

    Returns
    -------
    int or None
        The first peak follows the last one. None if there is no peak.
    """
    found = peaks(scores)
    if not found:
        return None
    if step > 0:
        later = [number for number in found if current is None or number > current]
        return later[0] if later else found[0]
    earlier = [number for number in found if current is not None and number < current]
    return earlier[-1] if earlier else found[-1]


def hottest(result: Result, number: int) -> tuple[int, int, int]:
    """Return the voxel (i, j, k) of a slice's highest value.

    It is the centre of the slice if the map is 0 there.
    """
    slicing = result.slicing
    index = slicing.index(number)
    layer = np.take(result.array, index, axis=2 - slicing.axis)
    if layer.max() > 0:
        kji = [int(n) for n in np.unravel_index(int(layer.argmax()), layer.shape)]
    else:
        kji = [n // 2 for n in layer.shape]
    kji.insert(2 - slicing.axis, index)
    return kji[2], kji[1], kji[0]


def to_world(result: Result, ijk: Any) -> np.ndarray:
    """Return the RAS position of a voxel (i, j, k), with the parent transforms."""
    point = (result.affine @ [*ijk, 1.0])[:3]
    world = [0.0, 0.0, 0.0]
    result.node.TransformPointToWorld(point.tolist(), world)
    return np.array(world)


def from_world(result: Result, world: Any) -> np.ndarray:
    """Return the voxel coordinates (i, j, k), not rounded, of an RAS position.

    Parent transforms are taken into account.
    """
    point = [0.0, 0.0, 0.0]
    result.node.TransformPointFromWorld([float(v) for v in world], point)
    return (np.linalg.inv(result.affine) @ [*point, 1.0])[:3]


def jump(result: Result, ijk: Any) -> None:
    """Move all slice views to a voxel (i, j, k)."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(
        slicer.mrmlScene, *to_world(result, ijk), slicer.vtkMRMLSliceNode.OffsetJumpSlice
    )


def jump_to_slice(result: Result, number: int) -> None:
    """Move all slice views to the highest voxel of a slice."""
    jump(result, hottest(result, number))


def normal(result: Result) -> np.ndarray:
    """Return the unit vector across the slices; its sign is not defined.

    It is in RAS, with the parent transforms.
    """
    ahead = [0, 0, 0]
    ahead[result.slicing.axis] = 1
    along = to_world(result, ahead) - to_world(result, [0, 0, 0])
    return along / np.linalg.norm(along)


def view_of(result: Result, in_layout: bool = False) -> Any:
    """Return the vtkMRMLSliceNode closest to the analysed plane; None without views.

    Parameters
    ----------
    result : Result
        The map.
    in_layout : bool
        Whether to choose from the views of the layout alone.
    """
    axis = normal(result)
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    nodes = [node for node in nodes if node.GetSliceToRAS() and (node.IsMappedInLayout() or not in_layout)]
    return max(nodes, key=lambda node: abs(_view_normal(node) @ axis)) if nodes else None


def current_slice(result: Result) -> int | None:
    """Return the slice that the view of the analysed plane shows.

    It is None if the view is outside the volume.
    """
    view = view_of(result)
    if view is None:
        return None
    middle = [view.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    return result.slicing.of_point(from_world(result, middle))


def align_views(result: Result) -> bool:
    """Rotate the slice views to the volume's axes if the volume is oblique.

    Otherwise a view would cut through several analysed slices. Returns whether that was needed.

    Otherwise a view would cut through several analysed slices.
    """
    view = view_of(result)
    if view is None or abs(_view_normal(view) @ normal(result)) > _TILT:
        return False
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.RotateToVolumePlane(result.node)
    return True


def _view_normal(view: Any) -> np.ndarray:
    """Return the unit vector across a slice view, in RAS."""
    matrix = view.GetSliceToRAS()
    return np.array([matrix.GetElement(row, 2) for row in range(3)])
