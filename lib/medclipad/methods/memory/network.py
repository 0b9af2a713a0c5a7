"""Model of the memory method: nearest normal patch, as in PatchCore (Roth et al., CVPR 2022), with places."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from medclipad.encoders import ImageEncoder
from medclipad.errors import DetectorError, TrainingError
from medclipad.methods.base import AnomalyModel, Shots, as_rgb
from medclipad.methods.common.normal_memory import NormalMemory
from medclipad.volume.progress import Progress, no_progress

if TYPE_CHECKING:
    from medclipad.methods.memory.method import MemoryOptions

STAGES = (1, 2)  # of the encoder: the middle ones, as in PatchCore; the last is made for the encoder's own classes


class MemoryNetwork(AnomalyModel):
    """Distance of each patch to the nearest patch of normal slices.

    Parameters
    ----------
    encoder
        Frozen encoder.
    options
        The method's options.

    Attributes
    ----------
    memory
        Tokens of normal slices, with their places.
    """

    options: MemoryOptions
    mean: Tensor
    std: Tensor

    def __init__(self, encoder: ImageEncoder, options: MemoryOptions) -> None:
        super().__init__(encoder, options)
        self.score_share = options.score_share
        self.memory = NormalMemory([encoder.widths[level] for level in STAGES], options.memory_size)
        self.register_buffer("mean", torch.tensor(encoder.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(encoder.std)[:, None, None], persistent=False)
        self.to(encoder.device)

    @torch.inference_mode()
    def learn(self, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
        """Remember the normal slices of shots.

        Parameters
        ----------
        shots
            Their normal slices are remembered, with their volumes and heights.
        seed
            Seed of what is drawn.
        progress
            Called after each batch.

        Returns
        -------
        dict of str to float
            `tokens`, the number of those that are remembered.

        Raises
        ------
        TrainingError
            If there is no normal shot.
        """
        if not len(shots.normal):
            raise TrainingError("The memory remembers normal slices: give at least one.")
        volumes, heights = (
            None if known is None else torch.as_tensor(known) for known in (shots.volumes, shots.heights)
        )
        body = self.memory.shows_body(torch.from_numpy(shots.normal), self.encoder.grids[STAGES[0]])
        generator = torch.Generator().manual_seed(seed)
        self.memory.remember_parts(self._tokens(shots.normal, progress), body, generator, volumes, heights)
        return {"tokens": float(len(self.memory.tokens))}

    def feature_maps(self, images: Tensor) -> list[Tensor]:
        """Return the feature maps (B, C, grid, grid) of both stages, of grey slices (B, S, S) in [0, 1]."""
        parts = [self._stages(part) for part in images.split(self.encoder.batch)]
        return [torch.cat(stage) for stage in zip(*parts, strict=True)]

    def _stages(self, images: Tensor) -> list[Tensor]:
        """Return the same of a few slices; stages after the last that is needed are not computed."""
        encoder = self.encoder
        state, maps = encoder.stem((as_rgb(images, encoder.device) - self.mean) / self.std), []
        for level in range(STAGES[-1] + 1):
            state = encoder.stage(state, level)
            if level in STAGES:
                maps.append(encoder.patch_maps(encoder.tokens(state), level))
        return maps

    def _tokens(self, images: np.ndarray, progress: Progress = no_progress) -> Iterator[Tensor]:
        """Yield the tokens (B, grid, grid, width) of slices float32 (n, S, S), a batch at a time."""
        done = 0
        for part in torch.from_numpy(images).split(self.encoder.batch):
            yield NormalMemory.join(self.feature_maps(part), part.to(self.encoder.device))
            done += len(part)
            progress("train", done, len(images), {})

    @property
    def uses_heights(self) -> bool:
        """Whether the remembered slices have heights."""
        return self.memory.has_heights

    @property
    def can_leave_out(self) -> bool:
        """True: all that is known of a volume is its tokens."""
        return True

    def leave_out(self, volume: int | None) -> None:
        """Leave a volume's tokens out; see `AnomalyModel.leave_out`."""
        self.memory.leave_out(volume)

    def calibrate(self, normal: np.ndarray) -> None:
        """Set the scale of the distances; see `AnomalyModel.calibrate`."""
        self.calibrate_at(normal, None)

    @torch.inference_mode()
    def calibrate_at(self, normal: np.ndarray, heights: np.ndarray | None) -> None:
        """Set the scale of the distances, of slices whose heights are known; see `AnomalyModel`."""
        at = None if heights is None else torch.as_tensor(heights)
        self.memory.calibrate(self.memory.distance(torch.cat([*self._tokens(normal)]), at))

    def anomaly(self, images: Tensor) -> tuple[Tensor, None]:
        """Return maps (B, S, S) in [0, 1) of grey slices (B, S, S); their scores follow from them.

        Raises
        ------
        DetectorError
            If nothing was remembered.
        """
        return self.anomaly_at(images, None)

    @torch.inference_mode()
    def anomaly_at(self, images: Tensor, heights: Tensor | None) -> tuple[Tensor, None]:
        """Return the same for slices whose heights are known; see `AnomalyModel`."""
        if not len(self.memory.tokens):
            raise DetectorError("This memory is empty: fit it on normal slices.")
        return self.memory(self.feature_maps(images), images.to(self.encoder.device), heights), None

    def load_head_state(self, state: Mapping[str, Tensor]) -> None:
        """Load the tensors that `head_state` returned, with a memory of any size; see `AnomalyModel`."""
        self.memory.take_sizes(state, "memory.")
        super().load_head_state(state)
