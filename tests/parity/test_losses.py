"""Losses and metrics of both reference codes (metrics_losses.npz)."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score

from medclipad.methods.common.losses import dice_loss, focal_loss
from medclipad.methods.mvfa.evidence import combine

FILE = "metrics_losses"


@pytest.mark.parametrize("method", ["mvfa", "mediclip"])
def test_focal_and_dice(parity, same, method):
    z = parity(FILE)
    logits = torch.tensor(z["loss.logits"], requires_grad=True)
    target = torch.tensor(z["loss.target"])
    if method == "mvfa":  # thresholds its masks; MediCLIP keeps soft float64 ones
        target = (target > 0.5).float()
    probabilities = logits.softmax(1)
    focal, dice = focal_loss(probabilities, target), dice_loss(probabilities[:, 1], target)
    (focal + dice).backward()
    assert str((focal + dice).dtype) == str(z[f"loss.{method}.dtype"])
    same(FILE, f"loss.{method}.focal", focal, z[f"loss.{method}.focal"], 1e-6)
    same(FILE, f"loss.{method}.dice", dice, z[f"loss.{method}.dice"], 1e-6)
    same(FILE, f"loss.{method}.grad_logits", logits.grad, z[f"loss.{method}.grad_logits"], 1e-8)


def test_bce_of_probabilities(parity, same):
    z = parity(FILE)
    each = [
        F.binary_cross_entropy_with_logits(p, y)
        for p, y in zip(torch.tensor(z["loss.bce.prob_in"]), torch.tensor(z["loss.bce.label"]), strict=True)
    ]
    same(FILE, "loss.bce.each", torch.stack(each), z["loss.bce.each"], 1e-6)


def test_combination_over_a_test_set(parity, same):
    z = parity(FILE)
    for convert in (np.asarray, torch.tensor):
        combined = combine(convert(z["mvfa.zero"]), convert(z["mvfa.few"]))
        same(FILE, "mvfa.combined", combined, z["mvfa.combined"], 1e-6)
    combined = np.asarray(combined)
    pixel = roc_auc_score(z["mvfa.mask"].ravel(), combined.ravel())
    image = roc_auc_score(z["mvfa.label"], combined.reshape(len(combined), -1).max(axis=1))
    same(FILE, "mvfa.pixel_auc", pixel, z["mvfa.pixel_auc"], 1e-6)
    same(FILE, "mvfa.image_auc", image, z["mvfa.image_auc"], 1e-6)


def test_auroc(parity, same):
    z = parity(FILE)
    cases = [key.removesuffix(".labels") for key in z if key.endswith(".labels")]
    assert cases
    for case in cases:
        found = roc_auc_score(z[f"{case}.labels"], z[f"{case}.scores"])
        same(FILE, f"{case}.auroc", found, z[f"{case}.auroc"], 1e-12)
    truth = z["pix.gt"] > 0  # MediCLIP counts soft values
    same(FILE, "pix.auroc", roc_auc_score(truth.ravel(), z["pix.pred"].ravel()), z["pix.auroc"], 1e-12)
