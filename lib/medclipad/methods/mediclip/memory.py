"""A memory of normal tokens beside the text map, for encoders whose tokens no text tower gave a meaning.

Not part of MediCLIP's paper. The head that MediCLIP learns from synthetic anomalies stands on CLIP's alignment of
images and words; on the embedded encoder it recognises pasted patches, but lesions poorly (try memory_share=0). The
distance to the nearest normal token, as in PatchCore (Roth et al., CVPR 2022) and MVFA's few-shot branch, needs none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CHUNK = 10_000  # tokens among which survivors are chosen first: they fit the processor's cache
SURVIVORS = 3  # per token that the memory holds
PROJECTED = 24  # dimensions in which the coreset is chosen (random projection, Johnson and Lindenstrauss)
BLOCK = 4096  # tokens compared at a time
NORMAL_QUANTILE = 0.999


class NormalMemory(nn.Module):
    """Tokens of normal slices, thinned to a coreset, and the distance of other tokens to the nearest of them.

    The maps of two stages, averaged over 3×3 neighbours, are brought to the finer grid and joined, each divided by the
    root of its width. The coreset is greedy (farthest point first), so that rare normal tissue is remembered too.
    """

    def __init__(self, widths: tuple[int, int], size: int) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.zeros(size, sum(widths), dtype=torch.float16))
        self.register_buffer("scale", torch.ones(()))

    @staticmethod
    def join(maps: list[Tensor]) -> Tensor:
        """(B, grid, grid, width) of the feature maps (B, C, g, g) of two stages, the finer one first."""
        grid = maps[0].shape[-1]
        smooth = [F.avg_pool2d(one.float(), 3, 1, 1, count_include_pad=False) for one in maps]
        same = [F.interpolate(one, (grid, grid), mode="bilinear") / one.shape[1] ** 0.5 for one in smooth]
        return torch.cat(same, dim=1).permute(0, 2, 3, 1)

    def remember(self, tokens: Tensor, generator: torch.Generator) -> None:
        """Keep a coreset of tokens (n, width), repeated if there are fewer than the memory holds."""
        projection = torch.randn(tokens.shape[1], PROJECTED, generator=generator)
        kept = tokens[coreset(tokens @ projection, min(len(tokens), len(self.tokens)), generator)]
        self.tokens.copy_(kept.repeat(-(-len(self.tokens) // len(kept)), 1)[: len(self.tokens)])

    def distance(self, tokens: Tensor) -> Tensor:
        """Euclidean distance (...) of tokens (..., width) to the nearest remembered one."""
        memory = self.tokens.float()
        squares = (memory * memory).sum(dim=1)
        flat = tokens.flatten(0, -2)
        nearest = [
            (torch.addmm(squares, block, memory.T, alpha=-2).amin(dim=1) + (block * block).sum(dim=1))
            for block in flat.split(BLOCK)
        ]
        return torch.cat(nearest).clamp_min(0).sqrt().view(tokens.shape[:-1])

    def calibrate(self, distances: Tensor) -> None:
        """Let the distance that one in a thousand of these normal tokens exceeds become a map value of 0.5."""
        ranked = distances.flatten().sort().values
        self.scale.fill_(2 * max(float(ranked[int(NORMAL_QUANTILE * (len(ranked) - 1))]), 1e-6))

    def forward(self, maps: list[Tensor], size: int) -> Tensor:
        """Map (B, size, size) in [0, 1] of the feature maps of two stages."""
        distance = self.distance(self.join(maps))
        return F.interpolate((distance / self.scale)[:, None], (size, size), mode="bilinear")[:, 0].clamp(0, 1)


def coreset(points: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Indices (n,) of points (m, d) that cover them, n ≤ m: the farthest of the farthest points of random chunks."""
    chunks = torch.randperm(len(points), generator=generator).split(CHUNK)
    share = -(-SURVIVORS * n // len(chunks))
    survivors = torch.cat([chunk[farthest_points(points[chunk], min(share, len(chunk)))] for chunk in chunks])
    return survivors[farthest_points(points[survivors], n)]


def farthest_points(points: Tensor, n: int) -> Tensor:
    """Indices (n,) of a greedy k-centre coreset of points (m, d), n ≤ m: each is the farthest from those before it."""
    squares = (points * points).sum(dim=1)
    chosen = torch.zeros(n, dtype=torch.long)
    gap = torch.full((len(points),), torch.inf)
    for place in range(1, n):
        last = int(chosen[place - 1])
        torch.minimum(gap, squares + squares[last] - 2 * (points @ points[last]), out=gap)
        chosen[place] = gap.argmax()
    return chosen
