"""What MVFA trains: adapters after each stage and the features of its two heads, as coded and as the paper has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor, nn

from medclipad.encoders import ImageEncoder
from medclipad.methods.common.layers import TokenLinear

HEADS = ("seg", "det")
RESIDUAL = 0.1  # share of an adapter in what comes after it


class Adapted(NamedTuple):
    """Tokens of a stage after adaptation."""

    seg: Tensor | None  # (B, n_prefix + grid², embed_dim): features for pixel maps, if wanted
    det: Tensor | None  # the same for image scores
    after: Tensor | None  # (B, n_prefix + grid², width): the next stage's input, if wanted


class Adapter(nn.Module):
    """Bottleneck a = LeakyReLU(x W1ᵀ) and output LeakyReLU(a W2ᵀ) for the next stage."""

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(TokenLinear(width, bottleneck, bias=False), nn.LeakyReLU())
        self.fc2 = nn.Sequential(TokenLinear(bottleneck, width, bias=False), nn.LeakyReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


class ReferenceAdapters:
    """As coded: two adapters after each of the four stages, one a head, whose bottlenecks are the features.

    On go (1 − 2 r) x + r o_seg + r o_det, of the class token too.
    """

    def __init__(self, encoder: ImageEncoder, residual: float) -> None:
        """`residual` is r; 0 leaves the next stage's input as it is."""
        self.residual = residual
        self.seg, self.det = (
            nn.ModuleList(Adapter(width, encoder.embed_dim) for width in encoder.widths) for _ in HEADS
        )
        self.modules = {"seg_adapters": self.seg, "det_adapters": self.det}
        self.trained = {"seg": ["seg_adapters"], "det": ["det_adapters"]}

    def __call__(self, x: Tensor, level: int, heads: Sequence[str] = HEADS, onward: bool = True) -> Adapted:
        """Adapt the tokens (B, n_prefix + grid², width) of a stage, for these heads and, if so, for the next stage."""
        blend = onward and self.residual
        seg, det = (
            modules[level].fc1(x) if blend or head in heads else None
            for head, modules in zip(HEADS, (self.seg, self.det), strict=True)
        )
        if not blend:
            return Adapted(seg, det, x if onward else None)
        after = (1 - 2 * self.residual) * x
        after = after + self.residual * self.seg[level].fc2(seg) + self.residual * self.det[level].fc2(det)
        return Adapted(seg, det, after)


class PaperAdapters:
    """As in the paper (from memory): an adapter after each of the first three stages, and a projector for each head.

    A stage's tokens become (1 − r) x + r o; linear projectors take these to the text space, one a head. The last stage
    has no adapter and goes through CLIP's own projection, the same for both heads; where the encoder has none, two
    projectors are learned there too.
    """

    def __init__(self, encoder: ImageEncoder, residual: float) -> None:
        """`residual` is r; with 0 the projectors still see a blend, r = 0.1, but the next stage does not."""
        self.residual = residual
        self.project = encoder.project if encoder.has_text else None
        self.adapters = nn.ModuleList(Adapter(width, encoder.embed_dim) for width in encoder.widths[:-1])
        widths = encoder.widths[:-1] if encoder.has_text else encoder.widths
        self.seg, self.det = (
            nn.ModuleList(TokenLinear(width, encoder.embed_dim, bias=False) for width in widths) for _ in HEADS
        )
        self.modules = {"adapters": self.adapters, "seg_projectors": self.seg, "det_projectors": self.det}
        self.trained = {"seg": ["seg_projectors"], "det": ["adapters", "det_projectors"]}

    def __call__(self, x: Tensor, level: int, heads: Sequence[str] = HEADS, onward: bool = True) -> Adapted:
        """Adapt the tokens (B, n_prefix + grid², width) of a stage, for these heads and, if so, for the next stage."""
        blend = x
        if level < len(self.adapters):
            share = self.residual or RESIDUAL
            blend = (1 - share) * x + share * self.adapters[level](x)
        after = blend if self.residual else x
        if level == len(self.seg):
            own = self.project(blend)
            return Adapted(own, own, after)
        seg, det = (
            modules[level](blend) if head in heads else None
            for head, modules in zip(HEADS, (self.seg, self.det), strict=True)
        )
        return Adapted(seg, det, after)


VARIANTS = {"reference": ReferenceAdapters, "paper": PaperAdapters}
"""Each has `modules`, by their names in a saved detector, and `trained`, the names of those that a head's optimiser
steps; slices without mask step the det head's alone."""
