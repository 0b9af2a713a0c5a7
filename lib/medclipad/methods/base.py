"""What every anomaly-detection method is to the detector: options, shots to learn from, and maps of slices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from medclipad.encoders import ImageEncoder

Progress = Callable[[str, int, int, dict], None]
"""Called as progress(phase, done, total, info) all along; an exception raised in it stops the work."""


def silent(phase: str, done: int, total: int, info: dict) -> None:
    """The progress callback of those who do not watch."""


@dataclass(frozen=True)
class Shots:
    """Slices to learn from, framed to the encoder's square and windowed to [0, 1].

    normal: float32 (n, S, S); abnormal: float32 (m, S, S);
    masks: per abnormal slice its lesion, bool (S, S), or None where the reader only called it abnormal.
    """

    normal: np.ndarray
    abnormal: np.ndarray
    masks: tuple[np.ndarray | None, ...]

    def __post_init__(self) -> None:
        if len(self.masks) != len(self.abnormal):
            raise ValueError(f"{len(self.abnormal)} abnormal slices came with {len(self.masks)} masks.")


class MethodOptions(BaseModel):
    """Options of a method: validated, stored in detector.json, published by the server as the training schema."""

    model_config = ConfigDict(extra="forbid")


class AnomalyMethod(nn.Module, ABC):
    """A frozen encoder and a small trained head that maps slices to anomaly maps."""

    name: ClassVar[str]
    Options: ClassVar[type[MethodOptions]]
    default_encoder_size: ClassVar[int]  # image size of the reference code, used on CLIP encoders

    def __init__(self, encoder: ImageEncoder, options: MethodOptions) -> None:
        super().__init__()
        self.encoder = encoder
        self.options = options

    @abstractmethod
    def fit(self, shots: Shots, seed: int, progress: Progress = silent) -> dict:
        """Train the head on `shots`; returns figures worth keeping (final losses and the like).

        Reproducible for a given seed on a given machine. Raises TrainingError if the shots do not suffice.
        """

    @abstractmethod
    def calibrate(self, normal: np.ndarray) -> None:
        """Learn what scales the maps from normal slices float32 (n, S, S), kept out of `fit` if there are enough."""

    @abstractmethod
    def anomaly(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Anomaly maps (B, S, S) in [0, 1] of grey slices (B, S, S) in [0, 1], and their image-level scores (B,).

        The scores are None where the method defines a slice's score as the maximum of its map.
        """

    def head_state(self) -> dict[str, Tensor]:
        """The trained tensors: everything but the frozen encoder."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith("encoder.")}

    def load_head_state(self, state: dict[str, Tensor]) -> None:
        """Put back what `head_state` gave; raises KeyError or ValueError if keys or shapes differ."""
        own = self.head_state()
        if own.keys() != state.keys():
            raise KeyError(f"keys differ: {sorted(own.keys() ^ state.keys())[:4]}")
        for key, value in state.items():
            if own[key].shape != value.shape:
                raise ValueError(f"{key} has shape {tuple(value.shape)} instead of {tuple(own[key].shape)}")
        self.load_state_dict({**self.state_dict(), **state})


def as_rgb(images: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Grey slices (B, S, S) in [0, 1] as float32 RGB (B, 3, S, S) on `device`."""
    return torch.as_tensor(images, dtype=torch.float32, device=device)[:, None].expand(-1, 3, -1, -1)
