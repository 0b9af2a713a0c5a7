"""Focal and dice loss, as the reference codes of MVFA and MediCLIP compute them."""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA = 2  # of the focal loss
SMOOTH_LABEL = 1e-5  # label clamp and offset of the logarithm
SMOOTH_DICE = 1.0


def focal_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """Focal loss (Lin et al. 2017, γ = 2, no α), mean over pixels, of softmaxed maps.

    probabilities: (B, 2, H, W), channel 1 abnormal; target: (B, H, W). As in both reference codes a soft target is
    truncated, so that only a value of 1 counts as abnormal; labels are clamped to [1e-5, 1 - 1e-5].
    """
    abnormal = target.long()
    one_hot = torch.stack([1 - abnormal, abnormal], 1).to(probabilities.dtype)
    one_hot = one_hot.clamp(SMOOTH_LABEL, 1 - SMOOTH_LABEL)
    p = (one_hot * probabilities).sum(1) + SMOOTH_LABEL
    return (-((1 - p) ** GAMMA) * p.log()).mean()


def dice_loss(probability: Tensor, target: Tensor) -> Tensor:
    """1 − Dice coefficient (smoothed by 1), mean over the batch, of abnormal probabilities (B, H, W).

    target: (B, H, W), hard or soft. Its type decides the precision: MediCLIP's reference gives float64, MVFA's float32.
    """
    probability, target = probability.flatten(1), target.flatten(1)
    overlap = (probability * target).sum(1)
    return 1 - ((2 * overlap + SMOOTH_DICE) / (probability.sum(1) + target.sum(1) + SMOOTH_DICE)).mean()
