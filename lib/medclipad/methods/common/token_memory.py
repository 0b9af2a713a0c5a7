"""The memory of normal tokens: the distance of a token to the nearest remembered one, by matrix products in blocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-8  # smallest norm, as in torch's cosine similarity
_BLOCK = (2048, 512)  # tokens × remembered tokens compared at once: 4 MB, which a processor's cache holds


class TokenMemory(nn.Module):
    """Normalised tokens of normal images, one bank per level; saved with the head."""

    def __init__(self, n_levels: int, width: int) -> None:
        super().__init__()
        self.n_levels = n_levels
        for level in range(n_levels):
            self.register_buffer(f"level{level}", torch.empty(0, width))

    def __getitem__(self, level: int) -> Tensor:
        """The bank of a level, (n, width), L2-normalised."""
        return getattr(self, f"level{level}")

    @property
    def sizes(self) -> list[int]:
        """Tokens in each bank."""
        return [len(self[level]) for level in range(self.n_levels)]

    def remember(self, level: int, tokens: Tensor) -> None:
        """Make tokens (n, width), normalised or not, the bank of a level."""
        setattr(self, f"level{level}", F.normalize(tokens, dim=-1, eps=_EPS))

    def distance(self, level: int, tokens: Tensor) -> Tensor:
        """Smallest 1 − cosine, (...), of tokens (..., width) to the bank of a level."""
        queries, bank = F.normalize(tokens, dim=-1, eps=_EPS).flatten(0, -2), self[level].split(_BLOCK[1])
        nearest = [
            torch.stack([(part @ block.T).amax(dim=1) for block in bank]).amax(dim=0)
            for part in queries.split(_BLOCK[0])
        ]
        return (1 - torch.cat(nearest)).reshape(tokens.shape[:-1])


def draw(tokens: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """At most `count` of the tokens (n, width), drawn without replacement."""
    if count >= len(tokens):
        return tokens
    return tokens[torch.randperm(len(tokens), generator=generator)[:count].to(tokens.device)]
