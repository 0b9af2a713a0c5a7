"""Memories of normal tokens: the distance of a token to the nearest remembered one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-8  # smallest norm, as in torch's cosine similarity
BLOCK = (1024, 512)  # tokens × remembered tokens compared at once: 2 MB, which fit in the processor's cache


class TokenMemory(nn.Module):
    """L2-normalised tokens of normal images, one bank for each level, compared by their cosine.

    `memory[level]` is the bank (n, width) of a level. The banks are buffers, so they are saved with the head.

    Parameters
    ----------
    n_levels
        Number of levels.
    width
        Width of a token.

    Attributes
    ----------
    n_levels
        Number of levels.
    """

    def __init__(self, n_levels: int, width: int) -> None:
        super().__init__()
        self.n_levels = n_levels
        for level in range(n_levels):
            self.register_buffer(f"level{level}", torch.empty(0, width))
        self._volumes: dict[int, Tensor] = {}  # of each level, the volume that each token comes from, int64 (n,)
        self._in_use: dict[int, Tensor] = {}  # of each level, the tokens that are not left out

    def __getitem__(self, level: int) -> Tensor:
        """Return the bank of a level, (n, width), L2-normalised."""
        return getattr(self, f"level{level}")

    @property
    def sizes(self) -> list[int]:
        """Number of tokens in each bank."""
        return [len(self[level]) for level in range(self.n_levels)]

    def remember(self, level: int, tokens: Tensor, volumes: Tensor | None = None) -> None:
        """Make tokens the bank of a level; they replace what was there.

        Parameters
        ----------
        level
            Level, from 0.
        tokens
            (n, width), normalised or not.
        volumes
            Number of the volume that each token comes from, int64 (n,), for `leave_out`.
        """
        setattr(self, f"level{level}", F.normalize(tokens, dim=-1, eps=_EPS))
        self._volumes.pop(level, None)
        if volumes is not None:
            self._volumes[level] = volumes.to(tokens.device)

    def leave_out(self, volume: int | None) -> None:
        """Forget the tokens of a volume for now, or None; those of a level stay if it has no others."""
        self._in_use = {}
        for level, volumes in self._volumes.items() if volume is not None else ():
            others = self[level][volumes != volume]
            if len(others):
                self._in_use[level] = others

    def distance(self, level: int, tokens: Tensor) -> Tensor:
        """Return the cosine distance of tokens to the nearest one in the bank of a level.

        Parameters
        ----------
        level
            Level, from 0.
        tokens
            (..., width), normalised or not.

        Returns
        -------
        Tensor
            1 − cosine, (...), in [0, 2].
        """
        queries = F.normalize(tokens, dim=-1, eps=_EPS).flatten(0, -2)
        bank = self._in_use.get(level, self[level])
        return (1 - _largest_product(queries, bank)).reshape(tokens.shape[:-1])


def nearest_distance(tokens: Tensor, bank: Tensor, compared: Tensor | None = None) -> Tensor:
    """Return the Euclidean distance of tokens to the nearest one in a bank.

    Parameters
    ----------
    tokens
        (..., width).
    bank
        (n, width), n ≥ 1.
    compared
        Which of the bank are compared, bool (n,), at least one; None: all.

    Returns
    -------
    Tensor
        (...).
    """
    flat = tokens.flatten(0, -2)
    # x·m − m²/2 is greatest where the distance is least.
    offset = (bank * bank).sum(dim=1) / 2
    if compared is not None:
        offset = offset.masked_fill(~compared, float("inf"))
    best = _largest_product(flat, bank, offset)
    squared = (flat * flat).sum(dim=1) - 2 * best
    return squared.clamp_min(0).sqrt().view(tokens.shape[:-1])


def _largest_product(queries: Tensor, bank: Tensor, offset: Tensor | None = None) -> Tensor:
    """Return the largest q·m, or q·m − offset (n,), over a bank (n, width), for each of the queries (q, width)."""
    banks = bank.split(BLOCK[1])
    offsets = [None] * len(banks) if offset is None else list(offset.split(BLOCK[1]))

    def largest(part: Tensor, block: Tensor, block_offset: Tensor | None) -> Tensor:
        products = part @ block.T
        return (products if block_offset is None else products.sub_(block_offset)).amax(dim=1)

    parts = [
        torch.stack([largest(part, *block) for block in zip(banks, offsets, strict=True)]).amax(dim=0)
        for part in queries.split(BLOCK[0])
    ]
    return torch.cat(parts)


def draw(n: int, count: int, generator: torch.Generator) -> Tensor:
    """Draw numbers below `n` without replacement.

    Parameters
    ----------
    n
        How many there are.
    count
        How many to draw. If there are no more, all are returned, in their order.
    generator
        Source of the draw.

    Returns
    -------
    Tensor
        int64 (min(count, n),).
    """
    return torch.arange(n) if count >= n else torch.randperm(n, generator=generator)[:count]
