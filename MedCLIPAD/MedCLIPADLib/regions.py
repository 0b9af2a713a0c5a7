"""Suspicious regions: connected parts of a map above the threshold whose peak exceeds a limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from slicer.i18n import tr as _

from MedCLIPADLib.grid import Slicing, bounding_box
from MedCLIPADLib.results import REGIONS, Result, mask

_LIMIT = "MedCLIPAD.limit"  # attribute of the regions' table node
MAX_REGIONS = 200  # regions listed: a threshold near zero gives thousands of specks
_COLUMNS = (
    "Region", "Volume (ml)", "Extent (mm)", "Peak", "Mean", "Side", "First slice", "Last slice", "Peak slice",
    "I", "J", "K",
)  # fmt: skip
_REAL_COLUMNS = ("Volume (ml)", "Extent (mm)", "Peak", "Mean")  # the others are integers, but for the side
_MIDDLE = 0.2  # a peak less than this share of the half width from the middle is on neither side


@dataclass(frozen=True)
class Region:
    """A connected part of a map above the threshold.

    Attributes
    ----------
    volume : float
        Volume in ml.
    peak, mean : float
        Highest and mean value of the map in it.
    first, last : int
        Its first and last slice.
    slice : int
        Slice of the peak.
    ijk : tuple of int
        Voxel (i, j, k) of the peak.
    side : str
        Where in the body the peak lies, as the server says it, such as "right anterior upper".
    extent : float
        Its largest extent along the axes of the volume, in mm.
    """

    volume: float
    peak: float
    mean: float
    first: int
    last: int
    slice: int
    ijk: tuple[int, int, int]
    side: str
    extent: float


def label_regions(array: np.ndarray, threshold: float, limit: float | None = None) -> Any:
    """Return the regions of a map as labels. For any thread: no MRML.

    Parameters
    ----------
    array : (K, J, I) float32 array
        The map.
    threshold : float
        Lowest value in a region. Voxels that share a corner are connected.
    limit : float or None
        Value that the peak of a region exceeds.

    Returns
    -------
    labels : integer array
        Labels of all parts above the threshold, in `box`.
    numbers : (n,) array
        Labels whose peak exceeds the limit, that with the most voxels first.
    box : tuple of slice
        The smallest box around all parts. All three are None if nothing is above the threshold.
    """
    from scipy import ndimage  # here, because Slicer imports every module at startup

    above = mask(array, threshold)
    box = bounding_box(above)
    if box is None:
        return None, None, None
    found: Any = ndimage.label(above[box], np.ones((3, 3, 3)))
    labels, count = found
    numbers = np.argsort(-np.bincount(labels.ravel(), minlength=count + 1)[1:], kind="stable") + 1
    if limit is not None:
        exceeds = np.zeros(count + 1, bool)
        exceeds[labels[array[box] > limit]] = True  # much faster than the peak of each
        numbers = numbers[exceeds[numbers]]
    return labels, numbers, box


def find_regions(array: np.ndarray, slicing: Slicing, threshold: float, limit: float | None = None) -> list[Region]:
    """Return the regions of a map, largest first, at most 200. For any thread: no MRML.

    Parameters
    ----------
    array : (K, J, I) float32 array
        The map.
    slicing : Slicing
        Its slices.
    threshold, limit : float
        As in `label_regions`.
    """
    from scipy import ndimage

    labels, numbers, box = label_regions(array, threshold, limit)
    if box is None:
        return []
    values, boxes, body = array[box], ndimage.find_objects(labels), _body(array, slicing.affine)
    ml_per_voxel = abs(np.linalg.det(slicing.affine[:3, :3])) / 1000
    spacing = np.linalg.norm(slicing.affine[:3, :3], axis=0)[::-1]  # mm along k, j, i
    regions = []
    for number in numbers[:MAX_REGIONS]:
        near = boxes[number - 1]
        inside = labels[near] == number
        around = np.where(inside, values[near], -np.inf)
        peak = np.unravel_index(int(around.argmax()), around.shape)
        k, j, i = (int(index + part.start + whole.start) for index, part, whole in zip(peak, near, box))
        axis = 2 - slicing.axis
        span = [near[axis].start + box[axis].start, near[axis].stop + box[axis].start - 1]
        first, last = sorted(slicing.number(index) for index in span)
        regions.append(
            Region(
                volume=float(inside.sum() * ml_per_voxel),
                peak=float(around.max()),
                mean=float(values[near][inside].mean(dtype=float)),
                first=first,
                last=last,
                slice=slicing.number((k, j, i)[axis]),
                ijk=(i, j, k),
                side=_side((slicing.affine @ [i, j, k, 1])[:3], body),
                extent=float(max(size * mm for size, mm in zip(inside.shape, spacing))),
            )
        )
    return regions


def _body(array: np.ndarray, affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return centre and half size, in RAS mm, of the box around the body, where the map is not 0."""
    box = bounding_box(array > 0) or tuple(slice(0, size) for size in array.shape)
    spans = [(part.start, part.stop - 1) for part in reversed(box)]
    corners = np.array([[i, j, k] for i in spans[0] for j in spans[1] for k in spans[2]])
    world = corners @ affine[:3, :3].T + affine[:3, 3]
    low, high = world.min(axis=0), world.max(axis=0)
    return (low + high) / 2, np.maximum((high - low) / 2, 1e-6)


