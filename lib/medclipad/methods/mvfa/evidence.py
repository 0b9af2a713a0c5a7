"""What MVFA computes on images before scaling: adapted tokens and evidence, and how evidence is scaled over a set."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

_EPS = 1e-12  # smallest length that a token is divided by, as in torch's normalize
_Array = TypeVar("_Array", np.ndarray, Tensor)


class Level(NamedTuple):
    """Tokens of a stage, before and after adaptation.

    Attributes
    ----------
    before
        Output of the stage, (B, n_prefix + grid², width).
    after
        The same, blended with the adapters' output: the input of the next stage. None if not asked for.
    seg, det
        Features of each head, (B, n_prefix + grid², embed_dim); None if not asked for.
    """

    before: Tensor
    after: Tensor | None
    seg: Tensor | None
    det: Tensor | None


class Features(NamedTuple):
    """Adapted tokens of all levels.

    Attributes
    ----------
    seg, det
        Features of each level for pixel maps and for image scores, (B, n_prefix + grid², embed_dim). Empty if a head
        was not asked for.
    """

    seg: list[Tensor]
    det: list[Tensor]


class Evidence(NamedTuple):
    """What speaks for an anomaly, before scaling: sums over the levels.

    Zero-shot evidence comes from the prompts, a probability for each level. Few-shot evidence comes from the memory, a
    distance 1 − cosine for each level.

    Attributes
    ----------
    zero_map
        (B, S, S) in [0, levels], of the head in use.
    few_map
        (B, S, S) in [0, 2 levels], of the head in use.
    zero_score
        (B,), mean over the patches of the det head.
    few_score
        (B,), mean of `few_map`.
    """

    zero_map: Tensor
    few_map: Tensor
    zero_score: Tensor
    few_score: Tensor


def cosine(tokens: Tensor, text: Tensor) -> Tensor:
    """Return the cosine (..., n) of tokens (..., embed_dim) with unit vectors (embed_dim, n).

    Where a gradient is needed, the lengths divide at the end: the gradient of unit tokens, many more numbers, costs
    more than everything else in a step on the embedded encoder. Elsewhere the rounding is the reference code's.
    """
    if not tokens.requires_grad:
        return F.normalize(tokens, dim=-1) @ text
    return tokens @ text / torch.linalg.vector_norm(tokens, dim=-1, keepdim=True).clamp(min=_EPS)


def combine(zero: _Array, few: _Array) -> _Array:
    """Return the mean of zero- and few-shot evidence, each scaled to [0, 1] over the whole array.

    Over a test set this is the reference code's final score.

    Examples
    --------
    >>> combine(np.array([1.0, 2.0, 3.0]), np.array([0.0, 4.0, 4.0])).tolist()
    [0.0, 0.75, 1.0]
    """
    return (unit_range(zero) + unit_range(few)) / 2


def unit_range(values: _Array) -> _Array:
    """Return values scaled to [0, 1] by the least and greatest of the whole array; all 0 if they are equal."""
    span = values.max() - values.min()
    scaled = (values - values.min()) / span if span > 0 else values * 0
    return scaled  # pyright: ignore[reportReturnType] (numpy's min and max are typed as Any)


def extremes(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Return the least and the greatest value of each field of the evidence, (4,) each."""
    return torch.stack([x.min() for x in evidence]), torch.stack([x.max() for x in evidence])
