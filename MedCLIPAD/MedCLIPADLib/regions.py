"""Suspicious regions: connected parts of a map above the threshold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from MedCLIPADLib.grid import Slicing
from MedCLIPADLib.results import REGIONS, Result, mask

MOST = 200  # regions listed; a threshold near zero makes thousands of specks
_COLUMNS = ("Region", "Volume (ml)", "Peak", "Mean", "First slice", "Last slice", "Peak slice", "I", "J", "K")


@dataclass(frozen=True)
class Region:
    """volume: ml. peak, mean: map values. first, last: slice numbers. slice: of the peak. ijk: the peak's voxel."""

    volume: float
    peak: float
    mean: float
    first: int
    last: int
    slice: int
    ijk: tuple[int, int, int]


def find_regions(array: np.ndarray, slicing: Slicing, threshold: float) -> list[Region]:
    """Parts of a map [k, j, i] of at least `threshold` that touch by faces, largest first. For threads: no MRML."""
    from scipy import ndimage  # here, because Slicer imports every module when it starts

    above = mask(array, threshold)
    box = _bounding_box(above)
    if box is None:
        return []
    labels, count = ndimage.label(above[box])
    values = array[box]
    numbers = np.arange(1, count + 1)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[1:]
    order = np.argsort(-sizes, kind="stable")[:MOST]
    means = ndimage.mean(values, labels, numbers[order])
    places = ndimage.find_objects(labels)
    millilitres = abs(np.linalg.det(slicing.affine[:3, :3])) / 1000
    regions = []
    for row, number in enumerate(order):
        place = places[number]
        inside = np.where(labels[place] == number + 1, values[place], -np.inf)
        peak = np.unravel_index(int(inside.argmax()), inside.shape)
        kji = [int(p + inner.start + outer.start) for p, inner, outer in zip(peak, place, box)]
        axis = 2 - slicing.axis
        span = [place[axis].start + box[axis].start, place[axis].stop + box[axis].start - 1]
        ends = sorted(slicing.number(index) for index in span)
        regions.append(
            Region(
                float(sizes[number] * millilitres),
                float(inside.max()),
                float(means[row]),
                ends[0],
                ends[1],
                slicing.number(kji[axis]),
                (kji[2], kji[1], kji[0]),
            )
        )
    return regions


def store_regions(result: Result, regions: list[Region]) -> Any:
    """Write the regions to the result's table node; returns it."""
    import vtk

    node = result.need(REGIONS, "vtkMRMLTableNode", "regions")
    was = node.StartModify()
    node.RemoveAllColumns()
    rows = [
        (number + 1, r.volume, r.peak, r.mean, r.first, r.last, r.slice, *r.ijk) for number, r in enumerate(regions)
    ]
    for column, title in enumerate(_COLUMNS):
        array = vtk.vtkDoubleArray() if title in ("Volume (ml)", "Peak", "Mean") else vtk.vtkIntArray()
        array.SetName(title)
        for row in rows:
            array.InsertNextValue(row[column])
        node.AddColumn(array)
    node.EndModify(was)
    return node


def stored_regions(result: Result) -> list[Region]:
    """The regions as the result's table node has them."""
    node = result.reference(REGIONS)
    if node is None or node.GetNumberOfColumns() != len(_COLUMNS):
        return []
    table = node.GetTable()
    rows = [
        [table.GetValue(row, column) for column in range(1, len(_COLUMNS))] for row in range(table.GetNumberOfRows())
    ]
    number = lambda variant: variant.ToDouble()  # noqa: E731
    return [
        Region(
            *(number(v) for v in row[:3]), *(int(number(v)) for v in row[3:6]), tuple(int(number(v)) for v in row[6:])
        )
        for row in rows
    ]


def _bounding_box(above: np.ndarray) -> Any:
    """Slices around the voxels that are not 0, or None if there are none."""
    spans = []
    for axis in range(3):
        hits = np.flatnonzero(above.any(axis=tuple(other for other in range(3) if other != axis)))
        if not len(hits):
            return None
        spans.append(slice(int(hits[0]), int(hits[-1]) + 1))
    return tuple(spans)
