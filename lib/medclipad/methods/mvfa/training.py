"""MVFA's training: two Adams, image loss on the det head, pixel losses on the seg head (Huang et al. 2024)."""

from __future__ import annotations

import sys
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from medclipad.errors import TrainingError
from medclipad.methods.base import Shots
from medclipad.methods.common.augment import augment
from medclipad.methods.common.frozen_states import FrozenStates
from medclipad.methods.common.losses import dice_loss, focal_loss
from medclipad.methods.mvfa.adapters import HEADS
from medclipad.methods.mvfa.evidence import extremes
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.volume.progress import Progress, no_progress

BETAS = (0.5, 0.999)  # of Adam, as in the reference code


class Losses(NamedTuple):
    """Losses of a training step, (levels,) each.

    Attributes
    ----------
    bce
        Binary cross-entropy of the image scores.
    focal, dice
        Losses of the maps; zero if no sample has a mask.
    """

    bce: Tensor
    focal: Tensor
    dice: Tensor

    @property
    def total(self) -> Tensor:
        """Sum over losses and levels, a scalar."""
        return self.bce.sum() + self.focal.sum() + self.dice.sum()


class Trainer:
    """Trains the adapters (and learned vectors) of a model, step by step.

    Parameters
    ----------
    model
        Model to train in place.
    learning_rate
        Of both optimisers.
    dropped
        Fields of `Losses` that are left out of the training, for an ablation.

    Attributes
    ----------
    model
        The model.
    optimisers
        An Adam for each head, by the head's name.

    Notes
    -----
    Huang et al. 2024: on each level focal + Dice loss of the maps and binary cross-entropy of the image score.
    """

    def __init__(self, model: MVFANetwork, learning_rate: float, dropped: Collection[str] = ()) -> None:
        self.model, self._dropped = model, dropped
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        for head in HEADS:
            modules = [model.adaptation.modules[name] for name in model.adaptation.trained[head]]
            parameters = [weight for module in modules for weight in module.parameters()]
            if not model.encoder.has_text:
                parameters += model.learned_vectors[head].parameters()
            self.optimisers[head] = torch.optim.Adam(parameters, lr=learning_rate, betas=BETAS)

    def losses(
        self, frozen: Sequence[Tensor], labels: Tensor, masks: Tensor, has_mask: Tensor, text: Tensor | None = None
    ) -> Losses:
        """Return the losses of samples; the parameters are those of `step`."""
        model = self.model
        features = model.adapt(frozen)
        logits = model.logits(features.det, model.text("det") if text is None else text)
        # As in the reference the probability goes where the loss expects a logit: a sigmoid of a softmax.
        bce = [
            F.binary_cross_entropy_with_logits(probability, labels) for probability in model.image_probability(logits)
        ]
        focal, dice = [], []
        if has_mask.any():
            share = has_mask.float().mean()  # so that each sample has the same weight, with a mask or without
            seg = features.seg
            if not has_mask.all():  # only where needed: copying tokens and their gradients costs time
                seg, masks = [tokens[has_mask] for tokens in seg], masks[has_mask]
            for probability in model.probabilities(model.logits(seg, model.text("seg") if text is None else text)):
                focal.append(share * focal_loss(probability, masks))
                dice.append(share * dice_loss(probability[:, 1], masks))
        none = [torch.zeros_like(bce[0])] * len(bce)
        losses = Losses(*(torch.stack(loss or none) for loss in (bce, focal, dice)))
        return losses._replace(**dict.fromkeys(self._dropped, torch.stack(none)))

    def step(
        self, frozen: Sequence[Tensor], labels: Tensor, masks: Tensor, has_mask: Tensor, text: Tensor | None = None
    ) -> Losses:
        """Train on a batch of samples.

        Parameters
        ----------
        frozen
            What `MVFANetwork.frozen` returned for the images.
        labels
            float32 (B,) in {0, 1}; 1 abnormal.
        masks
            float32 (B, S, S) in {0, 1}.
        has_mask
            bool (B,). Samples without a mask have no part in the losses of the maps. If none has one, only the det
            head is trained.
        text
            Text features (embed_dim, 2) instead of the model's own, for training on several classes.

        Returns
        -------
        Losses
            Losses before the step, detached.
        """
        for optimiser in self.optimisers.values():
            optimiser.zero_grad()
        losses = self.losses(frozen, labels, masks, has_mask, text)
        if losses.total.requires_grad:  # without the image loss a slice without a mask teaches nothing
            losses.total.backward()
        if has_mask.any():
            self.optimisers["seg"].step()
        self.optimisers["det"].step()
        return Losses(*(loss.detach() for loss in losses))


