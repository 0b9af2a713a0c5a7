"""MediCLIP's training: normal slices with synthetic anomalies, focal and Dice loss (Zhang et al. 2024, section 2.4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import count, islice

import numpy as np
import torch
from torch import Tensor
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR

from medclipad.errors import TrainingError
from medclipad.methods.base import Shots
from medclipad.methods.common.losses import dice_loss, focal_loss
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.synthesis import AnomalySynthesis
from medclipad.volume.progress import Progress, no_progress

Batch = tuple[list[Tensor], Tensor]
"""Patch tokens (B, grid², width) of each tapped stage, and masks float64 (B, S, S) in [0, 1]."""

BETAS = (0.5, 0.999)  # of Adam, as in the reference code
LOSSES = ("focal", "dice")
REAL_SHARE = 0.5  # of the slices of a step, where abnormal shots with masks are given
REUSE = 4  # steps in which a synthetic anomaly takes part, on average, in the short schedule
LEARNING_RATES = {"published": 1e-3, "short": 2e-3}
STEPS = {"published": 400, "short": 120}  # docs/explanation/performance.md compares their losses
STEPS_WITHOUT_TEXT = 60


def fit(model: MediCLIPNetwork, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
    """Train adapters and prompts in place, then fill the memory; see `Method.fit`.

    The weights after the last step are kept: there is no test set to choose an epoch by. Beyond the paper, abnormal
    shots with a mask, where given, take the place of half of the synthetic anomalies.

    Where the memory alone makes the map, nothing is trained.

    Returns
    -------
    dict of str to float
        `focal_loss` and `dice_loss`, means over the last epoch, and `steps`; empty if nothing was trained.

    Raises
    ------
    TrainingError
        If there is no normal shot.
    """
    if not len(shots.normal):
        raise TrainingError("MediCLIP learns from normal slices: give at least one.")
    figures = _train(model, shots, seed, progress) if model.memory_share < 1 else {}
    phase = "memory" if figures else "train"  # to fill the memory is then all the training there is

    def told(done: int, total: int) -> None:
        progress(phase, done, total, {})

    model.remember(shots, seed, told)
    return figures


def _train(model: MediCLIPNetwork, shots: Shots, seed: int, progress: Progress) -> dict[str, float]:
    """Train adapters and prompts in place, and return the last losses."""
    normal = np.round(shots.normal * 255).astype(np.uint8)
    lesions = [
        (np.round(image * 255).astype(np.uint8), mask.astype(np.float64))
        for image, mask in zip(shots.abnormal, shots.masks, strict=True)
        if mask is not None
    ]
    options, rng = model.options, np.random.default_rng(seed)
    synthesis = AnomalySynthesis(normal, variant=options.variant)

    def encoded(chosen: Iterable[int]) -> Batch:
        """Encode synthetic anomalies in these normal slices, or lesions in their place."""
        pairs = [
            lesions[rng.integers(len(lesions))] if lesions and rng.random() < REAL_SHARE else synthesis(normal[i], rng)
            for i in chosen
        ]
        images, masks = (torch.from_numpy(np.stack(part)) for part in zip(*pairs, strict=True))
        return model.patch_tokens(images / 255), masks

    optimiser = new_optimiser(model)
    size = min(options.batch, len(normal))
    per_epoch = -(-len(normal) // size)
    limit = options.max_steps or (STEPS[model.schedule] if model.encoder.has_text else STEPS_WITHOUT_TEXT)
    total = min(options.epochs * per_epoch, limit)
    batches = map(encoded, _epochs(len(normal), per_epoch, rng))
    if model.schedule == "short":
        batches, rate = _examples(batches, size, rng), CosineAnnealingLR(optimiser, total)
    else:
        rate = ConstantLR(optimiser, factor=1)
    losses = []
    for number, (tokens, masks) in enumerate(islice(batches, total)):
        losses.append(learn(model, optimiser, tokens, masks))
        rate.step()
        epochs = {"epoch": number // per_epoch + 1, "epochs": -(-total // per_epoch)}
        progress("train", len(losses), total, {**epochs, "loss": sum(losses[-1])})
    model.freeze_text_features()
    focal, dice = np.mean(losses[-per_epoch:], axis=0)
    return {"focal_loss": float(focal), "dice_loss": float(dice), "steps": total}


def _epochs(n: int, steps: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield batches of the numbers 0 to n - 1 without end: `steps` an epoch, shuffled anew each epoch."""
    while True:
        yield from np.array_split(rng.permutation(n), steps)


def _examples(fresh: Iterator[Batch], size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Yield batches without end, in which each example takes part in `REUSE` steps, on average.

    Each step draws its batch from the latest `REUSE` batches of fresh examples, and one is added every `REUSE` steps.
    The encoder is frozen, so an example's tokens never change.
    """
    pool = deque(islice(fresh, REUSE), maxlen=REUSE)
    for number in count(1):
        examples = [(batch, row) for batch in pool for row in range(len(batch[1]))]
        drawn = [examples[i] for i in rng.choice(len(examples), size, replace=False)]
        levels = zip(*([level[row] for level in tokens] for (tokens, _), row in drawn), strict=True)
        yield [torch.stack(level) for level in levels], torch.stack([masks[row] for (_, masks), row in drawn])
        if number % REUSE == 0:
            pool.append(next(fresh))


def new_optimiser(model: MediCLIPNetwork) -> torch.optim.Adam:
    """Return an Adam over the trainable tensors, as in the reference code but for the short schedule's rate."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = model.options.learning_rate or LEARNING_RATES[model.schedule]
    return torch.optim.Adam(trainable, lr=rate, betas=BETAS)


def step(
    model: MediCLIPNetwork,
    optimiser: torch.optim.Optimizer,
    images: Tensor,
    masks: Tensor,
    dropped: Collection[str] = (),
) -> tuple[float, float]:
    """Train on a batch of images, as the reference code does.

    Parameters
    ----------
    model
        Model to train in place.
    optimiser
        What `new_optimiser` returned for it.
    images
        uint8 (B, S, S).
    masks
        float64 (B, S, S) in [0, 1].
    dropped
        Those of `LOSSES` that are left out, for an ablation.

    Returns
    -------
    tuple of float
        Focal and Dice loss before the step; 0 if left out.
    """
    return learn(model, optimiser, model.patch_tokens(images / 255), masks, dropped)


def learn(
    model: MediCLIPNetwork,
    optimiser: torch.optim.Optimizer,
    tokens: Sequence[Tensor],
    masks: Tensor,
    dropped: Collection[str] = (),
) -> tuple[float, float]:
    """Train on a batch of patch tokens, which no step changes; otherwise as `step`.

    Parameters
    ----------
    model
        Model to train in place.
    optimiser
        What `new_optimiser` returned for it.
    tokens
        Patch tokens (B, grid², width) of each tapped stage.
    masks
        float64 (B, S, S) in [0, 1].
    dropped
        Those of `LOSSES` that are left out, for an ablation.

    Returns
    -------
    tuple of float
        Focal and Dice loss before the step; 0 if left out.
    """
    probabilities = model.probabilities(tokens)
    masks = masks.to(probabilities.device)
    losses = focal_loss(probabilities, masks), dice_loss(probabilities[:, 1], masks)
    focal, dice = (loss * (name not in dropped) for name, loss in zip(LOSSES, losses, strict=True))
    optimiser.zero_grad()
    (focal + dice).backward()
    optimiser.step()
    return focal.item(), dice.item()
