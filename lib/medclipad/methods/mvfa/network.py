"""MVFA's adapters and the two maps they give: against prompts and against a memory (Huang et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medclipad.encoders import N_STAGES, ImageEncoder
from medclipad.errors import DetectorError
from medclipad.methods.base import AnomalyModel, as_rgb, has_values, option_or_default
from medclipad.methods.common.learned_vectors import LearnedVectors
from medclipad.methods.common.token_memory import TokenMemory, draw
from medclipad.methods.mvfa.adapters import HEADS, RESIDUAL, VARIANTS, Adaptation, Head
from medclipad.methods.mvfa.evidence import Evidence, Features, Level, cosine, extremes
from medclipad.methods.mvfa.options import MVFAOptions
from medclipad.methods.mvfa.prompts import cached_text_features
from medclipad.volume.progress import Progress, no_progress

EPOCHS, EPOCHS_WITHOUT_TEXT = 50, 7
MAX_SAMPLES, MAX_SAMPLES_WITHOUT_TEXT = 600, 2400
SCALE = 100.0  # of cosines before the softmax: CLIP's temperature
SCORE_SHARE = 0.02  # of a map's pixels where there is no text tower; see `AnomalyModel.score_share`
_EPS = 1e-12

Images = np.ndarray | Tensor
"""Grey (B, S, S) or RGB (B, 3, S, S) images in [0, 1]."""


class MVFANetwork(AnomalyModel):
    """MVFA on any encoder with tapped stages.

    Two adapters after each stage change what the next stage sees, one of a head for pixel maps (seg) and one of a head
    for image scores (det): x ← 0.8 x + 0.1 o_seg + 0.1 o_det on CLIP. Their bottlenecks are compared with the features
    of prompts (zero-shot evidence) and with those of normal images (few-shot evidence).

    A model that was trained with lesion masks uses the seg head, and a slice's score is the maximum of its map. A model
    that was trained without any mask uses the det head for map and score.

    Parameters
    ----------
    encoder
        Frozen encoder.
    options
        The method's options. Where an option is None, the encoder decides.
    stages
        Stages that are adapted and compared, in their order; fewer than all for an ablation.
    adaptation
        What is done to their tokens; None for that of the variant.

    Attributes
    ----------
    stages
        The same stages.
    residual
        Share of an adapter's output in the next stage's input.
    epochs
        Passes over the augmented slices.
    max_samples
        Slices after which training ends; 0 for no limit.
    adaptation
        The adapters.
    text_features
        Features of the prompts, (embed_dim, 2); only with a text tower. All zero before a class is chosen.
    learned_vectors
        Vectors of each head that take the place of text features; empty with a text tower.
    memory
        Features of normal images.
    has_masks
        bool scalar: whether the model was trained with masks.
    ranges
        (4, 2). For each field of `Evidence` the values that become 0 and 1 in a map.

    Notes
    -----
    As the code of Huang et al. 2024 computes it. The README of this folder lists where paper and code differ, and where
    our defaults do.
    """

    options: MVFAOptions
    memory: TokenMemory
    text_features: Tensor
    has_masks: Tensor
    ranges: Tensor

    def __init__(
        self,
        encoder: ImageEncoder,
        options: MVFAOptions,
        stages: Sequence[int] = range(N_STAGES),
        adaptation: type[Adaptation] | None = None,
    ) -> None:
        super().__init__(encoder, options)
        self.stages = tuple(stages)
        has_text = encoder.has_text
        # A CNN's batch norms are made for its own activations: altering them costs accuracy.
        self.residual = option_or_default(options.residual, RESIDUAL if has_text else 0.0)
        self.score_share = option_or_default(options.score_share, 0.0 if has_text else SCORE_SHARE)
        self.epochs = option_or_default(options.epochs, EPOCHS if has_text else EPOCHS_WITHOUT_TEXT)
        self.max_samples = option_or_default(options.max_samples, MAX_SAMPLES if has_text else MAX_SAMPLES_WITHOUT_TEXT)
        self.adaptation = (adaptation or VARIANTS[options.variant])(encoder, self.residual, self.stages)
        for name, module in self.adaptation.modules.items():
            self.add_module(name, module)
        self.learned_vectors: dict[Head, LearnedVectors] = {}
        if has_text:
            self.register_buffer("text_features", torch.zeros(encoder.embed_dim, 2))
        else:
            self.learned_vectors = {head: LearnedVectors(encoder.embed_dim) for head in HEADS}
            self.learned_text = nn.ModuleDict({str(head): module for head, module in self.learned_vectors.items()})
        self.memory = TokenMemory(len(self.stages), encoder.embed_dim)
        self.register_buffer("has_masks", torch.tensor(True))
        self.register_buffer("ranges", torch.tensor([[0.0, len(self.stages)]] * len(Evidence._fields)))
        self.to(encoder.device)

    # -- features ------------------------------------------------------------------------------------------------

    @property
    def head(self) -> Head:
        """Head in use: "seg" if trained with masks, else "det"."""
        return "seg" if self.has_masks else "det"

    @property
    def has_memory(self) -> bool:
        """Whether normal images are remembered. Without any, MVFA is zero-shot."""
        return all(self.memory.sizes)

    @property
    def scored(self) -> bool:
        """Whether the heads score a slice themselves, so that its score does not follow from the map."""
        return not self.has_memory or not (self.has_masks or self.score_share)

    def text(self, head: Head) -> Tensor:
        """Return the features (embed_dim, 2) of normal and abnormal: of the prompts, or a head's learned vectors."""
        return self.text_features if self.encoder.has_text else self.learned_vectors[head]()

    def use_class(self, class_name: str) -> None:
        """Encode the prompts of a class, or take their features from the cache.

        Parameters
        ----------
        class_name
            What the prompts call the picture, such as "Brain".

        Raises
        ------
        DetectorError
            If the encoder has no text tower.
        """
        self.text_features = cached_text_features(self.encoder, class_name).to(self.encoder.device)

    @torch.no_grad()
    def frozen(self, images: Images) -> list[Tensor]:
        """Return the encoder's states that training does not change.

        Parameters
        ----------
        images
            Grey (B, S, S) or RGB (B, 3, S, S), in [0, 1].

        Returns
        -------
        list of Tensor
            State after the first stage. Without a residual the adapters change no stage's input, and the states after
            all four stages are returned.
        """
        device = self.encoder.device
        rgb = as_rgb(images, device) if images.ndim == 3 else torch.as_tensor(images, device=device)
        states = [self.encoder.stage(self.encoder.stem(rgb), 0)]
        while len(states) < N_STAGES and not self.residual:
            states.append(self.encoder.stage(states[-1], len(states)))
        return states

    def levels(self, frozen: Sequence[Tensor], heads: Collection[Head] = HEADS, last: bool = True) -> Iterator[Level]:
        """Yield the adapted tokens of each of the `stages` in turn.

        Parameters
        ----------
        frozen
            What `frozen` returned.
        heads
            Heads whose features are needed.
        last
            Whether the last level's tokens are blended too. Only a comparison with the reference code needs that.
        """
        state = frozen[0]
        for level in range(self.stages[-1] + 1):
            if level:
                state = frozen[level] if level < len(frozen) else self.encoder.stage(state, level)
            if level not in self.stages:
                continue
            before = self.encoder.tokens(state)
            onward = last or level < self.stages[-1]
            seg, det, after = self.adaptation(before, level, heads, onward)
            if self.residual and after is not None:
                state = self.encoder.with_tokens(state, after)
            yield Level(before, after, seg, det)

    def adapt(self, frozen: Sequence[Tensor], heads: Collection[Head] = HEADS) -> Features:
        """Return the features of what `frozen` returned, for these heads."""
        levels = list(self.levels(frozen, heads, last=False))
        return Features(
            [level.seg for level in levels if level.seg is not None],
            [level.det for level in levels if level.det is not None],
        )

    def forward(self, images: Images) -> Features:
        """Return the features of grey (B, S, S) or RGB (B, 3, S, S) images in [0, 1]."""
        return self.adapt(self.frozen(images))

    # -- evidence ------------------------------------------------------------------------------------------------

    def logits(self, tokens: Sequence[Tensor], text: Tensor) -> list[Tensor]:
        """Return 100 × cosine of patch tokens with text features.

        Parameters
        ----------
        tokens
            Features of each level, (B, n_prefix + grid², embed_dim).
        text
            (embed_dim, 2).

        Returns
        -------
        list of Tensor
            (B, 2, grid, grid) for each level.
        """
        levels = zip(self.stages, tokens, strict=True)
        return [self.encoder.patch_maps(SCALE * cosine(x.float(), text), level) for level, x in levels]

    def upsample(self, maps: Tensor) -> Tensor:
        """Return maps (B, C, grid, grid) as (B, C, S, S): bilinear, the corners aligned as in the reference code."""
        size = self.encoder.image_size
        return F.interpolate(maps, size=(size, size), mode="bilinear", align_corners=True)

    def probabilities(self, logits: Sequence[Tensor]) -> list[Tensor]:
        """Return the probability of normal and abnormal at each pixel, (B, 2, S, S) for each level.

        The logits (B, 2, grid, grid) are upsampled first; the softmax comes second.
        """
        return [self.upsample(level).softmax(dim=1) for level in logits]

    def image_probability(self, logits: Sequence[Tensor]) -> Tensor:
        """Return the mean abnormal probability of the patches, (levels, B), of logits (B, 2, grid, grid)."""
        return torch.stack([level.softmax(dim=1)[:, 1].mean(dim=(1, 2)) for level in logits])

    def distances(self, tokens: Sequence[Tensor]) -> list[Tensor]:
        """Return the distance of each patch to the memory, (B, 1, grid, grid) in [0, 2] for each level.

        `tokens` are features of each level, (B, n_prefix + grid², embed_dim).
        """
        maps = []
        for bank, (level, x) in enumerate(zip(self.stages, tokens, strict=True)):
            patches = x[:, self.encoder.n_prefix :].float()
            maps.append(self.encoder.patch_maps(self.memory.distance(bank, patches)[..., None], level))
        return maps

    @torch.inference_mode()
    def evidence(self, images: Images, scores: bool = True) -> Evidence:
        """Return the unscaled evidence on images.

        Parameters
        ----------
        images
            Grey (B, S, S) or RGB (B, 3, S, S), in [0, 1].
        scores
            Whether `zero_score` is needed. Otherwise it is zero, and the det head is not computed unless it is in use.

        Returns
        -------
        Evidence
            The few-shot part is zero as long as the memory is empty.

        Raises
        ------
        DetectorError
            If the prompts were never encoded; `fit` and `use_class` do that.
        """
        if self.encoder.has_text and not has_values(self.text_features):
            raise DetectorError("This MVFA model knows no class yet: fit it, or name the class of the pictures.")
        parts = []
        heads: set[Head] = {self.head, "det"} if scores else {self.head}
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
        images: Images,
        seed: int = 0,
        progress: Progress = no_progress,
        states: Callable[[Tensor], list[Tensor]] | None = None,
        volumes: Tensor | None = None,
    ) -> list[Tensor]:
        """Fill the memory with tokens of normal images, class token included.

        Of each level all tokens are kept, or as many as the option `memory_tokens` says, each image with the same
        share.

        Parameters
        ----------
        images
            Grey (n, S, S) or RGB (n, 3, S, S), in [0, 1].
        seed
            Seed of the draw.
        progress
            Called after each batch.
        states
            Returns what `frozen` does for the images with these indices, int64 (B,), where that is known already.
        volumes
            Number of the volume that each image comes from, int64 (n,), for `leave_out`.

        Returns
        -------
        list of Tensor
            What is remembered of each level, (n, embed_dim), before normalisation.
        """
        limit = None if self.options.memory_tokens == "all" else self.options.memory_tokens
        n = len(images)
        generator, kept, sources = torch.Generator().manual_seed(seed), [], []
        numbers = torch.zeros(n, dtype=torch.int64) if volumes is None else volumes
        for start in range(0, n, self.encoder.batch):
            stop = min(start + self.encoder.batch, n)
            progress("memory", start, n, {})
            with torch.inference_mode():
                frozen = states(torch.arange(start, stop)) if states else self.frozen(images[start:stop])
                features = self.adapt(frozen, (self.head,))
                levels = [level.flatten(0, 1).float() for level in getattr(features, self.head)]
            source = [numbers[start:stop].repeat_interleave(len(level) // (stop - start)) for level in levels]
            if limit is not None:  # drawn batch by batch, so that no more are held than remembered
                count = limit * stop // n - limit * start // n
                drawn = [draw(len(level), count, generator) for level in levels]
                levels = [level[index.to(level.device)] for level, index in zip(levels, drawn, strict=True)]
                source = [level[index] for level, index in zip(source, drawn, strict=True)]
            kept.append(levels)
            sources.append(source)
        banks = [torch.cat(level) for level in zip(*kept, strict=True)]
        for level, (bank, source) in enumerate(zip(banks, zip(*sources, strict=True), strict=True)):
            self.memory.remember(level, bank, None if volumes is None else torch.cat(source))
        progress("memory", n, n, {})
        return banks

    @property
    def can_leave_out(self) -> bool:
        """Whether the memory is left out, and the short training without a text tower hardly matters."""
        return self.has_memory and not self.encoder.has_text

    def leave_out(self, volume: int | None) -> None:
        """Leave a volume's tokens out of the memory; the adapters hardly depend on one volume."""
        self.memory.leave_out(volume)

    def calibrate(self, normal: np.ndarray) -> None:
        """Set the low ends of `ranges` to the least evidence on normal slices, and raise the high ends to the most.

        Where no abnormal slice was seen (a high end is nan), normal slices fill the lower half of the scale.

        Parameters
        ----------
        normal
            float32 (n, S, S) in [0, 1].
        """
        low, high = extremes(self.evidence(normal, self.scored))
        abnormal = self.ranges[:, 1]
        high = torch.where(abnormal.isnan(), 2 * high - low, torch.maximum(high, abnormal))
        self.ranges = torch.stack([low, high], dim=1)

    def anomaly(self, images: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return anomaly maps and scores of slices.

        Zero- and few-shot evidence are scaled by `ranges` and averaged. Without a memory it is the zero-shot evidence
        alone, with the det head's score.

        Parameters
        ----------
        images
            Grey slices (B, S, S) in [0, 1].

        Returns
        -------
        maps
            (B, S, S) in [0, 1].
        scores
            (B,) in [0, 1], or None where they follow from the maps as in `scores_of`.
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

    def load_head_state(self, state: Mapping[str, Tensor]) -> None:
        """Load the trained tensors that `head_state` returned, with a memory of any size; see `AnomalyModel`."""
        for level in range(self.memory.n_levels):
            tokens = state.get(f"memory.level{level}")
            if tokens is not None and tokens.ndim == 2 and tokens.shape[1] == self.encoder.embed_dim:
                setattr(self.memory, f"level{level}", torch.empty_like(tokens, device="meta"))  # of that shape
        super().load_head_state(state)
