"""MVFA's trained parts: adapters after the stages and the features of both heads, as coded and as in the paper."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Literal, NamedTuple

from torch import Tensor, nn

from medclipad.encoders import N_STAGES, ImageEncoder
from medclipad.methods.common.layers import TokenLinear
from medclipad.methods.registry import Variant

Head = Literal["seg", "det"]
"""Head for pixel maps, or for image scores."""

HEADS: tuple[Head, ...] = ("seg", "det")
RESIDUAL = 0.1  # share of an adapter's output in the next stage's input, of the paper and of the code


class Adapted(NamedTuple):
    """Tokens of a stage after adaptation.

    Attributes
    ----------
    seg
        Features for pixel maps, (B, n_prefix + grid², embed_dim); None if not asked for.
    det
        Features for image scores, of the same shape; None if not asked for.
    after
        Input of the next stage, (B, n_prefix + grid², width); None if not asked for.
    """

    seg: Tensor | None
    det: Tensor | None
    after: Tensor | None


class Adapter(nn.Module):
    """Bottleneck with a LeakyReLU after both layers: a = LeakyReLU(x W₁ᵀ), o = LeakyReLU(a W₂ᵀ).

    Parameters
    ----------
    width
        Width of the tokens x and of the output o.
    bottleneck
        Width of the bottleneck a.
    """

    fc1: nn.Sequential
    fc2: nn.Sequential

    def __init__(self, width: int, bottleneck: int) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(TokenLinear(width, bottleneck, bias=False), nn.LeakyReLU())
        self.fc2 = nn.Sequential(TokenLinear(bottleneck, width, bias=False), nn.LeakyReLU())

    def forward(self, x: Tensor) -> Tensor:
        """Return the output (..., width) of tokens (..., width)."""
        return self.fc2(self.fc1(x))


class Adaptation(ABC):
    """What a variant does to the tokens of each stage.

    Parameters
    ----------
    encoder
        Frozen encoder.
    residual
        Share r of an adapter's output in the next stage's input.
    levels
        Stages, 0 to 3, whose tokens are adapted.

    Attributes
    ----------
    residual
        The same share.
    modules
        Trained modules, by their names in a saved detector.
    trained
        Names of the modules that each head's optimiser trains. Slices without a mask train only those of the det head.
    """

    residual: float
    modules: dict[str, nn.ModuleList]
    trained: dict[Head, list[str]]

    @abstractmethod
    def __init__(self, encoder: ImageEncoder, residual: float, levels: Sequence[int]) -> None: ...

    @abstractmethod
    def __call__(self, x: Tensor, level: int, heads: Collection[Head] = HEADS, onward: bool = True) -> Adapted:
        """Adapt the tokens of a stage.

        Parameters
        ----------
        x
            Tokens after the stage, (B, n_prefix + grid², width).
        level
            Stage, one of the `levels`.
        heads
            Heads whose features are needed.
        onward
            Whether the next stage's input is needed.
        """


class ReferenceAdapters(Adaptation):
    """As coded: two adapters after each stage, one for each head.

    The bottlenecks are the features. The next stage's input, class token included, is
    (1 − 2 r) x + r o_seg + r o_det; with r = 0 it is x.
    """

    def __init__(self, encoder: ImageEncoder, residual: float, levels: Sequence[int]) -> None:
        self.residual = residual
        self.seg, self.det = (
            {level: Adapter(encoder.widths[level], encoder.embed_dim) for level in levels} for _ in HEADS
        )
        self.modules = {
            "seg_adapters": nn.ModuleList(self.seg.values()),
            "det_adapters": nn.ModuleList(self.det.values()),
        }
        self.trained = {"seg": ["seg_adapters"], "det": ["det_adapters"]}

    def __call__(self, x: Tensor, level: int, heads: Collection[Head] = HEADS, onward: bool = True) -> Adapted:
        """Adapt the tokens of a stage; see `Adaptation`."""
        if not (onward and self.residual):
            seg = self.seg[level].fc1(x) if "seg" in heads else None
            det = self.det[level].fc1(x) if "det" in heads else None
            return Adapted(seg, det, x if onward else None)
        seg, det = self.seg[level].fc1(x), self.det[level].fc1(x)
        after = (1 - 2 * self.residual) * x
        after = after + self.residual * self.seg[level].fc2(seg) + self.residual * self.det[level].fc2(det)
        return Adapted(seg, det, after)


class PaperAdapters(Adaptation):
    """As in the paper: one adapter after each of the first three stages, and a linear projector for each head.

    A stage's tokens become (1 − r) x + r o, and the projectors map these to the text space. With r = 0 the projectors
    still see a blend, with r = 0.1, but the next stage does not. The last stage has no adapter: its tokens go through
    CLIP's own projection, which is the same for both heads. An encoder without one learns two projectors there too.

    Notes
    -----
    Written from memory of Huang et al. 2024; the README says what could not be checked.
    """

    def __init__(self, encoder: ImageEncoder, residual: float, levels: Sequence[int]) -> None:
        self.residual = residual
        self._project = encoder.project
        before_last = [level for level in levels if level < N_STAGES - 1]
        self.adapters = {level: Adapter(encoder.widths[level], encoder.embed_dim) for level in before_last}
        self.seg, self.det = _projectors(encoder, before_last if encoder.has_text else levels)
        self.modules = {"adapters": nn.ModuleList(self.adapters.values()), **_projector_modules(self.seg, self.det)}
        self.trained = {"seg": ["seg_projectors"], "det": ["adapters", "det_projectors"]}

    def __call__(self, x: Tensor, level: int, heads: Collection[Head] = HEADS, onward: bool = True) -> Adapted:
        """Adapt the tokens of a stage; see `Adaptation`."""
        blend = x
        if level in self.adapters:
            share = self.residual or RESIDUAL
            blend = (1 - share) * x + share * self.adapters[level](x)
        after = blend if self.residual else x
        if level not in self.seg:
            projected = self._project(blend)
            return Adapted(projected, projected, after)
        seg = self.seg[level](blend) if "seg" in heads else None
        det = self.det[level](blend) if "det" in heads else None
        return Adapted(seg, det, after)


class Projections(Adaptation):
    """A linear projector for each head after each stage, and no adapter: what the paper compares its adapters with.

    The stages see the encoder's own tokens.
    """

    def __init__(self, encoder: ImageEncoder, residual: float, levels: Sequence[int]) -> None:
        self.residual = residual
        self.seg, self.det = _projectors(encoder, levels)
        self.modules = _projector_modules(self.seg, self.det)
        self.trained = {"seg": ["seg_projectors"], "det": ["det_projectors"]}

    def __call__(self, x: Tensor, level: int, heads: Collection[Head] = HEADS, onward: bool = True) -> Adapted:
        """Project the tokens of a stage; see `Adaptation`."""
        seg = self.seg[level](x) if "seg" in heads else None
        det = self.det[level](x) if "det" in heads else None
        return Adapted(seg, det, x)


def _projectors(encoder: ImageEncoder, levels: Sequence[int]) -> list[dict[int, TokenLinear]]:
    """Return the linear projectors of each head by level."""
    return [
        {level: TokenLinear(encoder.widths[level], encoder.embed_dim, bias=False) for level in levels} for _ in HEADS
    ]


def _projector_modules(seg: dict[int, TokenLinear], det: dict[int, TokenLinear]) -> dict[str, nn.ModuleList]:
    """Return the projectors by their names in a saved detector."""
    return {"seg_projectors": nn.ModuleList(seg.values()), "det_projectors": nn.ModuleList(det.values())}


VARIANTS: dict[Variant, type[Adaptation]] = {"reference": ReferenceAdapters, "paper": PaperAdapters}
"""Adaptation of each variant."""