class Samples(NamedTuple):
    """Augmented shots, the abnormal ones first.

    Attributes
    ----------
    images
        float32 (n, S, S), or RGB (n, 3, S, S), in [0, 1].
    labels
        float32 (n,); 1 abnormal.
    masks
        float32 (n, S, S) in {0, 1}.
    has_mask
        bool (n,).
    """

    images: Tensor
    labels: Tensor
    masks: Tensor
    has_mask: Tensor


def samples(shots: Shots) -> Samples:
    """Return the shots together with their ten augmentations.

    A normal slice has an empty mask if any abnormal one has a mask, and none otherwise.
    """
    abnormal, normal = augment(torch.as_tensor(shots.abnormal)), augment(torch.as_tensor(shots.normal))
    known = torch.tensor([mask is not None for mask in shots.masks])
    shape = shots.normal.shape[-2:]
    stacked = np.stack([np.zeros(shape, bool) if mask is None else mask for mask in shots.masks])
    masks = (augment(torch.as_tensor(stacked, dtype=torch.float32)) > 0.5).float()
    times = len(abnormal) // len(shots.abnormal)
    return Samples(
        torch.cat([abnormal, normal]),
        torch.cat([torch.ones(len(abnormal)), torch.zeros(len(normal))]),
        torch.cat([masks, torch.zeros(len(normal), *shape)]),
        torch.cat([known.repeat(times), known.any().expand(len(normal))]),
    )


def fit(model: MVFANetwork, shots: Shots, seed: int, progress: Progress = no_progress) -> dict[str, float]:
    """Train a model on shots, then fill its memory; see `Method.fit`.

    Returns
    -------
    dict of str to float
        `loss`, the mean total loss of the last epoch, and `steps`.

    Raises
    ------
    TrainingError
        If there is no normal or no abnormal shot.
    """
    if not len(shots.abnormal):
        raise TrainingError(
            "MVFA learns from normal and abnormal slices: give at least one abnormal, or use a method that needs "
            "normal slices alone."
        )
    if not len(shots.normal):
        raise TrainingError("MVFA learns from normal and abnormal slices: give at least one normal.")
    options, device = model.options, model.encoder.device
    generator = torch.Generator().manual_seed(seed)
    initialise(model, seed)
    if model.encoder.has_text:
        encode_class(model, progress)
    data = samples(shots)
    model.has_masks = data.has_mask.any().to(device)

    trainer = Trainer(model, options.learning_rate)
    most = model.max_samples if options.max_samples is not None else model.max_samples // shots.planes
    total = min(len(data.images) * model.epochs, most or sys.maxsize)
    steps = -(-total // options.batch)
    order = torch.empty(0, dtype=torch.int64)
    frozen, history = FrozenStates(model, data.images), []
    for step in range(steps):
        while len(order) < options.batch:
            order = torch.cat([order, torch.randperm(len(data.images), generator=generator)])
        chosen, order = order[: options.batch], order[options.batch :]
        losses = trainer.step(frozen[chosen], *(part[chosen].to(device) for part in data[1:]))
        history.append(losses.total.item())
        seen = (step + 1) * options.batch
        epochs = {"epoch": -(-seen // len(data.images)), "epochs": -(-steps * options.batch // len(data.images))}
        progress("train", step + 1, steps, {**epochs, "loss": history[-1]})

    first = int(data.labels.sum())  # index of the first normal sample
    volumes = augmented_volumes(shots, len(data.images) - first)
    model.remember(data.images[first:], seed, progress, lambda indices: frozen[first + indices], volumes)
    model.ranges = torch.stack(extremes(model.evidence(shots.abnormal, model.scored)), dim=1)
    last = history[-max(1, len(data.images) // options.batch) :]
    return {"loss": float(np.mean(last)), "steps": steps}


def augmented_volumes(shots: Shots, n: int) -> Tensor | None:
    """Return the volume that each of the `n` augmented normal shots comes from, int64 (n,), if that is known."""
    return None if shots.volumes is None else torch.as_tensor(shots.volumes).repeat(n // len(shots.volumes))


def encode_class(model: MVFANetwork, progress: Progress) -> None:
    """Encode the prompts of the class in the model's options."""
    progress("text", 0, 1, {})
    model.use_class(model.options.class_name)
    progress("text", 1, 1, {})


def initialise(model: MVFANetwork, seed: int) -> None:
    """Draw the adapters (torch's default) and learned vectors anew; torch's global generator is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for head in HEADS:
            for name in model.adaptation.trained[head]:
                for module in model.adaptation.modules[name].modules():
                    if isinstance(module, torch.nn.Linear):
                        module.reset_parameters()
            if not model.encoder.has_text:
                vectors = model.learned_vectors[head].vectors
                # Both start as one, and training parts them: far apart, 100 × cosine would saturate the softmax.
                vectors.data = F.normalize(torch.randn_like(vectors[:, :1]), dim=0).repeat(1, 2)
