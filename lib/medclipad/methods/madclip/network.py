"""MadCLIP's map and score: two branches of adapted tokens against two text features (Shiri et al., MICCAI 2025)."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.encoders import ImageEncoder
from medclipad.errors import DetectorError
from medclipad.methods.base import AnomalyModel, as_rgb, has_values, option_or_default
from medclipad.methods.common.learned_vectors import LearnedVectors
from medclipad.methods.madclip.adapters import HEADS, BranchAdapter, Head
from medclipad.methods.madclip.options import MadCLIPOptions
from medclipad.methods.madclip.prompts import ContextPrompts

SCORE_SHARE_WITHOUT_TEXT = 0.02  # of a map's pixels; see `AnomalyModel.score_share`
MAP_SHARE = 4  # by which the side of a CNN's maps is divided in training: its finest tokens are no finer
CNN_FIRST = 1  # stage of a CNN from which on tokens are used: its first has most tokens, and knows edges alone

Similarities = dict[Head, list[Tensor]]
"""By head, for each stage, S_n and S_a of each patch: (B, grid², 2)."""


class MadCLIPNetwork(AnomalyModel):
    """MadCLIP on any encoder with tapped stages.

    After each stage two adapters, one for normal and one for abnormal tissue, take the frozen patch tokens to the text
    space, with a head for image scores (det) and one for pixel maps (seg). Nothing flows back into the encoder.

    A model that was trained with lesion masks makes its map with the seg head, and a slice's score is the map's
    maximum. A model that was trained without any mask uses the det head for map and score.

    Parameters
    ----------
    encoder
        Frozen encoder.
    options
        The method's options. Where an option is None, the encoder decides.

    Attributes
    ----------
    first
        First stage whose tokens are used: 0, or 1 of a CNN.
    normal_adapters, abnormal_adapters
        The adapters of both branches after each of these stages.
    prompts
        Learned prompts; only with a text tower.
    text_features
        Features of the trained prompts, (embed_dim, 2); only with a text tower, which a finished model does not need.
    learned_vectors
        By head, two vectors for each stage in place of the text features; empty with a text tower.
    has_masks
        bool scalar: whether the model was trained with masks.

    Notes
    -----
    As the code of Shiri et al. 2025 computes it. The README of this folder lists where paper and code differ, and where
    our defaults do. Vectors that are learned for each task and stage apart, on encoders without text, follow UniADet.
    """

    options: MadCLIPOptions
    text_features: Tensor
    has_masks: Tensor

    def __init__(self, encoder: ImageEncoder, options: MadCLIPOptions) -> None:
        super().__init__(encoder, options)
        has_text, width = encoder.has_text, encoder.embed_dim
        self.first = CNN_FIRST if encoder.is_convolutional else 0
        widths = encoder.widths[self.first :]
        self.normal_adapters, self.abnormal_adapters = (
            nn.ModuleList(BranchAdapter(tokens, width) for tokens in widths) for _ in range(2)
        )
        self.prompts = ContextPrompts(encoder, options.class_name) if has_text else None
        self.learned_vectors: dict[Head, list[LearnedVectors]] = {}
        if has_text:
            self.register_buffer("text_features", torch.zeros(width, 2))
        else:
            self.learned_vectors = {head: [LearnedVectors(width) for _ in widths] for head in HEADS}
            self.vectors = nn.ModuleDict({str(head): nn.ModuleList(own) for head, own in self.learned_vectors.items()})
        self.score_share = option_or_default(options.score_share, 0.0 if has_text else SCORE_SHARE_WITHOUT_TEXT)
        self.register_buffer("has_masks", torch.tensor(True))
        self.to(encoder.device)

    @property
    def head(self) -> Head:
        """Head in use for the map: "seg" if trained with masks, else "det"."""
        return "seg" if self.has_masks else "det"

    @torch.no_grad()
    def frozen(self, images: np.ndarray | Tensor) -> list[Tensor]:
        """Return the patch tokens of each stage, which training does not change, without class token.

        Parameters
        ----------
        images
            Grey (B, S, S) or RGB (B, 3, S, S) slices in [0, 1]. CLIP's mean and deviation are not applied, as in the
            reference code.

        Returns
        -------
        list of Tensor
            (B, grid², width) for each stage.
        """
        rgb = as_rgb(images, self.encoder.device)
        parts = [self.encoder.taps(part, self.first) for part in rgb.split(self.encoder.batch)]
        return [torch.cat(level)[:, self.encoder.n_prefix :] for level in zip(*parts, strict=True)]

    def text(self, head: Head) -> list[Tensor]:
        """Return the features (embed_dim, 2) of normal and abnormal for each stage, as they are kept."""
        if self.encoder.has_text:
            return [self.text_features] * len(self.normal_adapters)
        return [vectors() for vectors in self.learned_vectors[head]]

    @torch.no_grad()
    def freeze_text_features(self) -> None:
        """Keep the text features of the prompts as they are now, for `anomaly`."""
        if self.prompts is not None:
            self.text_features = self.prompts()

    def similarities(
        self, tokens: Sequence[Tensor], heads: Collection[Head] = HEADS, text: Tensor | None = None
    ) -> Similarities:
        """Return the similarity of each patch to normal, S_n, and to abnormal, S_a.

        Parameters
        ----------
        tokens
            What `frozen` returned.
        heads
            Heads that are needed.
        text
            Text features (embed_dim, 2) instead of the kept ones.

        Notes
        -----
        S_n = O_n·t_n − O_n·t_a and S_a = O_a·t_a − O_a·t_n, where O is the L2-normalised feature of a branch.
        """
        found: Similarities = {head: [] for head in heads}
        texts = {head: self.text(head) if text is None else [text] * len(tokens) for head in heads}
        for level, x in enumerate(tokens):
            normal, abnormal = self.normal_adapters[level](x, heads), self.abnormal_adapters[level](x, heads)
            for head in heads:
                away = texts[head][level][:, 0] - texts[head][level][:, 1]  # t_n − t_a
                pair = _along(normal[head], away), _along(abnormal[head], -away)
                found[head].append(torch.stack(pair, dim=-1))
        return found

    @property
    def training_size(self) -> int:
        """Side of the maps that the losses are computed on."""
        return self.encoder.image_size // (MAP_SHARE if self.encoder.is_convolutional else 1)

    def probabilities(self, similarities: Sequence[Tensor], size: int | None = None) -> list[Tensor]:
        """Return the abnormal probability at each pixel, (B, S, S), for each stage; S is `size`, or the slices' side.

        S_n and S_a are upsampled first, bilinearly with aligned corners, and their softmax comes second. Of two values
        it is the sigmoid of their difference.
        """
        side = size or self.encoder.image_size
        maps = []
        for level, pair in enumerate(similarities, self.first):
            difference = self.encoder.patch_maps(pair[..., 1:] - pair[..., :1], level)
            maps.append(F.interpolate(difference, (side, side), mode="bilinear", align_corners=True)[:, 0].sigmoid())
        return maps

    @staticmethod
    def image_probability(similarities: Sequence[Tensor]) -> Tensor:
        """Return the mean abnormal probability of the patches of each stage, (stages, B)."""
        return torch.stack([pair.softmax(dim=-1)[..., 1].mean(dim=1) for pair in similarities])

    def calibrate(self, normal: np.ndarray) -> None:
        """Do nothing: the map is a mean of probabilities and needs no scale."""

    @torch.inference_mode()
    def anomaly(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return anomaly maps and scores of slices.

        Parameters
        ----------
        images
            Grey slices (B, S, S) in [0, 1].

        Returns
        -------
        maps
            (B, S, S) in [0, 1]: the mean over the stages. The reference code's is their sum, Σ ½(1 − p_n) + ½p_a.
        scores
            (B,) in [0, 1] of the det head as published, if no mask was given and `score_share` is 0; else None, as
            they follow from the maps.

        Raises
        ------
        DetectorError
            If the model was not trained.
        """
        if self.prompts is not None and not has_values(self.text_features):
            raise DetectorError("This MadCLIP model has no text features yet: fit it.")
        maps, scores = [], []
        for part in images.split(self.encoder.batch):
            found = self.similarities(self.frozen(part), (self.head,))[self.head]
            maps.append(torch.stack(self.probabilities(found)).mean(dim=0))
            scores.append(self.image_probability(found).mean(dim=0))
        return torch.cat(maps), None if self.has_masks or self.score_share else torch.cat(scores)


def _along(features: Tensor, direction: Tensor) -> Tensor:
    """Return the product (...) of L2-normalised features (..., embed_dim) with a direction (embed_dim,).

    The lengths divide at the end: the gradient of unit features, many more numbers, costs more time.
    """
    features = features.float()
    return features @ direction / torch.linalg.vector_norm(features, dim=-1).clamp_min(1e-12)
