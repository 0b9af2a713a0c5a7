"""What speed costs, for `benchmarks.speed`: bfloat16 against float32, and the losses of a shortened training."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
import typer
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.accuracy_data import ImageSet
from benchmarks.speed_bench import SHOTS, SIZES, Bench, images
from medclipad.encoders import ImageEncoder, load_encoder
from medclipad.methods import get_method
from medclipad.methods.base import AnomalyModel, Shots
from medclipad.methods.common.losses import dice_loss, focal_loss
from medclipad.methods.mediclip.method import MediCLIP
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mediclip.synthesis import AnomalySynthesis
from medclipad.methods.mediclip.training import STEPS

BATCH = 8  # images analysed together
SHORT_TRAINING = {"mvfa": {"max_samples": 16}, "mediclip": {"max_steps": 8}}
SMALL = "ViT-B-16"  # fast enough for an AUROC over more images
LOSS_SMALL = "ViT-S-32-alt"  # small enough for 400 training steps through its text tower
HELD_OUT = 64  # synthetic anomalies that the loss is taken on ...
N_LOSSES, LAST = 20, 5  # ... so many times during a training; the mean of the last ones is its result
LEARNED = 32  # normal images: half for the training, half for the held-out anomalies
LOSS_SEEDS = 3  # on the embedded encoder

Schedule = Literal["published", "short"]


def precision(method: str, small: bool = False) -> Callable[[Bench], dict]:
    """Return a measurement: a briefly trained model's maps in both precisions, on as many images as time allows."""

    def measure(bench: Bench) -> dict:
        architecture = SMALL if small and bench.is_full else bench.architectures[method]
        fast, exact = (_model(bench, method, architecture, precision) for precision in ("bfloat16", "float32"))
        shots, tested, abnormal = test_images(bench, SIZES[method])
        get_method(method).fit(fast, shots, 0)
        fast.calibrate(shots.normal)
        exact.load_head_state(fast.head_state())
        maps: dict[AnomalyModel, list[Tensor]] = {fast: [], exact: []}
        scores: dict[AnomalyModel, list[Tensor]] = {fast: [], exact: []}
        start = time.perf_counter()
        for part in tested.split(BATCH):
            for model in maps:
                part_maps, own_scores = model.anomaly(part)
                part_scores = model.scores_of(part_maps) if own_scores is None else own_scores
                maps[model].append(part_maps.float().cpu())
                scores[model].append(part_scores.float().cpu())
            if time.perf_counter() - start > bench.budget:
                break
        figures = compare(*(torch.cat(maps[model]) for model in maps), *(torch.cat(scores[model]) for model in maps))
        n = figures["pictures"]
        if abnormal is not None:
            aurocs = [float(roc_auc_score(abnormal[:n], torch.cat(scores[model]))) for model in (exact, fast)]
            figures |= {"auroc_float32": aurocs[0], "auroc_bfloat16": aurocs[1]}
            figures |= {"auroc_difference": aurocs[1] - aurocs[0]}
        return {"figures": figures, "architecture": architecture}

    return measure


