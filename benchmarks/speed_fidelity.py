"""What the speeds cost, of `benchmarks.speed`: bfloat16 against float32, and the losses of a shortened training."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import typer
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.accuracy_data import Pictures
from benchmarks.speed_bench import SHOTS, SIZES, Bench, pictures
from medclipad.encoders import ImageEncoder, load_encoder
from medclipad.methods import method_class
from medclipad.methods.base import AnomalyMethod, Shots
from medclipad.methods.common.losses import dice_loss, focal_loss
from medclipad.methods.mediclip import MediCLIP, MediCLIPOptions
from medclipad.methods.mediclip.synthesis import AnomalySynthesis
from medclipad.methods.mediclip.training import STEPS

PART = 8  # pictures looked at together
LITTLE = {"mvfa": {"max_samples": 16}, "mediclip": {"max_steps": 8}}  # training
SMALL = "ViT-B-16"  # so that the AUROC is over more pictures
LOSS_SMALL = "ViT-S-32-alt"  # whose text tower can be trained through 400 times
HELD_OUT, LOOKS, LAST = 64, 20, 5  # synthetic anomalies; times that the loss on them is taken, of which the last count
LEARNED = 32  # normal pictures: half for the training, half for the held-out anomalies
LOSS_SEEDS = 3  # with the embedded encoder


def precision(method: str, small: bool = False) -> Callable[[Bench], dict]:
    """A detector of little training, in bfloat16, asked in both, on as many pictures as time allows."""

    def measure(bench: Bench) -> dict:
        architecture = SMALL if small and bench.is_full else bench.architectures[method]
        fast, exact = (_model(bench, method, architecture, word) for word in ("bfloat16", "float32"))
        shots, images, abnormal = tested(bench, SIZES[method])
        fast.fit(shots, 0)
        fast.calibrate(shots.normal)
        exact.load_head_state(fast.head_state())
        maps, scores = {fast: [], exact: []}, {fast: [], exact: []}
        start = time.perf_counter()
        for part in images.split(PART):
            for model in maps:
                found, own = model.anomaly(part)
                maps[model].append(found.float().cpu())
                scores[model].append((model.scores_of(found) if own is None else own).float().cpu())
            if time.perf_counter() - start > bench.budget:
                break
        figures = compared(*(torch.cat(maps[model]) for model in maps), *(torch.cat(scores[model]) for model in maps))
        n = figures["pictures"]
        if abnormal is not None:
            each = [roc_auc_score(abnormal[:n], torch.cat(scores[model])) for model in (exact, fast)]
            figures |= {"auroc_float32": each[0], "auroc_bfloat16": each[1], "auroc_difference": each[1] - each[0]}
        return {"figures": figures, "architecture": architecture}

    return measure


def tested(bench: Bench, size: int) -> tuple[Shots, Tensor, np.ndarray | None]:
    """Shots, pictures (n, S, S), and which are abnormal: of brain_mri_253, both kinds in turn; or made ones."""
    if bench.data is None:
        made, mask = pictures(4 * SHOTS, size), np.zeros((size, size), bool)
        mask[: size // 4, : size // 4] = True
        return Shots(made[:SHOTS], made[SHOTS : 2 * SHOTS], (mask,) * SHOTS), torch.from_numpy(made[2 * SHOTS :]), None
    draw = brain(bench.data).draw(SHOTS, 0)
    rng = np.random.default_rng(0)
    kinds = [rng.permutation(np.flatnonzero(draw.abnormal == kind)) for kind in (False, True)]
    n = min(map(len, kinds))
    order = np.stack([kind[:n] for kind in kinds], axis=1).ravel()
    normal, abnormal, images = (
        F.interpolate(torch.from_numpy(part)[:, None], (size, size), mode="bilinear")[:, 0]
        for part in (draw.shots.normal, draw.shots.abnormal, draw.images[order])
    )
    return Shots(normal.numpy(), abnormal.numpy(), draw.shots.masks), images, draw.abnormal[order]


@cache
def brain(folder: Path) -> Pictures:
    """brain_mri_253 in a folder of data."""
    kinds = [sorted((folder / "brain_mri_253" / kind).glob("*")) for kind in ("no", "yes")]
    if not all(kinds):
        raise typer.BadParameter(f"{folder} holds no brain_mri_253/no and brain_mri_253/yes: name another --data.")
    return Pictures(*kinds)


def compared(maps: Tensor, exact_maps: Tensor, scores: Tensor, exact_scores: Tensor) -> dict[str, float]:
    """Largest differences and rank correlations, of pixels over all pictures."""
    return {
        "pictures": len(scores),
        "score_difference": float((scores - exact_scores).abs().max()),
        "score_range": float(exact_scores.max() - exact_scores.min()),
        "score_spearman": float(spearmanr(scores.numpy(), exact_scores.numpy()).statistic),
        "map_difference": float((maps - exact_maps).abs().max()),
        "map_range": float(exact_maps.max() - exact_maps.min()),
        "map_spearman": float(spearmanr(maps.flatten().numpy(), exact_maps.flatten().numpy()).statistic),
    }


def _model(bench: Bench, method: str, architecture: str, word: str) -> AnomalyMethod:
    kind = method_class(method)
    torch.manual_seed(0)
    return kind(bench.encoder(method, word, architecture), kind.Options(**LITTLE[method]))


def losses(small: bool) -> Callable[[Bench], dict]:
    """Focal plus dice loss on held-out synthetic anomalies while MediCLIP learns: both schedules."""

    def measure(bench: Bench) -> dict:
        architecture = (LOSS_SMALL if bench.is_full else bench.architectures["mediclip"]) if small else "embedded"
        curves, auroc, start = {}, {}, time.perf_counter()
        for seed in range(1 if small else LOSS_SEEDS):
            for schedule, word in (("published", "float32"), ("short", "auto")):
                encoder = bench.encoder("mediclip", word, architecture) if small else load_encoder(architecture)
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


def _curve(bench: Bench, encoder: ImageEncoder, schedule: str, seed: int) -> tuple[list[tuple[float, float]], MediCLIP]:
    """(steps, loss) of a training on 16 shots, and the model; the held-out anomalies are put on other slices."""
    images = _learned(bench, encoder.image_size)
    normal, others = np.round(images * 255).astype(np.uint8).reshape(2, 16, *images.shape[1:])
    synthesis, rng = AnomalySynthesis(others), np.random.default_rng(0)
    pairs = [synthesis(others[number % len(others)], rng) for number in range(HELD_OUT)]
    steps = max(LOOKS, 2 * bench.loss_epochs * STEPS[schedule] // STEPS["published"])
    torch.manual_seed(seed)
    options = {"max_steps": steps, "epochs": 10_000, "memory_share": 0}
    model = MediCLIP(encoder, MediCLIPOptions(schedule=schedule, **options))
    held_out = [
        (model.patch_tokens(torch.from_numpy(np.stack(made)) / 255), torch.from_numpy(np.stack(masks)))
        for made, masks in (zip(*pairs[start : start + PART], strict=True) for start in range(0, HELD_OUT, PART))
    ]
    points = []

    def look(phase: str, done: int, total: int, info: dict) -> None:
        if phase == "train" and done % (steps // LOOKS) == 0:
            points.append((done, _loss(model, held_out)))

    look("train", 0, steps, {})
    model.fit(Shots(normal.astype(np.float32) / 255, images[:0], ()), seed, look)
    return points, model


def _auroc(model: MediCLIP, data: Path) -> float:
    """Of the pictures of brain_mri_253 that neither training nor held-out anomalies are made of."""
    draw = brain(data).draw(LEARNED, 0)
    images = torch.from_numpy(draw.images).split(PART)
    return roc_auc_score(draw.abnormal, torch.cat([model.scores_of(model.anomaly(part)[0]) for part in images]).numpy())


@torch.no_grad()
def _loss(model: MediCLIP, held_out: list[tuple[list[Tensor], Tensor]]) -> float:
    text, found = model.prompts(), []
    for tokens, masks in held_out:
        probabilities, masks = model.probabilities(tokens, text), masks.to(model.encoder.device)
        found.append(float(focal_loss(probabilities, masks) + dice_loss(probabilities[:, 1], masks)))
    return float(np.mean(found))


def _learned(bench: Bench, size: int) -> np.ndarray:
    """As many normal slices: of brain_mri_253, or made ones."""
    if bench.data is None:
        return pictures(LEARNED, size)
    normal = brain(bench.data).draw(LEARNED, 0).shots.normal
    return F.interpolate(torch.from_numpy(normal)[:, None], (size, size), mode="bilinear")[:, 0].numpy()


FIDELITY = {
    "precision-mvfa": precision("mvfa"),
    "precision-mediclip": precision("mediclip"),
    "precision-small": precision("mvfa", small=True),
}
LOSSES = {"loss-embedded": losses(small=False), "loss-small": losses(small=True)}
