"""A memory of normal tokens beside the text map, for encoders whose tokens are not aligned with text.

It is not part of MediCLIP's paper. The head that MediCLIP learns from synthetic anomalies relies on CLIP's alignment of
images and words. On the embedded encoder it recognises pasted patches, but lesions poorly (try `memory_share=0`). The
distance to the nearest normal token, as in PatchCore (Roth et al., CVPR 2022) and MVFA's few-shot branch, needs no such
alignment.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.methods.common.coreset import coreset
from medclipad.methods.common.token_memory import nearest_distance

PROJECTED = 24  # dimensions in which the coreset is chosen (random projection, Johnson and Lindenstrauss)
NORMAL_QUANTILE = 0.999  # of the distances of normal tokens; it becomes a map value of 0.5
NORM_WEIGHT = 0.3  # of the logarithm of a token's length, beside its direction (length 1)
BRIGHTNESS_WEIGHT = 2.0  # of the picture's own brightness in [0, 1]
LEFT_OUT = 8  # slices that are compared with the tokens of the others


class NormalMemory(nn.Module):
    """Tokens of normal slices, thinned to a coreset, and the distance of other tokens to the nearest of them.

    The maps of two stages are averaged over 3×3 neighbours, resampled to the finer grid and joined. A token keeps the
    direction of each stage's features and, with less weight, the logarithm of their length; the brightness of the slice
    comes last. (With raw features a few strong channels, which follow contrast, would decide every distance.) The
    coreset is greedy (farthest point first), so that rare normal tissue is remembered too.

    Parameters
    ----------
    widths
        Widths of the features of the two stages.
    size
        Number of tokens.

    Attributes
    ----------
    tokens
        float16 (size, sum of widths + 3).
    scale
        Distance that becomes a map value of 0.5, a scalar.
    """

    tokens: Tensor
    scale: Tensor

    def __init__(self, widths: Sequence[int], size: int) -> None:
        super().__init__()
        self._volumes: Tensor | None = None  # number of the volume that each token comes from, int64 (size,)
        self._in_use: Tensor | None = None  # tokens that are not left out, (m, width)
        self.register_buffer("tokens", torch.zeros(size, sum(widths) + len(widths) + 1, dtype=torch.float16))
        self.register_buffer("scale", torch.ones(()))

    @staticmethod
    def join(maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """Return the tokens of slices, from the feature maps of two stages.

        Parameters
        ----------
        maps
            Feature maps (B, C, grid, grid) of each stage, the finer grid first.
        images
            The slices (B, S, S), in [0, 1].

        Returns
        -------
        Tensor
            (B, grid, grid, width) on the finer grid.
        """
        grid = maps[0].shape[-1]
        parts = []
        for features in maps:
            smooth = F.avg_pool2d(features.float(), 3, 1, 1, count_include_pad=False)
            length = smooth.norm(dim=1, keepdim=True).clamp_min(1e-6)
            part = torch.cat([smooth / length, NORM_WEIGHT * length.log()], dim=1)
            parts.append(F.interpolate(part, (grid, grid), mode="bilinear"))
        brightness = F.adaptive_avg_pool2d(images.float()[:, None], grid)
        return torch.cat([*parts, BRIGHTNESS_WEIGHT * brightness], dim=1).permute(0, 2, 3, 1)

    def remember(self, tokens: Tensor, generator: torch.Generator, volumes: Tensor | None = None) -> None:
        """Keep a coreset of tokens; they are repeated if the memory holds more.

        The scale is set too, from the distance of some slices to the tokens of the others, if there are others.

        Parameters
        ----------
        tokens
            (n, grid, grid, width), of n slices.
        generator
            Source of everything that is drawn.
        volumes
            Number of the volume that each slice comes from, int64 (n,), for `leave_out`.
        """
        flat = tokens.flatten(0, 2)
        projection = torch.randn(flat.shape[1], PROJECTED, generator=generator)
        chosen = coreset(flat @ projection, min(len(flat), len(self.tokens)), generator)
        kept, source = flat[chosen], chosen // tokens[0, ..., 0].numel()
        times, size = -(-len(self.tokens) // len(kept)), len(self.tokens)
        self.tokens.copy_(kept.repeat(times, 1)[:size])
        self._volumes = None if volumes is None else volumes[source].repeat(times)[:size].to(self.tokens.device)
        left_out = torch.randperm(len(tokens), generator=generator)[:LEFT_OUT]
        distances = [nearest_distance(tokens[i], kept[source != i]) for i in left_out if (source != i).any()]
        self.scale.fill_(_normal_limit(torch.stack(distances)) if distances else 1e-6)

    def distance(self, tokens: Tensor) -> Tensor:
        """Return the Euclidean distance (...) of tokens (..., width) to the nearest remembered one."""
        return nearest_distance(tokens, (self.tokens if self._in_use is None else self._in_use).float())

    def leave_out(self, volume: int | None) -> None:
        """Forget the tokens of a volume for now, or None; they stay if there are no others."""
        self._in_use = None
        if volume is not None and self._volumes is not None:
            others = self.tokens[self._volumes != volume]
            self._in_use = others if len(others) else None

    def calibrate(self, distances: Tensor) -> None:
        """Raise the scale to the distance that one in a thousand normal tokens exceeds.

        The scale stays where the remembered slices are farther from each other: then these slices may be the remembered
        ones, whose distance says nothing.

        Parameters
        ----------
        distances
            Distances of normal tokens, of any shape.
        """
        self.scale.fill_(max(_normal_limit(distances), float(self.scale)))

    def forward(self, maps: Sequence[Tensor], images: Tensor) -> Tensor:
        """Return anomaly maps.

        Parameters
        ----------
        maps
            Feature maps of two stages, as in `join`.
        images
            The slices (B, S, S), in [0, 1].

        Returns
        -------
        Tensor
            (B, S, S) in [0, 1).
        """
        relative = self.distance(self.join(maps, images)) / self.scale
        # Proportional to the distance up to 0.5, then ever flatter, so that two distances never become the same value.
        value = torch.where(relative < 1, relative / 2, 1 - 0.5 / relative.clamp_min(1))
        return F.interpolate(value[:, None], images.shape[-2:], mode="bilinear")[:, 0]


def _normal_limit(distances: Tensor) -> float:
    """Return the distance that one in a thousand of these exceeds, at least 1e-6."""
    ranked = distances.flatten().sort().values
    return max(float(ranked[int(NORMAL_QUANTILE * (len(ranked) - 1))]), 1e-6)
