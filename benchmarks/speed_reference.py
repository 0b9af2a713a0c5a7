"""Cost of the reference codes, re-implemented plainly: open_clip's own float32 modules, nothing skipped or cached.

Only the cost is that of the reference codes: adapters, memory and texts are random. For results see
`benchmarks.parity`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.compat import ensure_torchvision
from medclipad.methods.common.losses import dice_loss, focal_loss
from medclipad.methods.mediclip.prompts import ABNORMAL_WORDS, N_CONTEXT, NORMAL_WORDS

LEVELS = 4
BETAS = (0.5, 0.999)  # of Adam


class Reference:
    """CLIP model of open_clip in float32.

    Parameters
    ----------
    architecture
        open_clip's name of it.
    weights
        File that `benchmarks.recipe` made.
    size
        Side of the square input in pixels.
    device
        Where to compute.
    """

    def __init__(self, architecture: str, weights: Path, size: int, device: torch.device) -> None:
        ensure_torchvision()
        import open_clip
        from open_clip.factory import resize_pos_embed

        config: Any = open_clip.get_model_config(architecture)
        config["vision_cfg"]["image_size"] = size
        model: Any = open_clip.CLIP(**config)  # open_clip's modules have no types
        state = {key: value.float() for key, value in torch.load(weights, weights_only=True).items()}
        resize_pos_embed(state, model)
        model.load_state_dict(state)
        self.model = model.eval().requires_grad_(False).to(device)
        self.visual, self.size, self.device = self.model.visual, size, device
        self.tokenize = open_clip.get_tokenizer(architecture)
        self.embed_dim = self.model.text_projection.shape[1]
        self.width = self.visual.class_embedding.shape[0]
        self.image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)

    @torch.inference_mode()
    def unit(self) -> Tensor:
        """Compute U: a forward pass of a single image through the image tower."""
        return self.visual(self.image)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Return features (n, embed_dim) of prompts (n, 77), padded and in one batch as in MVFA's reference code."""
        with torch.no_grad():
            return self.model.encode_text(tokens.to(self.device))

    def taps(self, images: Tensor, adapters: Adapters | None = None) -> dict[str, list[Tensor]]:
        """Return the tokens after each quarter of the blocks, or with adapters the features of MVFA's two heads."""
        features: dict[str, list[Tensor]] = {"seg": [], "det": [], "plain": []}
        x, blocks = self.visual._embeds(images), self.visual.transformer.resblocks
        for number, block in enumerate(blocks, start=1):
            x = block(x)
            if number % (len(blocks) // LEVELS):
                continue
            if adapters is None:
                features["plain"].append(x)
                continue
            level, total = number * LEVELS // len(blocks) - 1, 0.8 * x
            for head in ("seg", "det"):
                adapter = adapters[head][level]
                features[head].append(adapter.fc1(x))
                total = total + 0.1 * adapter.fc2(features[head][-1])
            x = total
        return features


class Adapter(nn.Module):
    """Adapter of MVFA: a bottleneck and the way back."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(nn.Linear(width, bottleneck, bias=False), nn.LeakyReLU())
        self.fc2 = nn.Sequential(nn.Linear(bottleneck, width, bias=False), nn.LeakyReLU())


Adapters = dict[str, list[Adapter]]
"""Adapters of the levels, by head."""


class ReferenceMVFA:
    """Few-shot test and training step of MVFA, of a single image.

    Parameters
    ----------
    reference
        CLIP model.
    n_normal
        Augmented images in the memory.
    """

    def __init__(self, reference: Reference, n_normal: int = 44) -> None:
        self.reference = reference
        width, dim, device = reference.width, reference.embed_dim, reference.device
        self.adapters: Adapters = {
            head: [Adapter(width, dim).to(device) for _ in range(LEVELS)] for head in ("seg", "det")
        }
        self.optimisers = [
            torch.optim.Adam([weight for adapter in adapters for weight in adapter.parameters()], 1e-3, BETAS)
            for adapters in self.adapters.values()
        ]
        self.text = F.normalize(torch.randn(dim, 2), dim=0).to(device)
        tokens = self.reference.visual.positional_embedding.shape[0]
        self.bank = torch.randn(LEVELS, n_normal * tokens, dim, device=device)

    @torch.inference_mode()
    def detect(self) -> Tensor:
        """Return the map (S, S) of the image."""
        tokens = [level[0, 1:] for level in self.reference.taps(self.reference.image, self.adapters)["seg"]]
        zero = torch.stack([level[0, 1] for level in self._maps(tokens)]).sum(dim=0)
        few = torch.zeros_like(zero)
        for bank, queries in zip(self.bank, tokens, strict=True):
            nearest = (1 - F.normalize(bank, dim=-1) @ F.normalize(queries, dim=-1).T).amin(dim=0)
            few = few + self._upsample(nearest[None, None].unflatten(2, self._grid(nearest)))[0, 0]
        return zero + few

    def step(self) -> None:
        """Train for one step. The weights of CLIP have gradients too, as in the reference code."""
        self.reference.visual.requires_grad_(True)
        features = self.reference.taps(self.reference.image, self.adapters)
        size, label = self.reference.size, torch.ones((), device=self.reference.device)
        mask = torch.zeros(1, size, size, device=self.reference.device)
        mask[:, : size // 4, : size // 4] = 1
        loss = torch.zeros((), device=self.reference.device)
        for seg, det in zip(*(self._maps([x[0, 1:] for x in features[head]]) for head in ("seg", "det")), strict=True):
            loss = loss + F.binary_cross_entropy_with_logits(det[:, 1].mean(), label)
            loss = loss + focal_loss(seg, mask) + dice_loss(seg[:, 1], mask)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        self.reference.visual.requires_grad_(False)
        self.reference.visual.zero_grad()

    def _maps(self, tokens: list[Tensor]) -> list[Tensor]:
        logits = [(100 * F.normalize(x, dim=-1) @ self.text).T[None] for x in tokens]
        return [self._upsample(x.unflatten(2, self._grid(x))).softmax(dim=1) for x in logits]

    def _upsample(self, maps: Tensor) -> Tensor:
        return F.interpolate(maps, size=(self.reference.size,) * 2, mode="bilinear", align_corners=True)

    @staticmethod
    def _grid(patches: Tensor) -> tuple[int, int]:
        side = round(patches.shape[-1] ** 0.5)
        return side, side


class ReferenceMediCLIP:
    """Test of a single image and training step of a batch, of MediCLIP."""

    def __init__(self, reference: Reference) -> None:
        self.reference = reference
        width, dim, device = reference.width, reference.embed_dim, reference.device
        self.adapters = nn.ModuleList(nn.Linear(width, dim) for _ in range(LEVELS - 1)).to(device)
        text, words = reference.model, [*NORMAL_WORDS, *ABNORMAL_WORDS]
        self.tokens = reference.tokenize([" ".join(["X"] * N_CONTEXT) + f" {word}." for word in words]).to(device)
        self.embedding = text.token_embedding(self.tokens)
        self.context = nn.Parameter(0.02 * torch.randn(len(words), N_CONTEXT, self.embedding.shape[2], device=device))
        self._text_features: Tensor | None = None
        self.optimiser = torch.optim.Adam([*self.adapters.parameters(), self.context], 1e-3, BETAS)

    @torch.inference_mode()
    def detect(self) -> Tensor:
        """Return the map (1, S, S) of the image; the texts are encoded only once."""
        if self._text_features is None:
            self._text_features = self._encode_text()
        return self._maps(self.reference.image, self._text_features)[:, 1]

    def step(self, images: np.ndarray, masks: np.ndarray) -> None:
        """Train for one step on images uint8 (B, S, S) and masks float64 (B, S, S)."""
        device = self.reference.device
        rgb = (torch.from_numpy(images).to(device) / 255)[:, None].expand(-1, 3, -1, -1)
        target = torch.from_numpy(masks).to(device)
        probabilities = self._maps(rgb, self._encode_text())
        loss = focal_loss(probabilities, target) + dice_loss(probabilities[:, 1], target)
        self.optimiser.zero_grad()
        loss.backward()
        self.optimiser.step()

    def _encode_text(self) -> Tensor:
        model = self.reference.model
        embedding = torch.cat([self.embedding[:, :1], self.context, self.embedding[:, 1 + N_CONTEXT :]], dim=1)
        x = model.ln_final(model.transformer(embedding + model.positional_embedding, attn_mask=None))
        features = x[torch.arange(len(x)), self.tokens.argmax(dim=1)] @ model.text_projection
        means = [part.mean(dim=0) for part in features.split([len(NORMAL_WORDS), len(ABNORMAL_WORDS)])]
        return F.normalize(torch.stack(means, dim=1), dim=0)

    def _maps(self, images: Tensor, text: Tensor) -> Tensor:
        with torch.no_grad():
            taps = self.reference.taps(images)["plain"][1:]
        cosines = [
            F.normalize(adapter(x[:, 1:]), dim=-1) @ text for adapter, x in zip(self.adapters, taps, strict=True)
        ]
        mean = torch.stack(cosines).mean(dim=0).transpose(1, 2)
        side = round(mean.shape[2] ** 0.5)
        size = (self.reference.size,) * 2
        maps = F.interpolate(mean.unflatten(2, (side, side)), size=size, mode="bilinear", align_corners=True)
        return maps.softmax(dim=1)
