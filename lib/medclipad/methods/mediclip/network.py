"""MediCLIP's map: adapted patch tokens against the features of learned prompts (Zhang et al. 2024, section 2.3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.encoders import N_STAGES, ImageEncoder
from medclipad.errors import DetectorError
from medclipad.methods.base import AnomalyModel, Shots, as_rgb, has_values, option_or_default
from medclipad.methods.common.layers import TokenLinear
from medclipad.methods.common.learned_vectors import LearnedVectors
from medclipad.methods.common.normal_memory import NormalMemory
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mediclip.prompts import N_CONTEXT, LearnablePrompts

FIRST_STAGE = 1  # taps after 1/2, 3/4 and all of the encoder: blocks 12, 18 and 24 of ViT-L
PAPER_TEMPERATURE = 0.07
MEMORY_SHARE_WITHOUT_TEXT = 1.0  # of the map; docs/explanation/accuracy.md compares shares
SCORE_SHARE_WITHOUT_TEXT = 0.02  # of a map's pixels; see `AnomalyModel.score_share`


class MediCLIPNetwork(AnomalyModel):
    """MediCLIP on any encoder with tapped stages.

    A 1×1 convolution (here a linear map of tokens) adapts the patch tokens of each tapped stage to the text space. The
    map is the softmax over {normal, abnormal} of the cosine between adapted tokens and text features.

    Parameters
    ----------
    encoder
        Frozen encoder.
    options
        The method's options. Where an option is None, the encoder decides.
    n_context
        Learnable tokens of a prompt.
    adapted
        Whether adapters are learned. Otherwise the encoder's own projection takes their place, for an ablation.

    Attributes
    ----------
    adapters
        A linear map for each tapped stage; empty if none is learned.
    prompts
        Learned prompts, or two learned vectors where the encoder has no text tower.
    text_features
        Features of the trained prompts, (embed_dim, 2); only with a text tower. A finished model does not need the
        tower.
    schedule
        "published" or "short"; see the option of this name.
    memory_share
        Share of the memory's map in the result.
    memory
        Memory of normal tokens; None if its share is 0.

    Notes
    -----
    The reference variant averages the cosines of the stages, upsamples the mean and applies a softmax without
    temperature, whose values lie in (.119, .881). The paper's variant applies a softmax with temperature .07 to each
    stage and averages these (section 2.3).
    """

    options: MediCLIPOptions
    prompts: LearnablePrompts | LearnedVectors
    text_features: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self, encoder: ImageEncoder, options: MediCLIPOptions, n_context: int = N_CONTEXT, adapted: bool = True
    ) -> None:
        super().__init__(encoder, options)
        has_text, widths = encoder.has_text, encoder.widths[FIRST_STAGE:] if adapted else ()
        self.adapters = nn.ModuleList(TokenLinear(width, encoder.embed_dim) for width in widths)
        self.prompts = LearnablePrompts(encoder, n_context) if has_text else LearnedVectors(encoder.embed_dim)
        if has_text:
            self.register_buffer("text_features", torch.zeros(encoder.embed_dim, 2))
        self.schedule = options.schedule or ("short" if has_text else "published")
        self.memory_share = option_or_default(options.memory_share, 0.0 if has_text else MEMORY_SHARE_WITHOUT_TEXT)
        self.score_share = option_or_default(options.score_share, 0.0 if has_text else SCORE_SHARE_WITHOUT_TEXT)
        self.memory = NormalMemory(encoder.widths[1:3], options.memory_size) if self.memory_share else None
        self.register_buffer("mean", torch.tensor(encoder.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(encoder.std)[:, None, None], persistent=False)
        self.to(encoder.device)

    def patch_tokens(self, images: Tensor) -> list[Tensor]:
        """Return the patch tokens of the tapped stages, without class token.

        Parameters
        ----------
        images
            Grey (B, S, S) or RGB (B, 3, S, S) slices in [0, 1].

        Returns
        -------
        list of Tensor
            (B, grid², width) for each stage.
        """
        rgb = (as_rgb(images, self.encoder.device) - self.mean) / self.std
        with torch.no_grad():
            parts = [self.encoder.taps(part, FIRST_STAGE) for part in rgb.split(self.encoder.batch)]
        return [torch.cat(level)[:, self.encoder.n_prefix :] for level in zip(*parts, strict=True)]

    def adapt(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Return the adapted tokens (B, grid², embed_dim) of each stage, L2-normalised, of its `patch_tokens`."""
        adapters = self.adapters or [self.encoder.project] * len(tokens)
        return [F.normalize(adapter(x).float(), dim=-1) for adapter, x in zip(adapters, tokens, strict=True)]

    def similarity(self, adapted: Sequence[Tensor], text: Tensor) -> list[Tensor]:
        """Return the cosine of adapted tokens with text features.

        Parameters
        ----------
        adapted
            What `adapt` returned.
        text
            (embed_dim, 2).

        Returns
        -------
        list of Tensor
            (B, 2, grid, grid) for each stage.
        """
        return [
            self.encoder.patch_maps(x @ text, level)
            for level, x in zip(range(FIRST_STAGE, N_STAGES), adapted, strict=True)
        ]

    def probabilities(self, tokens: Sequence[Tensor], text: Tensor | None = None) -> Tensor:
        """Return the probability of normal and abnormal at each pixel.

        Parameters
        ----------
        tokens
            What `patch_tokens` returned.
        text
            Text features (embed_dim, 2) instead of those of the prompts, which take a pass through the text tower.

        Returns
        -------
        Tensor
            (B, 2, S, S).
        """
        levels = self.similarity(self.adapt(tokens), self.prompts() if text is None else text)
        grid, size = max(level.shape[-1] for level in levels), self.encoder.image_size
        if self.options.variant == "paper":
            maps = [self._upsample(level / PAPER_TEMPERATURE, size).softmax(dim=1) for level in levels]
            return torch.stack(maps).mean(dim=0)
        mean = torch.stack([self._upsample(level, grid) for level in levels]).mean(dim=0)
        return self._upsample(mean, size).softmax(dim=1)

    @staticmethod
    def _upsample(maps: Tensor, size: int) -> Tensor:
        """Return maps (B, C, grid, grid) as (B, C, size, size): bilinear, the corners aligned."""
        if maps.shape[-1] == size:
            return maps
        return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=True)

    @torch.no_grad()
    def freeze_text_features(self) -> None:
        """Keep the text features of the prompts as they are now, for `anomaly`."""
        if self.encoder.has_text:
            self.text_features = self.prompts()

    def memory_maps(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Return the feature maps (B, C, grid, grid) of the two stages that the memory joins, of `patch_tokens`."""
        return [self.encoder.patch_maps(tokens[index], FIRST_STAGE + index) for index in (0, 1)]

    def _memory_tokens(self, images: np.ndarray, told: Callable[[int, int], None] | None = None) -> Iterator[Tensor]:
        """Yield the memory's tokens (B, grid, grid, width) of slices float32 (n, S, S), a batch at a time."""
        done = 0
        for part in torch.from_numpy(images).split(self.encoder.batch):
            yield NormalMemory.join(self.memory_maps(self.patch_tokens(part)), part.to(self.encoder.device))
            done += len(part)
            if told:
                told(done, len(images))

    @torch.inference_mode()
    def remember(self, shots: Shots, seed: int, told: Callable[[int, int], None] | None = None) -> None:
        """Fill the memory, if there is one, with the normal slices of shots.

        Parameters
        ----------
        shots
            Their normal slices are remembered.
        seed
            Of what is drawn.
        told
            Called as told(done, slices) after each batch; an exception raised in it stops.
        """
        if self.memory is None:
            return
        volumes, heights = (
            None if known is None else torch.as_tensor(known) for known in (shots.volumes, shots.heights)
        )
        body = self.memory.shows_body(torch.from_numpy(shots.normal), self.encoder.grids[FIRST_STAGE])
        tokens, generator = self._memory_tokens(shots.normal, told), torch.Generator().manual_seed(seed)
        self.memory.remember_parts(tokens, body, generator, volumes, heights)

    @property
    def uses_heights(self) -> bool:
        """Whether the remembered slices have heights."""
        return self.memory is not None and self.memory.has_heights

    @property
    def can_leave_out(self) -> bool:
        """Whether most of the map is the memory's: the head alone knows the volumes that it learned from."""
        return self.memory_share >= 0.5

    def leave_out(self, volume: int | None) -> None:
        """Leave a volume's tokens out of the memory; adapters and prompts hardly depend on one volume."""
        if self.memory is not None:
            self.memory.leave_out(volume)

    def calibrate(self, normal: np.ndarray) -> None:
        """Set the scale of the memory's distances; the text map is a probability and needs none."""
        self.calibrate_at(normal, None)

    @torch.inference_mode()
    def calibrate_at(self, normal: np.ndarray, heights: np.ndarray | None) -> None:
        """Set the scale of the memory's distances, of slices whose heights are known; see `AnomalyModel`."""
        if self.memory is not None:
            at = None if heights is None else torch.as_tensor(heights)
            self.memory.calibrate(self.memory.distance(torch.cat([*self._memory_tokens(normal)]), at))

    def anomaly(self, images: Tensor) -> tuple[Tensor, None]:
        """Return the anomaly maps of slices; their scores follow from the maps.

        Parameters
        ----------
        images
            Grey slices (B, S, S) in [0, 1].

        Returns
        -------
        maps
            (B, S, S) in [0, 1].
        scores
            None.

        Raises
        ------
        DetectorError
            If the model was not trained and its text features were not frozen.
        """
        return self.anomaly_at(images, None)

    @torch.inference_mode()
    def anomaly_at(self, images: Tensor, heights: Tensor | None) -> tuple[Tensor, None]:
        """Return the same for slices whose heights are known; see `AnomalyModel`."""
        if self.encoder.has_text and not has_values(self.text_features):
            raise DetectorError("This MediCLIP model has no text features yet: fit it, or freeze its text features.")
        tokens = self.patch_tokens(images)
        parts = []
        if self.memory_share < 1:
            text = self.text_features if self.encoder.has_text else None
            parts.append((1 - self.memory_share) * self.probabilities(tokens, text)[:, 1])
        if self.memory is not None:
            remembered = self.memory(self.memory_maps(tokens), images.to(tokens[0].device), heights)
            parts.append(self.memory_share * remembered)
        return sum(parts[1:], parts[0]), None

    def load_head_state(self, state: Mapping[str, Tensor]) -> None:
        """Load the trained tensors that `head_state` returned, with a memory of any size; see `AnomalyModel`."""
        if self.memory is not None:
            self.memory.take_sizes(state, "memory.")
        super().load_head_state(state)
