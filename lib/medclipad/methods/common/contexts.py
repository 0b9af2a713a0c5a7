"""Prompts with learnable tokens: places for them in token ids, whatever the text tower's tokenizer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from medclipad.encoders import TextTower
from medclipad.errors import DetectorError


def tokens_with_places(text: TextTower, texts: Sequence[str], n_places: int) -> Tensor:
    """Return token ids of texts, with places for learnable tokens before their words.

    Parameters
    ----------
    text
        Text tower.
    texts
        n texts.
    n_places
        Learnable tokens. In the ids, the token of an X holds their places.

    Returns
    -------
    Tensor
        int64 (n, context_length): start tokens, places, words, end token, padding.

    Raises
    ------
    DetectorError
        If a text is too long for the text tower.
    """
    start = text.n_start
    tokens = text.tokenize(list(texts))
    if int(text.ends(tokens).max()) + n_places >= text.context_length:
        raise DetectorError(
            f'The prompt "{max(texts, key=len)}" is too long: the text tower reads {text.context_length} tokens, '
            f"{n_places} of them learned; name the pictures in fewer words."
        )
    places = text.tokenize(["X"])[:, start : start + 1].expand(len(tokens), n_places)
    return torch.cat([tokens[:, :start], places, tokens[:, start : text.context_length - n_places]], dim=1)
