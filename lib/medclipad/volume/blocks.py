"""Whole volumes a block at a time, so that no step needs a second copy of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 20  # voxels


def blocks(array: np.ndarray, *others: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Views of an array and of `others` of its shape, some slices along the slowest axis of `array` at a time."""
    order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
    arrays = [one.transpose(order) for one in (array, *others)]
    step = max(1, _BLOCK * len(arrays[0]) // max(1, array.size))
    for start in range(0, len(arrays[0]), step):
        yield tuple(one[start : start + step] for one in arrays)


def finite_values(array: np.ndarray, where: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """The values that are neither NaN nor infinite, a block (n,) at a time, in memory order; only those of a mask."""
    for block, *inside in blocks(array, *(() if where is None else (where,))):
        values = block[inside[0]] if inside else block.ravel()
        yield values if array.dtype.kind in "bui" else values[np.isfinite(values)]


def finite_range(array: np.ndarray) -> tuple[float, float] | None:
    """Lowest and highest finite value, None if there is none."""
    ends = [(float(values.min()), float(values.max())) for values in finite_values(array) if values.size]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


def finite_sample(array: np.ndarray, most: int, where: np.ndarray | None = None) -> np.ndarray:
    """(n,) at most `most` of the finite values, as float64, the same ones at each call: enough for a histogram."""
    count = sum(values.size for values in finite_values(array, where))
    if count <= most:
        return np.concatenate([np.empty(0), *(values.astype(np.float64) for values in finite_values(array, where))])
    chosen = np.sort(np.random.default_rng(0).integers(count, size=most))
    parts, start = [], 0
    for values in finite_values(array, where):
        first, last = np.searchsorted(chosen, (start, start + values.size))
        parts.append(values[chosen[first:last] - start].astype(np.float64))
        start += values.size
    return np.concatenate(parts)
