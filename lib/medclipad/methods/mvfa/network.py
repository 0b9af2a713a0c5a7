"""MVFA's adapters and the two maps they give: against prompts and against a memory (Huang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from importlib.metadata import version
from typing import NamedTuple, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.encoders import N_STAGES, ImageEncoder
from medclipad.encoders.tensor_cache import cached
from medclipad.errors import DetectorError
from medclipad.methods.base import AnomalyModel, as_rgb
from medclipad.methods.common.learned_vectors import LearnedVectors
from medclipad.methods.common.token_memory import TokenMemory, draw
from medclipad.methods.mvfa.adapters import HEADS, RESIDUAL, VARIANTS
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.prompts import prompts, text_features
from medclipad.volume.progress import Progress, no_progress

EPOCHS, EPOCHS_WITHOUT_TEXT = 50, 7
MAX_SAMPLES, MAX_SAMPLES_WITHOUT_TEXT = 600, 2400
SCALE = 100.0  # of cosines before the softmax: CLIP's temperature
SCORE_SHARE = 0.02  # of a map, the highest values, whose mean is a slice's score where there is no text tower
_EPS = 1e-12

Array = TypeVar("Array", np.ndarray, Tensor)


class Level(NamedTuple):
    """What happens to the tokens after a stage."""

    before: Tensor  # (B, n_prefix + grid², width): the stage's output
    after: Tensor | None  # the same, blended with the adapters' output: the next stage's input, if wanted
    seg: Tensor | None  # (B, n_prefix + grid², embed_dim): the features used, of the heads that are wanted
    det: Tensor | None


class Features(NamedTuple):
    """Adapted tokens (B, n_prefix + grid², embed_dim) of each level, for pixel maps (seg) and image scores (det).

    None at the levels of a head that is not wanted.
    """

    seg: list[Tensor | None]
    det: list[Tensor | None]


class Evidence(NamedTuple):
    """What a slice has against it, before scaling: sums over the levels.

    zero: from the prompts, a probability per level; few: from the memory, a distance 1 − cosine per level.
    """

    zero_map: Tensor  # (B, S, S) in [0, levels], of the head in use
    few_map: Tensor  # (B, S, S) in [0, 2 levels], of the head in use
    zero_score: Tensor  # (B,) mean over the patches of the det head
    few_score: Tensor  # (B,) mean of few_map


class MVFANetwork(AnomalyModel):
    """MVFA on any encoder with stages.

    Two adapters after each stage, one of a head for pixel maps (seg) and one of a head for image scores (det), change
    what the next stage sees: x ← 0.8 x + 0.1 o_seg + 0.1 o_det on CLIP. Their bottlenecks are compared with the
    features of prompts (zero-shot evidence) and with those of normal images (few-shot evidence). Trained with lesion
    masks it uses the seg head, and a slice's score is the maximum of its map; trained without any it uses the det head
    for map and score. The paper's variant has other adapters, see `PaperAdapters`.
    """

    options: MVFAOptions

    def __init__(self, encoder: ImageEncoder, options: MVFAOptions) -> None:
        super().__init__(encoder, options)
        self.residual = options.residual
        if self.residual is None:  # a CNN's batch norms are made for its own activations: altering them costs accuracy
            self.residual = RESIDUAL if encoder.has_text else 0.0
        self.score_share = options.score_share
        if self.score_share is None:
            self.score_share = 0.0 if encoder.has_text else SCORE_SHARE
        self.epochs = options.epochs or (EPOCHS if encoder.has_text else EPOCHS_WITHOUT_TEXT)
        self.max_samples = options.max_samples
        if self.max_samples is None:
            self.max_samples = MAX_SAMPLES if encoder.has_text else MAX_SAMPLES_WITHOUT_TEXT
        self.adaptation = VARIANTS[options.variant](encoder, self.residual)
        for name, module in self.adaptation.modules.items():
            self.add_module(name, module)
        if encoder.has_text:
            self.register_buffer("text_features", torch.zeros(encoder.embed_dim, 2))
        else:
            self.learned_text = nn.ModuleDict({head: LearnedVectors(encoder.embed_dim) for head in HEADS})
        self.memory = TokenMemory(N_STAGES, encoder.embed_dim)
        self.register_buffer("has_masks", torch.tensor(True))
        # Low and high of each field of Evidence: what a map value of 0 and of 1 stands for.
        self.register_buffer("ranges", torch.tensor([[0.0, N_STAGES]] * len(Evidence._fields)))
        self.to(encoder.device)

    # -- features ------------------------------------------------------------------------------------------------

    @property
    def head(self) -> str:
        """The head in use: "seg" if trained with masks, else "det"."""
        return "seg" if self.has_masks else "det"

    @property
    def has_memory(self) -> bool:
        """Whether normal images are remembered; without any, MVFA is zero-shot."""
        return all(self.memory.sizes)

    @property
    def scored(self) -> bool:
        """Whether a slice's score is the det head's and the memory's own, and does not follow from the map."""
        return not self.has_memory or not (self.has_masks or self.score_share)

    def text(self, head: str) -> Tensor:
        """Features (embed_dim, 2) of normal and abnormal: of the prompts, or a head's learned vectors."""
        return self.text_features if self.encoder.has_text else self.learned_text[head]()

    def use_class(self, class_name: str) -> None:
        """Take the prompts of a class; raises DetectorError if the encoder has no text tower."""
        if not self.encoder.has_text:
            raise DetectorError(
                f'Encoder "{self.encoder.name}" has no text tower for prompts: use a CLIP encoder such as '
                '"ViT-L-14-336/openai".'
            )
        encoder = self.encoder
        key = {
            "medclipad": version("medclipad"),
            "weights": encoder.sha256,
            "architecture": encoder.name.partition("/")[0],
            "precision": str(encoder.dtype),
            "prompts": prompts(class_name),
        }
        features = cached("text", key, lambda: text_features(encoder.text, class_name).cpu())
        self.text_features = features.to(encoder.device)

    @torch.no_grad()
    def frozen(self, images: np.ndarray | Tensor) -> list[Tensor]:
        """What training does not change of images as in `forward`: the state after the first stage.

        Without a residual the adapters change no input, so it is the states after all four stages.
        """
        device = self.encoder.device
        rgb = as_rgb(images, device) if images.ndim == 3 else torch.as_tensor(images, device=device)
        states = [self.encoder.stage(self.encoder.stem(rgb), 0)]
        while len(states) < N_STAGES and not self.residual:
            states.append(self.encoder.stage(states[-1], len(states)))
        return states

    def levels(self, frozen: list[Tensor], heads: Sequence[str] = HEADS, last: bool = True) -> Iterator[Level]:
        """Adapt the tokens of each level in turn, from what `frozen` gave, for these heads.

        `last`: blend those of the last level, too, which nothing needs but a comparison with the reference.
        """
        state = frozen[0]
        for level in range(N_STAGES):
            if level:
                state = frozen[level] if level < len(frozen) else self.encoder.stage(state, level)
            before = self.encoder.tokens(state)
            onward = last or level < N_STAGES - 1
            seg, det, after = self.adaptation(before, level, heads, onward)
            if self.residual and onward:
                state = self.encoder.with_tokens(state, after)
            yield Level(before, after, seg, det)

    def adapt(self, frozen: list[Tensor], heads: Sequence[str] = HEADS) -> Features:
        """Features, for these heads, of what `frozen` gave."""
        levels = list(self.levels(frozen, heads, last=False))
        return Features([level.seg for level in levels], [level.det for level in levels])

    def forward(self, images: np.ndarray | Tensor) -> Features:
        """Features of grey (B, S, S) or RGB (B, 3, S, S) images in [0, 1]."""
        return self.adapt(self.frozen(images))

    # -- evidence ------------------------------------------------------------------------------------------------

    def logits(self, tokens: list[Tensor], text: Tensor) -> list[Tensor]:
        """100 × cosine of patch tokens with the text features (embed_dim, 2): per level (B, 2, grid, grid)."""
        return [self.encoder.patch_maps(SCALE * _cosine(x.float(), text), level) for level, x in enumerate(tokens)]

    def upsample(self, maps: Tensor) -> Tensor:
        """Maps (B, C, grid, grid) as (B, C, S, S): bilinear, the corners aligned as in the reference."""
        size = self.encoder.image_size
        return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=True)

    def probabilities(self, logits: list[Tensor]) -> list[Tensor]:
        """Normal and abnormal per pixel, (B, 2, S, S) for each level: upsampled first, softmax second."""
        return [self.upsample(level).softmax(dim=1) for level in logits]

    def image_probability(self, logits: list[Tensor]) -> Tensor:
        """Mean abnormal probability of the patches, (levels, B)."""
        return torch.stack([level.softmax(dim=1)[:, 1].mean(dim=(1, 2)) for level in logits])

    def distances(self, tokens: list[Tensor]) -> list[Tensor]:
        """Distance of each patch to the memory, (B, 1, grid, grid) for each level, in [0, 2]."""
        maps = []
        for level, x in enumerate(tokens):
            patches = x[:, self.encoder.n_prefix :].float()
            maps.append(self.encoder.patch_maps(self.memory.distance(level, patches)[..., None], level))
        return maps

    @torch.inference_mode()
    def evidence(self, images: np.ndarray | Tensor, scores: bool = True) -> Evidence:
        """Unscaled evidence on images as in `forward`; the few-shot part is zero as long as the memory is empty.

        Without `scores` the det head is not asked unless it is the head in use, and zero_score is zero. Raises
        DetectorError if the prompts were never encoded (`fit` and `use_class` do).
        """
        if self.encoder.has_text and not self.text_features.any():
            raise DetectorError("This MVFA model knows no class yet: fit it, or name the class of the pictures.")
        parts, heads = [], {self.head, "det"} if scores else {self.head}
        for chunk in torch.as_tensor(images).split(self.encoder.batch):
            features = self.adapt(self.frozen(chunk), heads)
            tokens = getattr(features, self.head)
            maps = self.probabilities(self.logits(tokens, self.text(self.head)))
            zero = torch.stack([level[:, 1] for level in maps]).sum(dim=0)
            score = torch.zeros_like(zero[:, 0, 0])
            if scores:
                score = self.image_probability(self.logits(features.det, self.text("det"))).sum(dim=0)
            few = torch.zeros_like(zero)
            if self.has_memory:
                few = torch.cat([self.upsample(level) for level in self.distances(tokens)], dim=1).sum(dim=1)
            parts.append(Evidence(zero, few, score, few.mean(dim=(1, 2))))
        return Evidence(*(torch.cat(part) for part in zip(*parts, strict=True)))

    # -- use -----------------------------------------------------------------------------------------------------

    def remember(
        self,
        images: np.ndarray | Tensor,
        seed: int = 0,
        progress: Progress = no_progress,
        states: Callable[[Tensor], list[Tensor]] | None = None,
    ) -> list[Tensor]:
        """Fill the memory with tokens of normal images, prefix included: of each level all, or `memory_tokens`.

        `states` gives what `frozen` has for the images of these numbers, int64 (B,), where that is known already.
        Returns what is remembered, per level (n, embed_dim), before normalisation.
        """
        limit = None if self.options.memory_tokens == "all" else self.options.memory_tokens
        n = len(images)
        generator, kept = torch.Generator().manual_seed(seed), []
        for start in range(0, n, self.encoder.batch):
            stop = min(start + self.encoder.batch, n)
            progress("memory", start, n, {})
            with torch.inference_mode():
                frozen = states(torch.arange(start, stop)) if states else self.frozen(images[start:stop])
                features = self.adapt(frozen, (self.head,))
                levels = [level.flatten(0, 1).float() for level in getattr(features, self.head)]
            if limit is not None:  # each image has the same share, and never are more held than remembered
                levels = [draw(level, limit * stop // n - limit * start // n, generator) for level in levels]
            kept.append(levels)
        banks = [torch.cat(level) for level in zip(*kept, strict=True)]
        for level, bank in enumerate(banks):
            self.memory.remember(level, bank)
        progress("memory", n, n, {})
        return banks

    def calibrate(self, normal: np.ndarray) -> None:
        """Set the low ends to the least that normal slices show, and raise the high ends to the most they show.

        Where nothing abnormal was seen (a high end is nan), normal slices fill the lower half of the scale.
        """
        low, high = extremes(self.evidence(normal, self.scored))
        abnormal = self.ranges[:, 1]
        high = torch.where(abnormal.isnan(), 2 * high - low, torch.maximum(high, abnormal))
        self.ranges = torch.stack([low, high], dim=1)

    def anomaly(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Maps (B, S, S) in [0, 1] and, unless it follows from the map (`scores_of`), the score (B,) of each slice.

        Zero- and few-shot evidence scaled by `ranges` and averaged; without a memory the zero-shot evidence alone, with
        the det head's score.
        """
        low, high = self.ranges.T
        scaled = (
            ((part - a) / (b - a).clamp(min=_EPS)).clamp(0, 1)
            for part, a, b in zip(self.evidence(images, self.scored), low, high, strict=True)
        )
        zero_map, few_map, zero_score, few_score = scaled
        if not self.has_memory:
            return zero_map, zero_score
        return (zero_map + few_map) / 2, (zero_score + few_score) / 2 if self.scored else None

    # -- weights -------------------------------------------------------------------------------------------------

    def load_head_state(self, state: dict[str, Tensor]) -> None:
        for level in range(N_STAGES):
            tokens = state.get(f"memory.level{level}")
            if tokens is not None and tokens.ndim == 2 and tokens.shape[1] == self.encoder.embed_dim:
                setattr(self.memory, f"level{level}", torch.empty_like(tokens, device="meta"))  # of that shape
        super().load_head_state(state)


def _cosine(tokens: Tensor, text: Tensor) -> Tensor:
    """Cosine (..., n) of tokens (..., embed_dim) with unit vectors (embed_dim, n).

    Where a gradient is wanted, the lengths divide at the end: the gradient of unit tokens, many more numbers, costs
    more than everything else in a step on the embedded encoder. Elsewhere as the reference rounds.
    """
    if not tokens.requires_grad:
        return F.normalize(tokens, dim=-1) @ text
    return tokens @ text / torch.linalg.vector_norm(tokens, dim=-1, keepdim=True).clamp(min=_EPS)


def combine(zero: Array, few: Array) -> Array:
    """Half of each, min-max normalised over the whole array: over a test set this is the reference's final score."""
    return (unit_range(zero) + unit_range(few)) / 2


def unit_range(values: Array) -> Array:
    """Values min-max normalised over the whole array; all 0 if they are equal."""
    span = values.max() - values.min()
    return (values - values.min()) / span if span > 0 else values * 0


def extremes(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Least and greatest value, (4,) each, of the fields of evidence."""
    return torch.stack([x.min() for x in evidence]), torch.stack([x.max() for x in evidence])
