"""States of a frozen encoder that a training needs again and again: computed once, kept while they fit."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from medclipad.methods.common.labelled_images import LabelledImages

STATES_LIMIT = 1 << 30  # bytes of states that `FrozenStates` keeps


class Frozen(Protocol):
    """A model whose training leaves some states of its encoder unchanged."""

    def frozen(self, images: Tensor) -> list[Tensor]:
        """Return these states, (B, ...) each, of images (B, S, S) or (B, 3, S, S) in [0, 1]."""
        ...


class FrozenStates:
    """The encoder's states that training does not change: computed when first needed, kept while they fit.

    `states[indices]`, int64 (B,), is what `Frozen.frozen` returns for these images.

    Parameters
    ----------
    model
        Model whose encoder computes the states.
    images
        Grey (n, S, S) or RGB (n, 3, S, S) in [0, 1], or pictures that are read when needed.
    limit
        Bytes of states to keep, at most.
    """

    def __init__(self, model: Frozen, images: Tensor | LabelledImages, limit: int = STATES_LIMIT) -> None:
        self._model, self._images, self._left = model, images, limit
        self._kept: dict[int, tuple[Tensor, ...]] = {}

    def __getitem__(self, indices: Tensor) -> list[Tensor]:
        chosen: list[int] = indices.tolist()
        states = {index: self._kept[index] for index in chosen if index in self._kept}
        new = [index for index in dict.fromkeys(chosen) if index not in states]
        if new:
            levels = (level.split(1) for level in self._model.frozen(self._images[new]))
            for index, state in zip(new, zip(*levels, strict=True), strict=True):
                states[index] = state
                self._left -= sum(level.nbytes for level in state)
                if self._left >= 0:
                    self._kept[index] = tuple(level.clone() for level in state)  # a slice would keep its whole batch
        return [torch.cat(level) for level in zip(*(states[index] for index in chosen), strict=True)]
