"""MadCLIP's prompts: states of an object with learnable tokens before, behind and around them (as CoOp's)."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.encoders import ImageEncoder
from medclipad.methods.common.contexts import tokens_with_places
from medclipad.methods.common.states import ABNORMAL_STATES as WINCLIP_ABNORMAL_STATES
from medclipad.methods.common.states import NORMAL_STATES

ABNORMAL_STATES = (*WINCLIP_ABNORMAL_STATES, "disease {}", "abnormal {}")  # WinCLIP's, and MadCLIP's two
N_CONTEXT = 8  # learnable tokens in each prompt, as in the reference code
SPREAD = 0.02  # standard deviation of the first contexts, as in CoOp

Label = Literal["normal", "abnormal"]
Place = Literal["end", "front", "middle"]
LABELS: tuple[Label, Label] = ("normal", "abnormal")
PLACES: tuple[Place, ...] = ("end", "front", "middle")
"""Where the state stands: behind the learnable tokens, before them, or between two halves of them."""


class ContextPrompts(nn.Module):
    """Prompts of 7 normal and 7 abnormal states, each in three places and with 8 learnable tokens of its own.

    The text tower runs without its causal mask, so that the padding takes part, as in the reference code.

    Parameters
    ----------
    encoder
        Encoder with a text tower. The contexts are drawn from N(0, 0.02²).
    class_name
        What the prompts call the picture.

    Attributes
    ----------
    contexts
        Learned contexts (7, 8, width), by names such as "normal_end".

    Raises
    ------
    DetectorError
        If the encoder has no text tower.

    Notes
    -----
    Shiri et al. 2025, learnable prompts after CoOp (Zhou et al. 2022), with a context for each prompt.
    """

    contexts: nn.ParameterDict

    def __init__(self, encoder: ImageEncoder, class_name: str) -> None:
        super().__init__()
        self._text = encoder.require_text()
        self._class_name = class_name
        shape = (len(NORMAL_STATES), N_CONTEXT, self._text.width)
        self.contexts = nn.ParameterDict(
            {f"{label}_{place}": nn.Parameter(torch.randn(shape) * SPREAD) for label in LABELS for place in PLACES}
        )
        self._fixed: dict[Label, tuple[Tensor, Tensor, Tensor]] = {}

    def tokens(self, label: Label) -> Tensor:
        """Return the token ids (7, L) of the "normal" or "abnormal" prompts, with X in place of the contexts."""
        return self._fixed_parts(label)[0]

    def _fixed_parts(self, label: Label) -> tuple[Tensor, Tensor, Tensor]:
        """Return token ids, positions behind the states, and embeddings.

        They are made on first use: a finished detector needs no text tower.
        """
        if label not in self._fixed:
            states = NORMAL_STATES if label == "normal" else ABNORMAL_STATES
            texts = [state.format(self._class_name) for state in states]
            tokens = tokens_with_places(self._text, [f"{text}." for text in texts], N_CONTEXT)
            stops = self._text.ends(self._text.tokenize(texts)) + N_CONTEXT  # not each tokenizer keeps the full stop
            with torch.no_grad():
                self._fixed[label] = tokens, stops, self._text.token_embedding(tokens)
        return self._fixed[label]

    def embeddings(self, label: Label, place: Place) -> Tensor:
        """Return the token embeddings (7, L, width) of the prompts, with their learned contexts in place."""
        tokens, stops, fixed = self._fixed_parts(label)
        context, start = self.contexts[f"{label}_{place}"].to(fixed.dtype), self._text.n_start
        joined = torch.cat([fixed[:, :start], context, fixed[:, start + N_CONTEXT :]], dim=1)
        order = torch.stack([_order(start, stop, place, tokens.shape[1]) for stop in stops.tolist()])
        return joined[torch.arange(len(joined))[:, None], order]

    def per_prompt(self, label: Label) -> Tensor:
        """Return the text features (21, embed_dim) of the prompts: those of each place in turn, not normalised."""
        embeddings = torch.cat([self.embeddings(label, place) for place in PLACES])
        ends = self._text.ends(self.tokens(label)).repeat(len(PLACES))
        return self._text.encode(embeddings, ends, causal=False)

    def forward(self) -> Tensor:
        """Return the text features (embed_dim, 2), L2-normalised; column 0 normal, column 1 abnormal."""
        means = [self.per_prompt(label).mean(dim=0) for label in LABELS]
        return F.normalize(torch.stack(means, dim=1), dim=0)


def _order(start: int, stop: int, place: Place, length: int) -> Tensor:
    """Return the order in which the tokens [start][context][state][.][end][padding] of a prompt are used.

    Parameters
    ----------
    start
        Number of start tokens.
    stop
        Position behind the state: of the full stop, or of the end token without one.
    place
        Where the state goes.
    length
        Number of tokens, padding included.
    """
    first = start + N_CONTEXT
    state, context = list(range(first, stop)), list(range(start, first))
    before = {"end": N_CONTEXT, "front": 0, "middle": N_CONTEXT // 2}[place]
    return torch.tensor([*range(start), *context[:before], *state, *context[before:], *range(stop, length)])
