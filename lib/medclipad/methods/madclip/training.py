"""MadCLIP's training: sigmoid loss of images, focal and Dice loss of pixels, one Adam (Shiri et al., MICCAI 2025)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medclipad.errors import TrainingError
from medclipad.methods.base import Shots, option_or_default
from medclipad.methods.common.augment import augment
from medclipad.methods.common.frozen_states import FrozenStates
from medclipad.methods.common.losses import dice_loss, focal_loss
from medclipad.methods.madclip.adapters import HEADS
from medclipad.methods.madclip.network import MadCLIPNetwork
from medclipad.volume.progress import Progress, no_progress

BETAS = (0.5, 0.999)  # of Adam, as in the reference code
ZOOMS = (1.1, 1.15, 1.2, 1.3)  # of the reference code's augmentation
JITTER = 0.2  # largest relative change of brightness and of contrast
MAX_SAMPLES, MAX_SAMPLES_WITHOUT_TEXT = 640, 768


class Losses(NamedTuple):
    """Losses of a training step, (stages,) each.

    Attributes
    ----------
    detection
        Sigmoid loss of the patches of the det head, which all have their image's label.
    focal, dice
        Losses of the maps of the seg head; zero if no sample has a mask.
    """

    detection: Tensor
    focal: Tensor
    dice: Tensor

    @property
    def total(self) -> Tensor:
        """Sum over losses and stages, a scalar."""
        return self.detection.sum() + self.focal.sum() + self.dice.sum()


def detection_loss(similarities: Tensor, labels: Tensor) -> Tensor:
    """Return the sigmoid loss of one stage.

    Parameters
    ----------
    similarities
        S_n and S_a of each patch, (B, grid², 2).
    labels
        float32 (B,) in {0, 1}; 1 abnormal.

    Returns
    -------
    Tensor
        Scalar: −Σ mean log σ(±S), with + where the branch is that of the image's label.

    Notes
    -----
    SigLIP's loss (Zhai et al. 2023) with labels ±1; the reference code has neither its temperature nor its bias.
    """
    sign = 2 * labels - 1
    signs = torch.stack([-sign, sign], dim=-1)[:, None]
    return -F.logsigmoid(signs * similarities).mean(dim=1).sum(dim=-1).mean()


class Trainer:
    """Trains adapters and prompts, or learned vectors, of a model, step by step.

    Parameters
    ----------
    model
        Model to train in place.
    learning_rate
        Of Adam.

    Attributes
    ----------
    model
        The model.
    optimiser
        One Adam for all: the reference code has one for the adapters and one for the prompts, with equal settings.
    """

    def __init__(self, model: MadCLIPNetwork, learning_rate: float) -> None:
        self.model = model
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.optimiser = torch.optim.Adam(trainable, lr=learning_rate, betas=BETAS)

    def losses(self, tokens: Sequence[Tensor], labels: Tensor, masks: Tensor, has_mask: Tensor) -> Losses:
        """Return the losses of samples; the parameters are those of `step`."""
        model = self.model
        text = None if model.prompts is None else model.prompts()
        found = model.similarities(tokens, HEADS if has_mask.any() else ("det",), text)
        detection = [detection_loss(pair, labels) for pair in found["det"]]
        focal, dice = [], []
        if has_mask.any():
            share = has_mask.float().mean()  # so that each sample has the same weight, with a mask or without
            masks = (F.adaptive_avg_pool2d(masks[has_mask], model.training_size) >= 0.5).to(masks.dtype)
            for p in model.probabilities([pair[has_mask] for pair in found["seg"]], model.training_size):
                focal.append(share * focal_loss(torch.stack([1 - p, p], dim=1), masks))
                dice.append(share * dice_loss(p, masks))
        zeros = [torch.zeros_like(detection[0])] * len(detection)
        return Losses(torch.stack(detection), torch.stack(focal or zeros), torch.stack(dice or zeros))

    def step(self, tokens: Sequence[Tensor], labels: Tensor, masks: Tensor, has_mask: Tensor) -> Losses:
        """Train on a batch of samples.

        Parameters
        ----------
        tokens
            What `MadCLIPNetwork.frozen` returned for the images.
        labels
            float32 (B,) in {0, 1}; 1 abnormal.
        masks
            float32 (B, S, S) in {0, 1}.
        has_mask
            bool (B,). Samples without a mask have no part in the losses of the maps.

        Returns
        -------
        Losses
            Losses before the step, detached.
        """
        self.optimiser.zero_grad()
        losses = self.losses(tokens, labels, masks, has_mask)
        losses.total.backward()
        self.optimiser.step()
        return Losses(*(loss.detach() for loss in losses))


def zoom(images: Tensor, factor: float) -> Tensor:
    """Return the middle of images (n, S, S), enlarged by a factor to their size: bilinear, as in the reference code."""
    size = images.shape[-1]
    inner = int(size / factor)
    middle = slice((size - inner) // 2, (size + inner) // 2)
    return F.interpolate(images[:, None, middle, middle], (size, size), mode="bilinear", align_corners=False)[:, 0]


def jitter(images: Tensor, brightness: float, contrast: float) -> Tensor:
    """Return grey images (n, S, S) in [0, 1] with another brightness, then another contrast.

    Parameters
    ----------
    images
        The images.
    brightness, contrast
        Factors, the same for all images.

    Notes
    -----
    As coded, contrast is about the mean of each column: the reference code means that of the image, but gives a batch
    to a function for one.
    """
    images = images * brightness
    mean = images.mean(dim=1, keepdim=True)
    return ((images - mean) * contrast + mean).clamp(0, 1)


def augmented(images: Tensor, generator: torch.Generator | None) -> Tensor:
    """Return images (n, S, S) in all 16 versions: (16 n, S, S), each version of all images in turn.

    The images, four rotations, four shifts, two flips, four zooms, and a change of brightness and contrast that is
    drawn from the generator. Without one that last version is the images again: masks do not change with it.
    """
    last = images
    if generator is not None:
        brightness, contrast = (1 + JITTER * (2 * torch.rand(2, generator=generator) - 1)).tolist()
        last = jitter(images, brightness, contrast)
    return torch.cat([augment(images), *(zoom(images, factor) for factor in ZOOMS), last])


class Samples(NamedTuple):
    """Augmented shots, the abnormal ones first.

    Attributes
    ----------
    images
        float32 (n, S, S) in [0, 1].
    labels
        float32 (n,); 1 abnormal.
    masks
        float32 (n, S, S) in {0, 1}.
    has_mask
        bool (n,). A normal slice has an empty mask if any abnormal one has a mask, and none otherwise.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    has_mask: Tensor


