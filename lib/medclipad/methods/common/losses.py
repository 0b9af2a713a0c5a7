"""Focal and Dice loss, as the reference codes of MVFA and MediCLIP compute them."""

from __future__ import annotations

import torch
from torch import Tensor

GAMMA = 2  # exponent of the focal loss
SMOOTH_LABEL = 1e-5  # distance of clamped labels from 0 and 1, and offset inside the logarithm
SMOOTH_DICE = 1.0  # added to numerator and denominator of the Dice coefficient


def focal_loss(probabilities: Tensor, target: Tensor) -> Tensor:
    """Return the focal loss of probability maps, averaged over all pixels.

    Parameters
    ----------
    probabilities
        (B, 2, H, W), softmaxed; channel 0 normal, channel 1 abnormal.
    target
        (B, H, W) in [0, 1]. As in both reference codes it is truncated to integers, so only 1 counts as abnormal.

    Returns
    -------
    Tensor
        Scalar.

    Notes
    -----
    Lin et al. 2017, equation 4, with γ = 2 and without α. As in the reference codes labels are clamped to
    [1e-5, 1 − 1e-5], and the logarithm is of p + 1e-5.
    """
    abnormal = target.long()
    one_hot = torch.stack([1 - abnormal, abnormal], 1).to(probabilities.dtype)
    one_hot = one_hot.clamp(SMOOTH_LABEL, 1 - SMOOTH_LABEL)
    p = (one_hot * probabilities).sum(1) + SMOOTH_LABEL
    return (-((1 - p) ** GAMMA) * p.log()).mean()


def dice_loss(probability: Tensor, target: Tensor) -> Tensor:
    """Return 1 − Dice coefficient of abnormal probabilities, averaged over the batch.

    Parameters
    ----------
    probability
        (B, H, W) in [0, 1].
    target
        (B, H, W) in [0, 1], hard or soft.

    Returns
    -------
    Tensor
        Scalar, in the wider type of both inputs: MediCLIP's float64 masks give float64, MVFA's give float32.

    Notes
    -----
    The coefficient is smoothed: (2 |P ∩ T| + 1) / (|P| + |T| + 1).
    """
    probability, target = probability.flatten(1), target.flatten(1)
    overlap = (probability * target).sum(1)
    return 1 - ((2 * overlap + SMOOTH_DICE) / (probability.sum(1) + target.sum(1) + SMOOTH_DICE)).mean()
