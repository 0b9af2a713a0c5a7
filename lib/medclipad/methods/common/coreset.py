"""Greedy k-centre coresets: few points that lie near all others (Gonzalez 1985; Sener and Savarese 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 10_000  # points in a chunk of `coreset`: they fit in the processor's cache
PROJECTED = 24  # dimensions in which points are chosen well enough (Johnson and Lindenstrauss)
SURVIVORS = 3  # points that the chunks keep for each point of the coreset


def farthest_points(points: Tensor, n: int, centres: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Choose points, each the farthest from those chosen before it.

    Parameters
    ----------
    points
        (m, d).
    n
        Number of points to choose, at most m.
    centres
        (c, d), c ≥ 1, which count as already chosen. Without them the first point is chosen first.

    Returns
    -------
    indices
        int64 (n,), all different.
    distances
        (n,). Euclidean distance of each chosen point to the nearest one chosen before it; without centres the first
        distance is infinite.
    """
    squares = (points * points).sum(dim=1)
    chosen, distances = torch.zeros(n, dtype=torch.long), torch.zeros(n, dtype=points.dtype)
    gap = torch.full((len(points),), torch.inf, dtype=points.dtype)
    if centres is not None:
        gap = torch.cdist(points, centres).square().amin(dim=1)
    for index in range(n):
        best = int(gap.argmax())
        chosen[index], distances[index] = best, gap[best].clamp_min(0).sqrt()
        if index < n - 1:
            torch.minimum(gap, squares + squares[best] - 2 * (points @ points[best]), out=gap)
            gap[best] = -torch.inf
    return chosen, distances


def coreset(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Choose points that cover all others.

    Parameters
    ----------
    points
        (m, d).
    n
        Number of points to choose, at most m.
    generator
        Shuffles the points into chunks.

    Returns
    -------
    Tensor
        Indices int64 (n,), all different.

    Notes
    -----
    Each random chunk keeps its farthest points, and the coreset is chosen among these: all points at once would not
    fit in the processor's cache.
    """
    chunks = torch.randperm(len(points), generator=generator).split(CHUNK)
    share = -(-SURVIVORS * n // len(chunks))
    survivors = torch.cat([chunk[farthest_points(points[chunk], min(share, len(chunk)))[0]] for chunk in chunks])
    return survivors[farthest_points(points[survivors], n)[0]]
