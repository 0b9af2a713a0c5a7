"""Suspicious regions: connected parts of a map above the threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from MedCLIPADLib.grid import Slicing, bounding_box
from MedCLIPADLib.results import REGIONS, Result, mask

MAX_REGIONS = 200  # regions listed: a threshold near zero gives thousands of specks
_COLUMNS = ("Region", "Volume (ml)", "Peak", "Mean", "First slice", "Last slice", "Peak slice", "I", "J", "K")
_REAL_COLUMNS = ("Volume (ml)", "Peak", "Mean")  # the others are integers


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
    """

    volume: float
    peak: float
    mean: float
    first: int
    last: int
    slice: int
    ijk: tuple[int, int, int]


def find_regions(array: np.ndarray, slicing: Slicing, threshold: float) -> list[Region]:
    """Return the regions of a map, largest first. For any thread: no MRML.

    Parameters
    ----------
    array : (K, J, I) float32 array
        The map.
    slicing : Slicing
        Its slices.
    threshold : float
        Lowest value in a region. Voxels that share a face are connected.
    """
    from scipy import ndimage  # here, because Slicer imports every module at startup

    above = mask(array, threshold)
    box = bounding_box(above)
    if box is None:
        return []
    labels, count = ndimage.label(above[box])  # pyright: ignore[reportGeneralTypeIssues]: SciPy's type is a union
    values = array[box]
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")[:MAX_REGIONS]
    means = ndimage.mean(values, labels, order + 1)
    boxes = ndimage.find_objects(labels)
    ml_per_voxel = abs(np.linalg.det(slicing.affine[:3, :3])) / 1000
    regions = []
    for row, number in enumerate(order):
        inner = boxes[number]
        inside = np.where(labels[inner] == number + 1, values[inner], -np.inf)
        peak = np.unravel_index(int(inside.argmax()), inside.shape)
        k, j, i = (int(index + near.start + far.start) for index, near, far in zip(peak, inner, box))
        axis = 2 - slicing.axis
        span = [inner[axis].start + box[axis].start, inner[axis].stop + box[axis].start - 1]
        first, last = sorted(slicing.number(index) for index in span)
        regions.append(
            Region(
                volume=float(sizes[number] * ml_per_voxel),
                peak=float(inside.max()),
                mean=float(means[row]),
                first=first,
                last=last,
                slice=slicing.number((k, j, i)[axis]),
                ijk=(i, j, k),
            )
        )
    return regions


def store_regions(result: Result, regions: list[Region]) -> Any:
    """Write regions to the result's table node and return the node."""
    import vtk

    node = result.require_reference(REGIONS, "vtkMRMLTableNode", "regions")
    was = node.StartModify()
    node.RemoveAllColumns()
    rows = [
        (number + 1, r.volume, r.peak, r.mean, r.first, r.last, r.slice, *r.ijk) for number, r in enumerate(regions)
    ]
    for column, title in enumerate(_COLUMNS):
        array: Any = vtk.vtkDoubleArray() if title in _REAL_COLUMNS else vtk.vtkIntArray()
        array.SetName(title)
        for row in rows:
            array.InsertNextValue(row[column])
        node.AddColumn(array)
    node.EndModify(was)
    return node


def stored_regions(result: Result) -> list[Region]:
    """Return the regions in the result's table node."""
    node = result.reference(REGIONS)
    if node is None or node.GetNumberOfColumns() != len(_COLUMNS):
        return []
    table = node.GetTable()
    regions = []
    for row in range(table.GetNumberOfRows()):
        volume, peak, mean, *whole = [table.GetValue(row, column).ToDouble() for column in range(1, len(_COLUMNS))]
        first, last, number, i, j, k = map(int, whole)
        regions.append(Region(volume, peak, mean, first, last, number, (i, j, k)))
    return regions
