"""MediCLIP's training: normal slices with synthetic anomalies, focal and dice loss (Zhang et al. 2024, section 2.4)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import count, islice

import numpy as np
import torch
from torch.optim.lr_scheduler import ConstantLR, CosineAnnealingLR

from medclipad.errors import TrainingError
from medclipad.methods.base import Shots
from medclipad.methods.common.losses import dice_loss, focal_loss
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.synthesis import AnomalySynthesis
from medclipad.volume.progress import Progress, no_progress

Batch = tuple[list[torch.Tensor], torch.Tensor]
"""Patch tokens of each tapped stage and masks (B, S, S)."""

BETAS = (0.5, 0.999)  # of Adam
REAL_SHARE = 0.5  # of the slices of a step, where real abnormal shots are given
REUSE = 4  # steps that an anomaly takes part in, if the schedule is short
LEARNING_RATES = {"published": 1e-3, "short": 2e-3}
STEPS = {"published": 400, "short": 120}  # docs/explanation/performance.md compares their losses
STEPS_WITHOUT_TEXT = 60


def fit(model: MediCLIPNetwork, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
    """Train adapters and prompts in place; the last epoch is kept, since there is no test set to choose by.

    Beyond the paper: abnormal shots with a mask, where given, take the place of half of the synthetic anomalies.
    Raises TrainingError if there is no normal shot.
    """
    if not len(shots.normal):
        raise TrainingError("MediCLIP learns from normal slices: give at least one.")
    normal = np.round(shots.normal * 255).astype(np.uint8)
    lesions = [
        (np.round(image * 255).astype(np.uint8), mask.astype(np.float64))
        for image, mask in zip(shots.abnormal, shots.masks, strict=True)
        if mask is not None
    ]
    options, rng = model.options, np.random.default_rng(seed)
    synthesis = AnomalySynthesis(normal, variant=options.variant)

    def encoded(chosen: Iterable[int]) -> Batch:
        """Synthetic anomalies in these normal slices, or lesions in their place, through the encoder."""
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
    progress("memory", 0, 1, {})
    model.remember(shots.normal, seed)
    progress("memory", 1, 1, {})
    focal, dice = np.mean(losses[-per_epoch:], axis=0)
    return {"focal_loss": float(focal), "dice_loss": float(dice), "steps": total}


def _epochs(n: int, steps: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Batches of the numbers 0 to n - 1, `steps` an epoch, shuffled anew each epoch, without end."""
    while True:
        yield from np.array_split(rng.permutation(n), steps)


def _examples(fresh: Iterator[Batch], size: int, rng: np.random.Generator) -> Iterator[Batch]:
    """Batches without end; each example takes part in `REUSE` steps, on average.

    Each step draws its batch from the latest `REUSE` batches of fresh examples, and one is added every `REUSE` steps:
    the encoder is frozen, so that an example's tokens stay what they are.
    """
    pool = deque(islice(fresh, REUSE), maxlen=REUSE)
    for number in count(1):
        places = [(batch, row) for batch in pool for row in range(len(batch[1]))]
        drawn = [places[i] for i in rng.choice(len(places), size, replace=False)]
        levels = zip(*([level[row] for level in tokens] for (tokens, _), row in drawn), strict=True)
        yield [torch.stack(level) for level in levels], torch.stack([masks[row] for (_, masks), row in drawn])
        if number % REUSE == 0:
            pool.append(next(fresh))


def new_optimiser(model: MediCLIPNetwork) -> torch.optim.Adam:
    """Adam over the trainable tensors, as in the reference code but for the short schedule's rate."""
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    rate = model.options.learning_rate or LEARNING_RATES[model.schedule]
    return torch.optim.Adam(trainable, lr=rate, betas=BETAS)


def step(
    model: MediCLIPNetwork, optimiser: torch.optim.Optimizer, images: torch.Tensor, masks: torch.Tensor
) -> tuple[float, float]:
    """The reference's step on images uint8 (B, S, S) and masks float64 (B, S, S); returns the focal and dice loss."""
    return learn(model, optimiser, model.patch_tokens(images / 255), masks)


def learn(
    model: MediCLIPNetwork, optimiser: torch.optim.Optimizer, tokens: list[torch.Tensor], masks: torch.Tensor
) -> tuple[float, float]:
    """The same on patch tokens of each tapped stage, (B, grid², width), which no step changes."""
    probabilities = model.probabilities(tokens)
    masks = masks.to(probabilities.device)
    focal, dice = focal_loss(probabilities, masks), dice_loss(probabilities[:, 1], masks)
    optimiser.zero_grad()
    (focal + dice).backward()
    optimiser.step()
    return focal.item(), dice.item()
