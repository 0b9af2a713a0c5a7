"""Walk through whole volumes block by block, so that no step needs a second copy of them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

_BLOCK = 1 << 20  # voxels: some MB a block, large enough for numpy's speed


def blocks(array: np.ndarray, *others: np.ndarray) -> Iterator[tuple[np.ndarray, ...]]:
    """Yield views of several arrays of one shape, some slices along the slowest axis of the first at a time.

    Parameters
    ----------
    array
        Array whose memory order decides how the blocks are cut.
    *others
        Further arrays of the same shape.

    Yields
    ------
    tuple of numpy.ndarray
        The same block of each array, with axes in the memory order of `array`.
    """
    order = np.argsort([-abs(stride) for stride in array.strides], kind="stable")
    arrays = [each.transpose(order) for each in (array, *others)]
    step = max(1, _BLOCK * len(arrays[0]) // max(1, array.size))
    for start in range(0, len(arrays[0]), step):
        yield tuple(each[start : start + step] for each in arrays)


def finite_values(array: np.ndarray, mask: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Yield the finite values of an array block by block in memory order, each block of shape (n,).

    Parameters
    ----------
    array
        Array of any real dtype.
    mask
        Bool array of the same shape; only values where it is True are yielded.
    """
    for block, *inside in blocks(array, *(() if mask is None else (mask,))):
        values = block[inside[0]] if inside else block.ravel()
        yield values if array.dtype.kind in "bui" else values[np.isfinite(values)]


def finite_range(array: np.ndarray) -> tuple[float, float] | None:
    """Return the lowest and highest finite value, or None if there is none."""
    ends = [(float(values.min()), float(values.max())) for values in finite_values(array) if values.size]
    return (min(low for low, _ in ends), max(high for _, high in ends)) if ends else None


def finite_sample(array: np.ndarray, size: int, mask: np.ndarray | None = None) -> np.ndarray:
    """Return a random sample of the finite values, the same one at each call.

    Parameters
    ----------
    array
        Array of any real dtype.
    size
        Largest number of values to return; if there are no more finite values, all of them are returned.
    mask
        Bool array of the same shape; only values where it is True are sampled.

    Returns
    -------
    numpy.ndarray
        (n,) float64 with n <= `size`.
    """
    count = sum(values.size for values in finite_values(array, mask))
    if count <= size:
        return np.concatenate([np.empty(0), *(values.astype(np.float64) for values in finite_values(array, mask))])
    chosen = np.sort(np.random.default_rng(0).integers(count, size=size))
    parts, start = [], 0
    for values in finite_values(array, mask):
        first, last = np.searchsorted(chosen, (start, start + values.size))
        parts.append(values[chosen[first:last] - start].astype(np.float64))
        start += values.size
    return np.concatenate(parts)