def test_images(bench: Bench, size: int) -> tuple[Shots, Tensor, np.ndarray | None]:
    """Return shots, images (n, S, S), and which of them are abnormal: normal and abnormal in turn.

    They are those of brain_mri_253. Without data they are made, and no labels are known.
    """
    if bench.data is None:
        made, mask = images(4 * SHOTS, size), np.zeros((size, size), bool)
        mask[: size // 4, : size // 4] = True
        return Shots(made[:SHOTS], made[SHOTS : 2 * SHOTS], (mask,) * SHOTS), torch.from_numpy(made[2 * SHOTS :]), None
    draw = brain(bench.data).draw(SHOTS, 0)
    rng = np.random.default_rng(0)
    classes = [rng.permutation(np.flatnonzero(draw.abnormal == label)) for label in (False, True)]
    n = min(map(len, classes))
    order = np.stack([indices[:n] for indices in classes], axis=1).ravel()
    normal, abnormal, tested = (
        F.interpolate(torch.from_numpy(part)[:, None], (size, size), mode="bilinear")[:, 0]
        for part in (draw.shots.normal, draw.shots.abnormal, draw.images[order])
    )
    return Shots(normal.numpy(), abnormal.numpy(), draw.shots.masks), tested, draw.abnormal[order]


@cache
def brain(folder: Path) -> ImageSet:
    """Return the data set brain_mri_253 of a folder."""
    normal, abnormal = (sorted((folder / "brain_mri_253" / name).glob("*")) for name in ("no", "yes"))
    if not normal or not abnormal:
        raise typer.BadParameter(f"{folder} holds no brain_mri_253/no and brain_mri_253/yes: name another --data.")
    return ImageSet(normal, abnormal)


def compare(maps: Tensor, exact_maps: Tensor, scores: Tensor, exact_scores: Tensor) -> dict[str, Any]:
    """Return the largest differences and the rank correlations; for maps, over all pixels of all images."""
    return {
        "pictures": len(scores),
        "score_difference": float((scores - exact_scores).abs().max()),
        "score_range": float(exact_scores.max() - exact_scores.min()),
        "score_spearman": _spearman(scores, exact_scores),
        "map_difference": float((maps - exact_maps).abs().max()),
        "map_range": float(exact_maps.max() - exact_maps.min()),
        "map_spearman": _spearman(maps, exact_maps),
    }


def _spearman(values: Tensor, others: Tensor) -> float:
    result: Any = spearmanr(values.flatten().numpy(), others.flatten().numpy())  # scipy has no types for it
    return float(result.statistic)


def _model(bench: Bench, method: str, architecture: str, precision: str) -> AnomalyModel:
    method_class = get_method(method)
    torch.manual_seed(0)
    options = method_class.Options(**SHORT_TRAINING[method])
    return method_class.build(bench.encoder(method, precision, architecture), options)


SCHEDULES: tuple[tuple[Schedule, str], ...] = (("published", "float32"), ("short", "auto"))
"""Schedules of MediCLIP's training, each with the precision of its encoder."""


def losses(small: bool) -> Callable[[Bench], dict]:
    """Return a measurement: the loss on held-out synthetic anomalies during MediCLIP's training, by schedule."""

    def measure(bench: Bench) -> dict:
        architecture = (LOSS_SMALL if bench.is_full else bench.architectures["mediclip"]) if small else "embedded"
        curves, auroc, start = {}, {}, time.perf_counter()
        for seed in range(1 if small else LOSS_SEEDS):
            for schedule, precision in SCHEDULES:
                encoder = bench.encoder("mediclip", precision, architecture) if small else load_encoder(architecture)
                name = f"{schedule}, seed {seed}"
                curves[name], model = _curve(bench, encoder, schedule, seed)
                if bench.data and not small:
                    auroc[name] = _auroc(model, bench.data)
        ends = {name: float(np.mean([loss for _, loss in points[-LAST:]])) for name, points in curves.items()}
        return {
            "curves": curves,
            "architecture": architecture,
            "ends": ends,
            "auroc": auroc,
            "minutes": (time.perf_counter() - start) / 60,
        }

    return measure


def _curve(
    bench: Bench, encoder: ImageEncoder, schedule: Schedule, seed: int
) -> tuple[list[tuple[float, float]], MediCLIPNetwork]:
    """Return (steps, loss) during a training on 16 shots, and the model. The held-out anomalies are in other slices."""
    learned = _learned(bench, encoder.image_size)
    normal, others = np.round(learned * 255).astype(np.uint8).reshape(2, 16, *learned.shape[1:])
    synthesis, rng = AnomalySynthesis(others), np.random.default_rng(0)
    pairs = [synthesis(others[number % len(others)], rng) for number in range(HELD_OUT)]
    steps = max(N_LOSSES, 2 * bench.loss_epochs * STEPS[schedule] // STEPS["published"])
    torch.manual_seed(seed)
    options: dict[str, Any] = {"max_steps": steps, "epochs": 10_000, "memory_share": 0}
    model = MediCLIPNetwork(encoder, MediCLIPOptions(schedule=schedule, **options))
    held_out = [
        (model.patch_tokens(torch.from_numpy(np.stack(made)) / 255), torch.from_numpy(np.stack(masks)))
        for made, masks in (zip(*pairs[start : start + BATCH], strict=True) for start in range(0, HELD_OUT, BATCH))
    ]
    points = []

    def add_point(phase: str, done: int, total: int, info: dict[str, Any]) -> None:
        if phase == "train" and done % (steps // N_LOSSES) == 0:
            points.append((done, _loss(model, held_out)))

    add_point("train", 0, steps, {})
    MediCLIP.fit(model, Shots(normal.astype(np.float32) / 255, learned[:0], ()), seed, add_point)
    return points, model


def _auroc(model: MediCLIPNetwork, data: Path) -> float:
    """Return the AUROC on the images of brain_mri_253 that neither the training nor the held-out anomalies use."""
    draw = brain(data).draw(LEARNED, 0)
    parts = torch.from_numpy(draw.images).split(BATCH)
    scores = torch.cat([model.scores_of(model.anomaly(part)[0]) for part in parts])
    return float(roc_auc_score(draw.abnormal, scores.numpy()))


@torch.no_grad()
def _loss(model: MediCLIPNetwork, held_out: list[tuple[list[Tensor], Tensor]]) -> float:
    """Return the mean focal plus dice loss."""
    text, losses = model.prompts(), []
    for tokens, masks in held_out:
        probabilities, masks = model.probabilities(tokens, text), masks.to(model.encoder.device)
        losses.append(float(focal_loss(probabilities, masks) + dice_loss(probabilities[:, 1], masks)))
    return float(np.mean(losses))


def _learned(bench: Bench, size: int) -> np.ndarray:
    """Return LEARNED normal slices: of brain_mri_253, or made."""
    if bench.data is None:
        return images(LEARNED, size)
    normal = brain(bench.data).draw(LEARNED, 0).shots.normal
    return F.interpolate(torch.from_numpy(normal)[:, None], (size, size), mode="bilinear")[:, 0].numpy()


FIDELITY = {
    "precision-mvfa": precision("mvfa"),
    "precision-mediclip": precision("mediclip"),
    "precision-small": precision("mvfa", small=True),
}
LOSSES = {"loss-embedded": losses(small=False), "loss-small": losses(small=True)}