def samples(shots: Shots, generator: torch.Generator) -> Samples:
    """Return the shots in all versions of `augmented`."""
    abnormal, normal = (augmented(torch.as_tensor(part), generator) for part in (shots.abnormal, shots.normal))
    shape = shots.normal.shape[-2:]
    known = torch.tensor([mask is not None for mask in shots.masks])
    drawn = np.stack([np.zeros(shape, bool) if mask is None else mask for mask in shots.masks])
    masks = (augmented(torch.as_tensor(drawn, dtype=torch.float32), None) > 0.5).float()
    return Samples(
        torch.cat([abnormal, normal]),
        torch.cat([torch.ones(len(abnormal)), torch.zeros(len(normal))]),
        torch.cat([masks, torch.zeros(len(normal), *shape)]),
        torch.cat([known.repeat(len(abnormal) // len(known)), known.any().expand(len(normal))]),
    )


def fit(model: MadCLIPNetwork, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
    """Train a model on shots; see `Method.fit`.

    The weights after the last step are kept: there is no test set to choose an epoch by.

    Returns
    -------
    dict of str to float
        `loss`, the mean total loss of the last pass over the samples, and `steps`.

    Raises
    ------
    TrainingError
        If there is no normal or no abnormal shot.
    """
    for kind, part in (("abnormal", shots.abnormal), ("normal", shots.normal)):
        if not len(part):
            other = ", or use a method that needs normal slices alone" if kind == "abnormal" else ""
            raise TrainingError(f"MadCLIP learns from normal and abnormal slices: give at least one {kind}{other}.")
    options, device = model.options, model.encoder.device
    generator = torch.Generator().manual_seed(seed)
    data = samples(shots, generator)
    model.has_masks = data.has_mask.any().to(device)
    default = MAX_SAMPLES if model.encoder.has_text else MAX_SAMPLES_WITHOUT_TEXT
    n, limit = len(data.images), option_or_default(options.max_samples, default)
    steps = -(-min(n * options.epochs, limit or sys.maxsize) // options.batch)
    trainer, frozen = Trainer(model, options.learning_rate), FrozenStates(model, data.images)
    order = torch.empty(0, dtype=torch.int64)
    history = []
    for step in range(steps):
        while len(order) < options.batch:
            order = torch.cat([order, torch.randperm(n, generator=generator)])
        chosen, order = order[: options.batch], order[options.batch :]
        losses = trainer.step(frozen[chosen], *(part[chosen].to(device) for part in data[1:]))
        history.append(losses.total.item())
        epochs = {"epoch": -(-(step + 1) * options.batch // n), "epochs": -(-steps * options.batch // n)}
        progress("train", step + 1, steps, {**epochs, "loss": history[-1]})
    model.freeze_text_features()
    return {"loss": float(np.mean(history[-max(1, n // options.batch) :])), "steps": steps}
