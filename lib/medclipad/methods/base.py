"""What every method's model offers the detector: it learns from shots, and returns maps and scores of slices."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from medclipad.encoders import ImageEncoder
from medclipad.methods.registry import MethodOptions

_Option = TypeVar("_Option", int, float)


@dataclass(frozen=True)
class Shots:
    """Slices to learn from, padded to the encoder's square and windowed to [0, 1].

    Attributes
    ----------
    normal
        Normal slices, float32 (n, S, S); a method may also take RGB (n, 3, S, S).
    abnormal
        Abnormal slices, float32 (m, S, S), or RGB as above.
    masks
        Lesion of each abnormal slice, bool (S, S); None where a reader marked the slice without drawing a mask.
    volumes
        Number of the volume that each normal slice comes from, int (n,); by default each slice is its own.
    heights
        Relative height of each normal slice in its body, (n,) in [0, 1]; None for pictures.
    planes
        How many planes are learned, each from shots of its own: a long training may share its default length.
    """

    normal: np.ndarray
    abnormal: np.ndarray
    masks: tuple[np.ndarray | None, ...]
    volumes: np.ndarray | None = None
    heights: np.ndarray | None = None
    planes: int = 1

    def __post_init__(self) -> None:
        for name in ("volumes", "heights"):
            known = getattr(self, name)
            if known is not None and len(known) != len(self.normal):
                raise ValueError(f"{len(self.normal)} normal slices came with the {name} of {len(known)}.")
        if len(self.masks) != len(self.abnormal):
            raise ValueError(f"{len(self.abnormal)} abnormal slices came with {len(self.masks)} masks.")

    @property
    def numbers(self) -> set[int]:
        """Numbers of the volumes that normal slices come from."""
        return set() if self.volumes is None else {int(number) for number in self.volumes}

    def without(self, volumes: Collection[int]) -> Shots:
        """Return the shots without the normal slices of some volumes."""
        if self.volumes is None or not volumes:
            return self
        kept = ~np.isin(self.volumes, list(volumes))
        heights = None if self.heights is None else self.heights[kept]
        return replace(self, normal=self.normal[kept], volumes=self.volumes[kept], heights=heights)


class AnomalyModel(nn.Module, ABC):
    """A frozen encoder and a small trained head that maps slices to anomaly maps.

    Parameters
    ----------
    encoder
        Frozen encoder.
    options
        The method's options.

    Attributes
    ----------
    encoder
        Frozen encoder.
    options
        The method's options.
    score_share
        Share of a map's pixels, those with the highest values, whose mean is the slice's score. 0 stands for the
        maximum alone.
    """

    encoder: ImageEncoder
    options: MethodOptions
    score_share: float = 0.0

    def __init__(self, encoder: ImageEncoder, options: MethodOptions) -> None:
        super().__init__()
        self.encoder = encoder
        self.options = options

    @abstractmethod
    def calibrate(self, normal: np.ndarray) -> None:
        """Learn the scale of the maps from normal slices.

        Parameters
        ----------
        normal
            float32 (n, S, S) in [0, 1]; slices that the model did not train on, if there are enough.
        """

    @abstractmethod
    def anomaly(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return anomaly maps and scores of slices.

        Parameters
        ----------
        images
            Grey slices (B, S, S) in [0, 1].

        Returns
        -------
        maps
            (B, S, S) in [0, 1].
        scores
            (B,), or None where they follow from the maps as in `scores_of`.
        """

    def calibrate_at(self, normal: np.ndarray, heights: np.ndarray | None) -> None:
        """Learn as `calibrate` does from slices whose heights are known; see `anomaly_at`."""
        self.calibrate(normal)

    def anomaly_at(self, images: Tensor, heights: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Return what `anomaly` does, for methods that compare slices with others of about the same height.

        Parameters
        ----------
        images
            Grey slices (B, S, S) in [0, 1].
        heights
            Relative height of each in its body, (B,) in [0, 1]; None for pictures.
        """
        return self.anomaly(images)

    @property
    def uses_heights(self) -> bool:
        """Whether `anomaly_at` gives other maps with heights than without."""
        return False

    @property
    def can_leave_out(self) -> bool:
        """Whether `leave_out` makes a volume that was learned from look like a new one.

        Where it does not, calibration trains further models, each without some of the volumes.
        """
        return False

    def leave_out(self, volume: int | None) -> None:
        """Use nothing that is remembered of one training volume, until this is called with None.

        A fresh model can do so, one that was loaded cannot. Limits are learned from volumes that are left out.

        Parameters
        ----------
        volume
            Number of a volume in `Shots.volumes`.
        """

    def scores_of(self, maps: Tensor, area: int | None = None) -> Tensor:
        """Return the scores (B,) of maps (B, H, W): the mean of the highest `score_share` of each map's values.

        The share is of all pixels, or of an area of so many: empty space around the body then makes no difference.
        """
        flat = maps.flatten(1)
        highest = max(1, int(self.score_share * (area or flat.shape[1])))
        return flat.topk(highest, dim=1).values.mean(dim=1)

    def head_state(self) -> dict[str, Tensor]:
        """Return the trained tensors by name: everything but the frozen encoder."""
        return {key: value for key, value in self.state_dict().items() if not key.startswith("encoder.")}

    def load_head_state(self, state: Mapping[str, Tensor]) -> None:
        """Load the trained tensors that `head_state` returned.

        Parameters
        ----------
        state
            Tensors by name. They become the model's own, without a copy.

        Raises
        ------
        KeyError
            If the names differ.
        ValueError
            If a shape or type differs.
        """
        own = self.head_state()
        if own.keys() != state.keys():
            raise KeyError(f"keys differ: {sorted(own.keys() ^ state.keys())[:4]}")
        for key, value in state.items():
            if own[key].shape != value.shape:
                raise ValueError(f"{key} has shape {tuple(value.shape)} instead of {tuple(own[key].shape)}")
            if own[key].dtype != value.dtype:
                raise ValueError(f"{key} is {describe(value)} instead of {describe(own[key])}")
        device = self.encoder.device
        # Assigned, not copied: a memory of all tokens is large.
        self.load_state_dict({key: value.to(device) for key, value in state.items()}, strict=False, assign=True)


def has_values(features: Tensor) -> bool:
    """Return whether features were ever set. A graph that is being exported cannot ask: there they are taken as set."""
    return torch.compiler.is_compiling() or bool(features.any())


def option_or_default(option: _Option | None, default: _Option) -> _Option:
    """Return an option, or the method's default if the option is None."""
    return default if option is None else option


def describe(tensor: Tensor) -> str:
    """Return type and shape of a tensor in words.

    Examples
    --------
    >>> describe(torch.zeros(8, 3))
    'float32 [8, 3]'
    """
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"


def as_rgb(images: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Return slices as RGB on a device.

    Parameters
    ----------
    images
        Grey (B, S, S) or RGB (B, 3, S, S) slices in [0, 1].
    device
        Device of the result.

    Returns
    -------
    Tensor
        float32 (B, 3, S, S); grey slices are repeated as a view.
    """
    images = torch.as_tensor(images, dtype=torch.float32, device=device)
    return images if images.ndim == 4 else images[:, None].expand(-1, 3, -1, -1)
