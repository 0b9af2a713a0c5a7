"""MediCLIP's prompts: learnable tokens before words for health and disease (Zhang et al. 2024, 2.2 and table S1)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.encoders import ImageEncoder
from medclipad.methods.common.contexts import tokens_with_places

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
N_CONTEXT = 8  # learnable tokens before each word, as in the reference code

Label = Literal["normal", "abnormal"]


class LearnablePrompts(nn.Module):
    """Prompts [start][learnable tokens][word.][end], with a context of its own for each word.

    The text tower runs without its causal mask, so that the padding takes part, as in the reference code.

    Parameters
    ----------
    encoder
        Encoder with a text tower. The contexts are drawn from N(0, 0.02²).
    n_context
        Learnable tokens before each word; 0 for the words alone, an ablation.

    Attributes
    ----------
    normal_context, abnormal_context
        Learned contexts, (n words, n_context, width).

    Raises
    ------
    DetectorError
        If the encoder has no text tower.
    """

    normal_context: nn.Parameter
    abnormal_context: nn.Parameter

    def __init__(self, encoder: ImageEncoder, n_context: int = N_CONTEXT) -> None:
        super().__init__()
        self._text, self._n_context = encoder.require_text(), n_context
        width = self._text.width
        self.normal_context = nn.Parameter(torch.randn(len(NORMAL_WORDS), n_context, width) * 0.02)
        self.abnormal_context = nn.Parameter(torch.randn(len(ABNORMAL_WORDS), n_context, width) * 0.02)
        self._fixed: dict[Label, tuple[Tensor, Tensor]] = {}

    def tokens(self, label: Label) -> Tensor:
        """Return the token ids (n words, L) of the "normal" or "abnormal" prompts, with X in place of the contexts."""
        return self._fixed_parts(label)[0]

    def _fixed_parts(self, label: Label) -> tuple[Tensor, Tensor]:
        """Return token ids and their embeddings, made on first use: a finished detector needs no text tower."""
        if label not in self._fixed:
            words = NORMAL_WORDS if label == "normal" else ABNORMAL_WORDS
            tokens = tokens_with_places(self._text, [f"{word}." for word in words], self._n_context)
            with torch.no_grad():
                self._fixed[label] = tokens, self._text.token_embedding(tokens)
        return self._fixed[label]

    def embeddings(self, label: Label) -> Tensor:
        """Return the token embeddings (n words, L, width) of the prompts, with their learned contexts."""
        fixed = self._fixed_parts(label)[1]
        context = (self.normal_context if label == "normal" else self.abnormal_context).to(fixed.dtype)
        start = self._text.n_start
        return torch.cat([fixed[:, :start], context, fixed[:, start + self._n_context :]], dim=1)

    def per_prompt(self, label: Label) -> Tensor:
        """Return the text features (n words, embed_dim) of the prompts, before mean and normalisation."""
        return self._text.encode(self.embeddings(label), self._text.ends(self.tokens(label)), causal=False)

    def forward(self) -> Tensor:
        """Return the text features (embed_dim, 2), L2-normalised; column 0 normal, column 1 abnormal."""
        means = [self.per_prompt("normal").mean(dim=0), self.per_prompt("abnormal").mean(dim=0)]
        return F.normalize(torch.stack(means, dim=1), dim=0)
