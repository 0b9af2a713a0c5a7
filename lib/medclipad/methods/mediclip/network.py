"""MediCLIP's map: adapted patch tokens against the features of learned prompts (Zhang et al. 2024, section 2.3)."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.encoders import N_STAGES, ImageEncoder
from medclipad.errors import DetectorError
from medclipad.methods.base import AnomalyModel, as_rgb
from medclipad.methods.common.layers import TokenLinear
from medclipad.methods.common.learned_vectors import LearnedVectors
from medclipad.methods.mediclip.normal_memory import NormalMemory
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mediclip.prompts import LearnablePrompts

FIRST_STAGE = 1  # taps after 1/2, 3/4 and all of the encoder: blocks 12, 18 and 24 of ViT-L
PAPER_TEMPERATURE = 0.07


class MediCLIPNetwork(AnomalyModel):
    """MediCLIP on any encoder with stages.

    A 1×1 convolution (here: a linear map of tokens) adapts the patch tokens of each tapped stage to the text space. The
    map is the softmax over {normal, abnormal} of the cosine between adapted tokens and text features: in the reference
    variant the mean cosine of the stages, upsampled, without temperature (values in (.119, .881)); in the paper's a
    softmax with temperature .07 per stage, then their mean.
    """

    options: MediCLIPOptions

    def __init__(self, encoder: ImageEncoder, options: MediCLIPOptions) -> None:
        super().__init__(encoder, options)
        self.adapters = nn.ModuleList(TokenLinear(width, encoder.embed_dim) for width in encoder.widths[FIRST_STAGE:])
        self.prompts = LearnablePrompts(encoder) if encoder.has_text else LearnedVectors(encoder.embed_dim)
        if encoder.has_text:  # what the prompts gave when they were trained: a finished model needs no text tower
            self.register_buffer("text_features", torch.zeros(encoder.embed_dim, 2))
        self.schedule = options.schedule or ("short" if encoder.has_text else "published")
        share = (0.0 if encoder.has_text else 0.9) if options.memory_share is None else options.memory_share
        self.memory_share = share
        if options.score_share is None:
            self.score_share = 0.0 if encoder.has_text else 0.02
        else:
            self.score_share = options.score_share
        self.memory = NormalMemory(encoder.widths[1:3], options.memory_size) if share else None
        self.register_buffer("mean", torch.tensor(encoder.mean)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(encoder.std)[:, None, None], persistent=False)
        self.to(encoder.device)

    def patch_tokens(self, images: Tensor) -> list[Tensor]:
        """Patch tokens (B, grid², width) of the tapped stages of grey slices (B, S, S) in [0, 1]; no class token."""
        rgb = (as_rgb(images, self.encoder.device) - self.mean) / self.std
        with torch.no_grad():
            parts = [self.encoder.taps(part, FIRST_STAGE) for part in rgb.split(self.encoder.batch)]
        return [torch.cat(level)[:, self.encoder.n_prefix :] for level in zip(*parts, strict=True)]

    def adapt(self, tokens: list[Tensor]) -> list[Tensor]:
        """Adapted tokens (B, grid², embed_dim) of each stage, L2-normalised."""
        return [F.normalize(adapter(x).float(), dim=-1) for adapter, x in zip(self.adapters, tokens, strict=True)]

    def similarity(self, adapted: list[Tensor], text: Tensor) -> list[Tensor]:
        """Cosine maps (B, 2, grid, grid) of each stage with the text features (embed_dim, 2)."""
        return [
            self.encoder.patch_maps(x @ text, level)
            for level, x in zip(range(FIRST_STAGE, N_STAGES), adapted, strict=True)
        ]

    def probabilities(self, tokens: list[Tensor], text: Tensor | None = None) -> Tensor:
        """Maps (B, 2, S, S): probability of normal and abnormal at each pixel.

        `text` (embed_dim, 2) replaces the features of the prompts, which take a pass through the text tower.
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
        if maps.shape[-1] == size:
            return maps
        return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=True)

    @torch.no_grad()
    def freeze_text_features(self) -> None:
        """Keep the text features of the prompts as they are now, for `anomaly`."""
        if self.encoder.has_text:
            self.text_features = self.prompts()

    def memory_maps(self, tokens: list[Tensor]) -> list[Tensor]:
        """Feature maps (B, C, grid, grid) of the two stages that the memory joins."""
        return [self.encoder.patch_maps(tokens[place], FIRST_STAGE + place) for place in (0, 1)]

    def _memory_tokens(self, images: np.ndarray) -> Tensor:
        """What the memory remembers of slices float32 (n, S, S): tokens (n, grid, grid, width)."""
        joined = [
            self.memory.join(self.memory_maps(self.patch_tokens(part)), part.to(self.encoder.device))
            for part in torch.from_numpy(images).split(self.encoder.batch)
        ]
        return torch.cat(joined)

    @torch.inference_mode()
    def remember(self, normal: np.ndarray, seed: int) -> None:
        """Fill the memory, if there is one, from normal slices float32 (n, S, S)."""
        if self.memory is None:
            return
        self.memory.remember(self._memory_tokens(normal).cpu(), torch.Generator().manual_seed(seed))

    @torch.inference_mode()
    def calibrate(self, normal: np.ndarray) -> None:
        """The text map is a probability: only the memory's distances need a scale."""
        if self.memory is not None:
            self.memory.calibrate(self.memory.distance(self._memory_tokens(normal)))

    @torch.inference_mode()
    def anomaly(self, images: Tensor) -> tuple[Tensor, None]:
        if self.encoder.has_text and not self.text_features.any():
            raise DetectorError("This MediCLIP model has no text features yet: fit it, or freeze its text features.")
        tokens = self.patch_tokens(images)
        maps = self.probabilities(tokens, self.text_features if self.encoder.has_text else None)[:, 1]
        if self.memory is not None:
            remembered = self.memory(self.memory_maps(tokens), images.to(maps.device))
            maps = (1 - self.memory_share) * maps + self.memory_share * remembered
        return maps, None
