"""A memory of normal tokens, and the distance of a token to the nearest remembered one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-8  # smallest norm, as in torch's cosine similarity
BLOCK = (1024, 512)  # tokens × remembered tokens compared at once: 2 MB, which a processor's cache holds


class TokenMemory(nn.Module):
    """Normalised tokens of normal images, one bank for each level; saved with the head."""

    def __init__(self, n_levels: int, width: int) -> None:
        super().__init__()
        self.n_levels = n_levels
        for level in range(n_levels):
            self.register_buffer(f"level{level}", torch.empty(0, width))

    def __getitem__(self, level: int) -> Tensor:
        """Return the bank of a level, (n, width), L2-normalised."""
        return getattr(self, f"level{level}")

    @property
    def sizes(self) -> list[int]:
        """Number of tokens in each bank."""
        return [len(self[level]) for level in range(self.n_levels)]

    def remember(self, level: int, tokens: Tensor) -> None:
        """Make tokens (n, width), normalised or not, the bank of a level."""
        setattr(self, f"level{level}", F.normalize(tokens, dim=-1, eps=_EPS))

    def distance(self, level: int, tokens: Tensor) -> Tensor:
        """Return the smallest 1 − cosine (...) of tokens (..., width) to the bank of a level."""
        queries = F.normalize(tokens, dim=-1, eps=_EPS).flatten(0, -2)
        return (1 - _largest_product(queries, self[level])).reshape(tokens.shape[:-1])


def nearest_distance(tokens: Tensor, bank: Tensor) -> Tensor:
    """Return the Euclidean distance (...) of tokens (..., width) to the nearest of a bank (n, width)."""
    flat = tokens.flatten(0, -2)
    # x·m − m²/2 is greatest where the distance is least.
    best = _largest_product(flat, bank, (bank * bank).sum(dim=1) / 2)
    squared = (flat * flat).sum(dim=1) - 2 * best
    return squared.clamp_min(0).sqrt().view(tokens.shape[:-1])


def _largest_product(queries: Tensor, bank: Tensor, less: Tensor | None = None) -> Tensor:
    """Return the largest of q·m, or q·m − `less`, over a bank (n, width), for each of the queries (q, width)."""
    banks = bank.split(BLOCK[1])
    offsets = [None] * len(banks) if less is None else list(less.split(BLOCK[1]))

    def largest(part: Tensor, block: Tensor, offset: Tensor | None) -> Tensor:
        products = part @ block.T
        return (products if offset is None else products.sub_(offset)).amax(dim=1)

    parts = [
        torch.stack([largest(part, block, offset) for block, offset in zip(banks, offsets, strict=True)]).amax(dim=0)
        for part in queries.split(BLOCK[0])
    ]
    return torch.cat(parts)


def draw(tokens: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Return at most `count` of the tokens (n, width), drawn without replacement."""
    if count >= len(tokens):
        return tokens
    return tokens[torch.randperm(len(tokens), generator=generator)[:count].to(tokens.device)]
