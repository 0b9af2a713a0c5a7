"""From slice numbers and voxels to the slice views, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import slicer

from MedCLIPADLib.results import Result

_TILT = 0.999  # cosine of the angle between a view and a volume's slices, below which they count as tilted
_PROMINENCE = 0.1  # of the range of the scores: how far a peak must stand out


def peaks(scores: np.ndarray) -> list[int]:
    """Numbers of the slices whose score is a peak, in slice order. scores: float64, nan where skipped."""
    from scipy.signal import find_peaks

    known = np.isfinite(scores)
    if not known.any():
        return []
    low, high = scores[known].min(), scores[known].max()
    if low == high:
        return []
    filled = np.concatenate([[low], np.where(known, scores, low), [low]])
    return [int(place) - 1 for place in find_peaks(filled, prominence=_PROMINENCE * (high - low))[0]]


def next_peak(scores: np.ndarray, current: int | None, step: int = 1) -> int | None:
    """The next peak after slice `current` (before it for step -1), round the end; None if there is none."""
    found = peaks(scores)
    if not found:
        return None
    if step > 0:
        later = [number for number in found if current is None or number > current]
        return later[0] if later else found[0]
    earlier = [number for number in found if current is not None and number < current]
    return earlier[-1] if earlier else found[-1]


def hottest(result: Result, number: int) -> tuple[int, int, int]:
    """(i, j, k) of the highest voxel of a slice; of its middle if the slice is empty."""
    slicing = result.slicing
    index = slicing.index(number)
    layer = np.take(result.array, index, axis=2 - slicing.axis)
    if layer.max() > 0:
        place = list(np.unravel_index(int(layer.argmax()), layer.shape))
    else:
        place = [n // 2 for n in layer.shape]
    place.insert(2 - slicing.axis, index)
    return int(place[2]), int(place[1]), int(place[0])


def to_world(result: Result, ijk: Any) -> np.ndarray:
    """RAS of a voxel as the views have it: with the parent transform."""
    point = (result.affine @ [*ijk, 1.0])[:3]
    world = [0.0, 0.0, 0.0]
    result.node.TransformPointToWorld(point.tolist(), world)
    return np.array(world)


def from_world(result: Result, world: Any) -> np.ndarray:
    """Voxel coordinates (not rounded) of a point of the views."""
    point = [0.0, 0.0, 0.0]
    result.node.TransformPointFromWorld([float(v) for v in world], point)
    return (np.linalg.inv(result.affine) @ [*point, 1.0])[:3]


def jump(result: Result, ijk: Any) -> None:
    """Move all slice views to a voxel."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(
        slicer.mrmlScene, *to_world(result, ijk), slicer.vtkMRMLSliceNode.OffsetJumpSlice
    )


def jump_to_slice(result: Result, number: int) -> None:
    """Move all slice views to the highest voxel of a slice."""
    jump(result, hottest(result, number))


def normal(result: Result) -> np.ndarray:
    """Unit vector (RAS, with the parent transform) along which the slice numbers grow or fall."""
    ahead = [0, 0, 0]
    ahead[result.slicing.axis] = 1
    along = to_world(result, ahead) - to_world(result, [0, 0, 0])
    return along / np.linalg.norm(along)


def view_of(result: Result) -> Any:
    """The slice view (vtkMRMLSliceNode) that shows the analysed slices, or the closest to it."""
    axis = normal(result)
    nodes = [node for node in slicer.util.getNodesByClass("vtkMRMLSliceNode") if node.GetSliceToRAS()]
    return max(nodes, key=lambda node: abs(_view_normal(node) @ axis)) if nodes else None


def current_slice(result: Result) -> int | None:
    """Number of the slice at the middle of the view that shows the analysed plane; None beside the volume."""
    view = view_of(result)
    if view is None:
        return None
    middle = [view.GetSliceToRAS().GetElement(row, 3) for row in range(3)]
    return result.slicing.of_point(from_world(result, middle))


def align_views(result: Result) -> bool:
    """Turn the slice views to the volume's own axes if it is oblique or turned by a transform; whether that was needed.

    Otherwise one view would cut through several analysed slices.
    """
    view = view_of(result)
    if view is None or abs(_view_normal(view) @ normal(result)) > _TILT:
        return False
    for node in slicer.util.getNodesByClass("vtkMRMLSliceNode"):
        node.RotateToVolumePlane(result.node)
    return True


def _view_normal(view: Any) -> np.ndarray:
    matrix = view.GetSliceToRAS()
    return np.array([matrix.GetElement(row, 2) for row in range(3)])
