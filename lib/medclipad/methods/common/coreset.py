"""Greedy k-centre coresets: few points that lie near all others (Gonzalez 1985; Sener and Savarese 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

CHUNK = 10_000  # points among which survivors are chosen first: they fit the processor's cache
SURVIVORS = 3  # per point of the coreset


def farthest_points(points: Tensor, n: int, centres: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Choose points, each the farthest from those before it.

    Parameters
    ----------
    points
        (m, d).
    n
        Number of points to choose, at most m.
    centres
        (c, d), c ≥ 1, that count as chosen already. Without them the first point is chosen first.

    Returns
    -------
    indices
        int64 (n,), all different.
    distances
        (n,) of each point to the nearest of those before it when it was chosen; without centres the first is infinite.
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
    """Return the indices (n,) of points (m, d) that cover them all, n ≤ m.

    The farthest points of random chunks first, then the farthest of these: the whole would not fit the processor's
    cache.
    """
    chunks = torch.randperm(len(points), generator=generator).split(CHUNK)
    share = -(-SURVIVORS * n // len(chunks))
    survivors = torch.cat([chunk[farthest_points(points[chunk], min(share, len(chunk)))[0]] for chunk in chunks])
    return survivors[farthest_points(points[survivors], n)[0]]
