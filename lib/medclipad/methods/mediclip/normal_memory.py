"""A memory of normal tokens beside the text map, for encoders whose tokens no text tower gave a meaning.

Not part of MediCLIP's paper. The head that MediCLIP learns from synthetic anomalies stands on CLIP's alignment of
images and words; on the embedded encoder it recognises pasted patches, but lesions poorly (try memory_share=0). The
distance to the nearest normal token, as in PatchCore (Roth et al., CVPR 2022) and MVFA's few-shot branch, needs none.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.methods.common.coreset import coreset
from medclipad.methods.common.token_memory import nearest_distance

PROJECTED = 24  # dimensions in which the coreset is chosen (random projection, Johnson and Lindenstrauss)
NORMAL_QUANTILE = 0.999
NORM_WEIGHT = 0.3  # of the logarithm of a token's length, beside its direction (length 1)
BRIGHTNESS_WEIGHT = 2.0  # of the picture's own brightness in [0, 1]
LEFT_OUT = 8  # slices that are held against the tokens of the others


class NormalMemory(nn.Module):
    """Tokens of normal slices, thinned to a coreset, and the distance of other tokens to the nearest of them.

    The maps of two stages, averaged over 3×3 neighbours, are brought to the finer grid and joined. Of each stage a
    token keeps its direction and, with less weight, the logarithm of its length; the brightness under it comes last.
    (Left as they are, a few strong channels, which follow contrast, would decide every distance.) The coreset is greedy
    (farthest point first), so that rare normal tissue is remembered too.
    """

    def __init__(self, widths: tuple[int, int], size: int) -> None:
        super().__init__()
        self.register_buffer("tokens", torch.zeros(size, sum(widths) + len(widths) + 1, dtype=torch.float16))
        self.register_buffer("scale", torch.ones(()))

    @staticmethod
    def join(maps: list[Tensor], images: Tensor) -> Tensor:
        """(B, grid, grid, width) of the feature maps (B, C, g, g) of two stages, the finer one first, and the slices.

        images: (B, S, S) in [0, 1], what the feature maps were made of.
        """
        grid = maps[0].shape[-1]
        parts = []
        for one in maps:
            smooth = F.avg_pool2d(one.float(), 3, 1, 1, count_include_pad=False)
            length = smooth.norm(dim=1, keepdim=True).clamp_min(1e-6)
            part = torch.cat([smooth / length, NORM_WEIGHT * length.log()], dim=1)
            parts.append(F.interpolate(part, (grid, grid), mode="bilinear"))
        brightness = F.adaptive_avg_pool2d(images.float()[:, None], grid)
        return torch.cat([*parts, BRIGHTNESS_WEIGHT * brightness], dim=1).permute(0, 2, 3, 1)

    def remember(self, tokens: Tensor, generator: torch.Generator) -> None:
        """Keep a coreset of the tokens (n, grid, grid, width) of n slices, repeated if the memory holds more.

        The scale is set, too, by what some slices are to the tokens of the others (if there are others).
        """
        flat = tokens.flatten(0, 2)
        projection = torch.randn(flat.shape[1], PROJECTED, generator=generator)
        chosen = coreset(flat @ projection, min(len(flat), len(self.tokens)), generator)
        kept, source = flat[chosen], chosen // tokens[0, ..., 0].numel()
        self.tokens.copy_(kept.repeat(-(-len(self.tokens) // len(kept)), 1)[: len(self.tokens)])
        left_out = torch.randperm(len(tokens), generator=generator)[:LEFT_OUT]
        distances = [nearest_distance(tokens[i], kept[source != i]) for i in left_out if (source != i).any()]
        self.scale.fill_(_normal_limit(torch.stack(distances)) if distances else 1e-6)

    def distance(self, tokens: Tensor) -> Tensor:
        """Euclidean distance (...) of tokens (..., width) to the nearest remembered one."""
        return nearest_distance(tokens, self.tokens.float())

    def calibrate(self, distances: Tensor) -> None:
        """Let the distance that one in a thousand of these normal tokens exceeds become a map value of 0.5.

        Unless the remembered slices are farther from each other: then these are no others, and the scale stays.
        """
        self.scale.fill_(max(_normal_limit(distances), float(self.scale)))

    def forward(self, maps: list[Tensor], images: Tensor) -> Tensor:
        """Map (B, S, S) in [0, 1) of slices (B, S, S) and the feature maps of two stages."""
        relative = self.distance(self.join(maps, images)) / self.scale
        # Proportional to the distance up to 0.5, then ever flatter: however far, no two distances become the same.
        value = torch.where(relative < 1, relative / 2, 1 - 0.5 / relative.clamp_min(1))
        return F.interpolate(value[:, None], images.shape[-2:], mode="bilinear")[:, 0]


def _normal_limit(distances: Tensor) -> float:
    """The distance that one in a thousand of these exceeds."""
    ranked = distances.flatten().sort().values
    return max(float(ranked[int(NORMAL_QUANTILE * (len(ranked) - 1))]), 1e-6)