def _side(point: np.ndarray, body: tuple[np.ndarray, np.ndarray]) -> str:
    """Return where in the body a point in RAS lies, in the server's words."""
    r, a, s = (point - body[0]) / body[1]
    words = ["right" if r > _MIDDLE else "left" if r < -_MIDDLE else "midline"]
    words += ["anterior"] * bool(a > 1 / 3) + ["posterior"] * bool(a < -1 / 3)
    words += ["upper"] * bool(s > 1 / 3) + ["lower"] * bool(s < -1 / 3)
    return " ".join(words)


def side_in_words(side: str) -> str:
    """Return a region's side in the language of the application."""
    words = {
        "right": _("right"),
        "left": _("left"),
        "midline": _("midline"),
        "anterior": _("anterior"),
        "posterior": _("posterior"),
        "upper": _("upper"),
        "lower": _("lower"),
    }
    return " ".join(words.get(word, word) for word in side.split())


def store_regions(result: Result, regions: list[Region], limit: float | None = None) -> Any:
    """Write regions, and the limit that their peaks exceed, to the result's table node; return the node."""
    import vtk

    node = result.require_reference(REGIONS, "vtkMRMLTableNode", "regions")
    was = node.StartModify()
    node.SetAttribute(_LIMIT, _as_text(limit))
    node.RemoveAllColumns()
    rows = [
        (number + 1, r.volume, r.extent, r.peak, r.mean, r.side, r.first, r.last, r.slice, *r.ijk)
        for number, r in enumerate(regions)
    ]
    for column, title in enumerate(_COLUMNS):
        array: Any = vtk.vtkDoubleArray() if title in _REAL_COLUMNS else vtk.vtkIntArray()
        if title == "Side":
            array = vtk.vtkStringArray()
        array.SetName(title)
        for row in rows:
            array.InsertNextValue(row[column])
        node.AddColumn(array)
    node.EndModify(was)
    return node


def stored_regions(result: Result, limit: float | None = None) -> list[Region] | None:
    """Return the regions in the result's table node; None if they are not those above this limit."""
    node = result.reference(REGIONS)
    if node is None or node.GetNumberOfColumns() != len(_COLUMNS) or node.GetAttribute(_LIMIT) != _as_text(limit):
        return None
    table = node.GetTable()
    regions = []
    for row in range(table.GetNumberOfRows()):
        cells = [table.GetValue(row, column) for column in range(1, len(_COLUMNS))]
        volume, extent, peak, mean = (cell.ToDouble() for cell in cells[:4])
        first, last, number, i, j, k = (int(cell.ToDouble()) for cell in cells[5:])
        regions.append(Region(volume, peak, mean, first, last, number, (i, j, k), cells[4].ToString(), extent))
    return regions


def _as_text(limit: float | None) -> str:
    return "none" if limit is None else f"{limit:.6g}"
