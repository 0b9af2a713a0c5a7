"""MediCLIP's prompts: learnable tokens before words for health and disease (Zhang et al. 2024, 2.2 and table S1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.encoders import ImageEncoder

NORMAL_WORDS = (
    "normal",
    "healthy",
    "negative",
    "unremarkable",
    "clear",
    "asymptomatic",
    "normal findings",
    "no findings",
    "in good health",
    "no evidence of disease",
)
ABNORMAL_WORDS = (
    "abnormal",
    "positive",
    "symptomatic",
    "disease",
    "lesion",
    "pathological",
    "impaired",
    "evidence of disease",
    "abnormal finding",
    "pathological condition",
    "pathological abnormality",
)
N_CONTEXT = 8


class LearnablePrompts(nn.Module):
    """Prompts [start][8 learnable tokens][word.][end], one context of its own for each word.

    The text tower runs without its causal mask, so that the padding takes part, as in the reference code.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        """Contexts drawn from N(0, 0.02²); `encoder` must have a text tower."""
        super().__init__()
        self._text = encoder.text
        self.normal_context = nn.Parameter(torch.randn(len(NORMAL_WORDS), N_CONTEXT, self._text.width) * 0.02)
        self.abnormal_context = nn.Parameter(torch.randn(len(ABNORMAL_WORDS), N_CONTEXT, self._text.width) * 0.02)
        self._fixed: dict[str, tuple[Tensor, Tensor]] = {}

    def tokens(self, kind: str) -> Tensor:
        """Token ids (n words, 77) of the "normal" or "abnormal" prompts, X in the place of the contexts."""
        return self._fixed_parts(kind)[0]

    def _fixed_parts(self, kind: str) -> tuple[Tensor, Tensor]:
        """Token ids and their embeddings, made when first used: a finished detector needs no text tower."""
        if kind not in self._fixed:
            words = {"normal": NORMAL_WORDS, "abnormal": ABNORMAL_WORDS}[kind]
            tokens = self._text.tokenize([" ".join(["X"] * N_CONTEXT) + f" {word}." for word in words])
            with torch.no_grad():
                self._fixed[kind] = tokens, self._text.token_embedding(tokens)
        return self._fixed[kind]

    def embeddings(self, kind: str) -> Tensor:
        """Token embeddings (n words, 77, width) of the "normal" or "abnormal" prompts with their learned contexts."""
        fixed = self._fixed_parts(kind)[1]
        context = getattr(self, f"{kind}_context").to(fixed.dtype)
        return torch.cat([fixed[:, :1], context, fixed[:, 1 + N_CONTEXT :]], dim=1)

    def per_prompt(self, kind: str) -> Tensor:
        """Text features (n words, embed_dim) before mean and normalisation."""
        return self._text.encode(self.embeddings(kind), self.tokens(kind).argmax(dim=1), causal=False)

    def forward(self) -> Tensor:
        """Text features (embed_dim, 2), L2-normalised; column 0 normal, column 1 abnormal."""
        means = [self.per_prompt(kind).mean(dim=0) for kind in ("normal", "abnormal")]
        return F.normalize(torch.stack(means, dim=1), dim=0)
