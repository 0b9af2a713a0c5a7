"""What every anomaly-detection method is to the detector: options, shots to learn from, and maps of slices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from medclipad.encoders import ImageEncoder
from medclipad.errors import DetectorError

Progress = Callable[[str, int, int, dict], None]
"""Called as progress(phase, done, total, info) all along; an exception raised in it stops the work."""


def silent(phase: str, done: int, total: int, info: dict) -> None:
    """The progress callback of those who do not watch."""


@dataclass(frozen=True)
class Shots:
    """Slices to learn from, framed to the encoder's square and windowed to [0, 1].

    normal: float32 (n, S, S); abnormal: float32 (m, S, S); MVFA takes RGB (n, 3, S, S) too;
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
    retired_options: ClassVar[frozenset[str]] = frozenset()  # of earlier versions' training: saved, no longer taken
    default_encoder_size: ClassVar[int]  # image size of the reference code, used on CLIP encoders
    score_share: float = 0.0  # of a map whose mean is the slice's score, the highest values; 0 is the maximum alone

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

        The scores are None where they follow from the map, as `scores_of` has it.
        """

    def scores_of(self, maps: Tensor) -> Tensor:
        """Image-level scores (B,) of maps (B, H, W): the mean of the highest `score_share` of the values."""
        flat = maps.flatten(1)
        return flat.topk(max(1, int(self.score_share * flat.shape[1])), dim=1).values.mean(dim=1)

    @abstractmethod
    def adopt(self, state: dict[str, dict[str, Tensor]], shots: Shots | None, seed: int, progress: Progress) -> None:
        """Put in weights that the reference code trained, and learn from `shots` what its checkpoint does not hold.

        Without shots the model does with the weights alone. Raises DetectorError as `load_reference_state` does.
        """

    @abstractmethod
    def reference_state(self) -> dict[str, dict[str, Tensor]]:
        """The trained tensors as the reference code's checkpoint has them: state dicts by name.

        Raises DetectorError if its format has no place for what this model learned.
        """

    @abstractmethod
    def load_reference_state(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Put in what the reference code saved; raises DetectorError if a key, shape or type differs."""

    def head_state(self) -> dict[str, Tensor]:
        """The trained tensors: everything but the frozen encoder."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith("encoder.")}

    def load_head_state(self, state: dict[str, Tensor]) -> None:
        """Take over what `head_state` gave; raises KeyError or ValueError if keys, shapes or types differ."""
        own = self.head_state()
        if own.keys() != state.keys():
            raise KeyError(f"keys differ: {sorted(own.keys() ^ state.keys())[:4]}")
        for key, value in state.items():
            if own[key].shape != value.shape:
                raise ValueError(f"{key} has shape {tuple(value.shape)} instead of {tuple(own[key].shape)}")
            if own[key].dtype != value.dtype:
                raise ValueError(f"{key} is {_described(value)} instead of {_described(own[key])}")
        device = self.encoder.device  # not copied: a memory of all tokens is large
        self.load_state_dict({key: value.to(device) for key, value in state.items()}, strict=False, assign=True)


def check_reference_state(model: AnomalyMethod, state: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
    """The model's own `reference_state`; raises DetectorError unless `state` has its keys, shapes and types."""
    own = model.reference_state()
    if not isinstance(state, Mapping) or state.keys() != own.keys():
        raise DetectorError(f"A checkpoint of {model.name} holds {' and '.join(own)} alone: choose such a file.")
    for part, expected in own.items():
        given = state[part]
        if not isinstance(given, Mapping) or not all(isinstance(value, Tensor) for value in given.values()):
            raise DetectorError(f"{part} of the checkpoint is no state dict: choose a file of the reference code.")
        if different := sorted(map(str, expected.keys() ^ given.keys())):
            fault = "lacks" if different[0] in expected else "has an unknown"
            raise DetectorError(
                f"{part} of the checkpoint {fault} {different[0][:80]}: choose the file that belongs to {model.name} "
                f"and to encoder {model.encoder.name}."
            )
        for key, value in expected.items():
            if given[key].shape != value.shape or given[key].dtype != value.dtype:
                raise DetectorError(
                    f"{key} in {part} of the checkpoint is {_described(given[key])}, but encoder {model.encoder.name} "
                    f"needs {_described(value)}: name the encoder that it was trained on."
                )
    return own


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def as_rgb(images: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Grey slices (B, S, S), or RGB (B, 3, S, S), in [0, 1] as float32 RGB (B, 3, S, S) on `device`."""
    images = torch.as_tensor(images, dtype=torch.float32, device=device)
    return images if images.ndim == 4 else images[:, None].expand(-1, 3, -1, -1)
