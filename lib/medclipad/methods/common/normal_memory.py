"""A memory of normal tokens: the distance of a token to the nearest of them is how anomalous it is.

As in PatchCore (Roth et al., CVPR 2022) and MVFA's few-shot branch, which need no alignment of images and words. The
paper of MediCLIP, beside whose text map it stands on encoders without one, has none: on the embedded encoder the head
that it learns from synthetic anomalies recognises pasted patches, but lesions poorly (try `memory_share=0`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.methods.common.token_memory import draw, nearest_distance

NORMAL_QUANTILE = 0.999  # of the distances of normal tokens; it becomes a map value of 0.5
NORM_WEIGHT = 0.3  # of the logarithm of a token's length, beside its direction (length 1)
BRIGHTNESS_WEIGHT = 2.0  # of the picture's own brightness in [0, 1]
LEFT_OUT = 8  # slices that are compared with the tokens of the others
PLACE_WEIGHT = 2.0  # of a token's relative place in the body, beside its direction
NEAR = 0.08  # of the body's height, above and below a slice: tokens from there are compared
LEAST_TOKENS = 1000  # that are compared where fewer are so near
UNKNOWN = -1.0  # height of pictures
_PART = 64  # slices that are looked at together


class NormalMemory(nn.Module):
    """Some tokens of normal slices, and the distance of other tokens to the nearest of them.

    The maps of two stages are averaged over 3×3 neighbours, resampled to the finer grid and joined. A token keeps the
    direction of each stage's features and, with less weight, the logarithm of their length; the brightness of the slice
    comes last. (With raw features a few strong channels, which follow contrast, would decide every distance.) Tokens
    are drawn at random, which takes no time.

    Slices of a volume are compared with remembered ones of about the same height in the body, and a token's place
    counts beside what it shows: what is usual in one place is not in another. Pictures have no height, and are compared
    with all.

    Parameters
    ----------
    widths
        Widths of the features of the two stages.
    size
        Largest number of tokens.

    Attributes
    ----------
    tokens
        float16 (n, sum of widths + 3), in the order of their heights.
    places
        Relative height, row and column of each token, float16 (n, 3) in [0, 1]; the height is -1 if they come from
        pictures.
    scale
        Distance that becomes a map value of 0.5, a scalar.
    """

    tokens: Tensor
    places: Tensor
    scale: Tensor

    def __init__(self, widths: Sequence[int], size: int) -> None:
        super().__init__()
        self.size = size
        self._volumes: Tensor | None = None  # number of the volume that each token comes from, int64 (n,)
        self._in_use: Tensor | None = None  # which tokens are not left out, bool (n,); None: all
        self.register_buffer("tokens", torch.zeros(0, sum(widths) + len(widths) + 1, dtype=torch.float16))
        self.register_buffer("places", torch.zeros(0, 3, dtype=torch.float16))
        self.register_buffer("scale", torch.ones(()))

    @property
    def has_heights(self) -> bool:
        """Whether the height of the remembered slices is known. A graph cannot ask: with heights, it is taken as so."""
        return torch.compiler.is_compiling() or bool(len(self.places) and self.places[0, 0] != UNKNOWN)

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
        return torch.cat([*parts, BRIGHTNESS_WEIGHT * _brightness(images, grid)], dim=1).permute(0, 2, 3, 1)

    @staticmethod
    def shows_body(images: Tensor, grid: int) -> Tensor:
        """Return which tokens of slices (n, S, S) show more than black, bool (n, grid, grid): these are remembered."""
        return torch.cat([_brightness(part, grid)[:, 0] > 0 for part in images.split(_PART)])

    def remember(
        self,
        tokens: Tensor,
        generator: torch.Generator,
        volumes: Tensor | None = None,
        heights: Tensor | None = None,
    ) -> None:
        """Keep some of the tokens, drawn at random: as many as the memory holds, or all.

        The scale is set too, from the distance of some slices to the tokens of the others, if there are others.

        Parameters
        ----------
        tokens
            (n, grid, grid, width), of n slices.
        generator
            Source of everything that is drawn.
        volumes
            Number of the volume that each slice comes from, int64 (n,), for `leave_out`.
        heights
            Relative height of each slice in its body, (n,); None for pictures.
        """
        self.remember_parts([tokens], tokens[..., -1] > 0, generator, volumes, heights)

    def remember_parts(
        self,
        parts: Iterable[Tensor],
        body: Tensor,
        generator: torch.Generator,
        volumes: Tensor | None = None,
        heights: Tensor | None = None,
    ) -> None:
        """Do what `remember` does with tokens that come part by part, and never hold more than a part and the memory.

        What is drawn is known before the first part, because only black decides which tokens there are.

        Parameters
        ----------
        parts
            Tokens (B, grid, grid, width) of some slices at a time, in their order.
        body
            Which tokens of all slices show more than black, bool (n, grid, grid), as `shows_body` returns them.
        generator, volumes, heights
            As in `remember`.
        """
        n, grid = body.shape[:2]
        inside = torch.nonzero(body.flatten())[:, 0].cpu()  # black is nothing to remember
        inside = inside if len(inside) else torch.arange(body.numel())
        chosen = inside[draw(len(inside), self.size, generator)]
        known = torch.full((n,), UNKNOWN) if heights is None else heights.float().cpu()
        chosen = chosen[known[chosen // grid**2].argsort(stable=True)]
        source, side = chosen // grid**2, (torch.arange(grid) + 0.5) / grid
        left_out = torch.randperm(n, generator=generator)[:LEFT_OUT].tolist()
        tokens, looked_at = torch.empty(len(chosen), self.tokens.shape[1], dtype=self.tokens.dtype), {}
        first = 0
        for part in parts:
            drawn = torch.nonzero((source >= first) & (source < first + len(part)))[:, 0]
            at = (chosen[drawn] - first * grid**2).to(part.device)
            tokens[drawn] = part.flatten(0, 2)[at].to(tokens)
            looked_at |= {i: part[i - first][None].clone() for i in left_out if first <= i < first + len(part)}
            first += len(part)
        self.tokens = tokens.to(self.tokens)
        self.places = torch.stack([known[source], side[chosen // grid % grid], side[chosen % grid]], 1).to(self.places)
        self._volumes = None if volumes is None else volumes[source].to(self.tokens.device)
        distances = []
        for i in left_out:
            others = (source != i).to(self.tokens.device)
            if others.any():
                self._in_use = others
                distances.append(self.distance(looked_at[i], None if heights is None else heights[i : i + 1]))
        self._in_use = None
        self.scale.fill_(_normal_limit(torch.stack(distances)) if distances else 1e-6)

    def distance(self, tokens: Tensor, heights: Tensor | None = None) -> Tensor:
        """Return the Euclidean distance of tokens to the nearest remembered one.

        Parameters
        ----------
        tokens
            (B, grid, grid, width), as `join` returns them.
        heights
            Relative height of each slice in its body, (B,); None for pictures.

        Returns
        -------
        Tensor
            (B, grid, grid).
        """
        bank, places = self.tokens.float(), self.places.float()
        if self._in_use is not None:
            bank, places = bank[self._in_use], places[self._in_use]
        if heights is None or not self.has_heights:
            return nearest_distance(tokens, bank)
        bank = torch.cat([bank, PLACE_WEIGHT * places], dim=1)
        located = torch.cat([tokens, PLACE_WEIGHT * _places(heights, tokens.shape[1]).to(tokens)], dim=-1)
        ranks = torch.arange(len(bank), device=bank.device)
        parts = []
        for part, first, last in zip(located, *_near(places[:, 0], heights), strict=True):
            if torch.compiler.is_compiling():  # a graph has no slices whose length depends on values
                parts.append(nearest_distance(part, bank, (ranks >= first) & (ranks < last)))
            else:
                parts.append(nearest_distance(part, bank[int(first) : int(last)]))
        return torch.stack(parts)

    def leave_out(self, volume: int | None) -> None:
        """Forget the tokens of a volume for now, or None; they stay if there are no others."""
        self._in_use = None
        if volume is not None and self._volumes is not None:
            others = self._volumes != volume
            self._in_use = others if others.any() else None

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

    def forward(self, maps: Sequence[Tensor], images: Tensor, heights: Tensor | None = None) -> Tensor:
        """Return anomaly maps.

        Parameters
        ----------
        maps
            Feature maps of two stages, as in `join`.
        images
            The slices (B, S, S), in [0, 1].
        heights
            As in `distance`.

        Returns
        -------
        Tensor
            (B, S, S) in [0, 1).
        """
        relative = self.distance(self.join(maps, images), heights) / self.scale
        # Proportional to the distance up to 0.5, then ever flatter, so that two distances never become the same value.
        value = torch.where(relative < 1, relative / 2, 1 - 0.5 / relative.clamp_min(1))
        return F.interpolate(value[:, None], images.shape[-2:], mode="bilinear")[:, 0]

    def take_sizes(self, state: Mapping[str, Tensor], prefix: str) -> None:
        """Make room for the tokens in a saved state, however many, before it is loaded.

        Parameters
        ----------
        state
            What is to be loaded.
        prefix
            What the names of the memory's tensors begin with.
        """
        for name in ("tokens", "places"):
            stored, own = state.get(f"{prefix}{name}"), getattr(self, name)
            if stored is not None and stored.ndim == 2 and stored.shape[1] == own.shape[1]:
                setattr(self, name, torch.empty_like(stored, device="meta"))  # of that shape


def _brightness(images: Tensor, grid: int) -> Tensor:
    """Return the brightness of slices (B, S, S) on a grid, (B, 1, grid, grid)."""
    return F.adaptive_avg_pool2d(images.float()[:, None], grid)


def _near(ranked: Tensor, heights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the first, and one after the last, of the tokens (n,) by height that slices (B,) are compared with."""
    first, last = ((ranked < (heights[:, None] + side).to(ranked)).sum(dim=1) for side in (-NEAR, NEAR))
    least = min(LEAST_TOKENS, len(ranked))
    short = (least - (last - first)).clamp_min(0)
    first = (first - short // 2).clamp(0, len(ranked) - least)
    return first, torch.maximum(last, first + least)


def _places(heights: Tensor, grid: int) -> Tensor:
    """Return the relative place (B, grid, grid, 3) of the tokens of slices: height (B,), row and column."""
    side = (torch.arange(grid) + 0.5) / grid
    rows, columns = torch.meshgrid(side, side, indexing="ij")
    shape = (len(heights), grid, grid)
    parts = [heights.float().cpu()[:, None, None], rows[None], columns[None]]
    return torch.stack([part.expand(shape) for part in parts], dim=-1)


def _normal_limit(distances: Tensor) -> float:
    """Return the distance that one in a thousand of these exceeds, at least 1e-6."""
    ranked = distances.flatten().sort().values
    return max(float(ranked[int(NORMAL_QUANTILE * (len(ranked) - 1))]), 1e-6)
