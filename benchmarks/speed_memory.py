"""AUROC against the size of a memory, of `benchmarks.speed`: what a smaller one, which is searched faster, costs."""

from __future__ import annotations

import numpy as np
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.accuracy_data import Draw, Pictures, data_sets
from benchmarks.speed_bench import SHOTS, Bench
from medclipad.encoders import load_encoder
from medclipad.methods.common.token_memory import draw as drawn
from medclipad.methods.mediclip import MediCLIP, MediCLIPOptions
from medclipad.methods.mvfa import MVFA, MVFAOptions
from medclipad.methods.mvfa.augment import augment

TOKENS = (125, 500, 2000, 8000)
DRAWS = 2
MEDICLIP_SHOTS = 16
PART = 16  # pictures looked at together


def memory_sizes(bench: Bench) -> dict:
    """By data set and memory the mean AUROC over draws, of the memories alone, on the embedded encoder."""
    if bench.data is None:
        return {"curves": {}}
    curves, sizes = {}, bench.some(TOKENS)
    for name, pictures in data_sets(bench.data):
        if isinstance(pictures, Pictures):
            for method, measure in MEMORIES.items():
                aurocs = np.mean([measure(pictures, seed, sizes) for seed in range(DRAWS)], axis=0)
                curves[f"{name}, {method}"] = list(zip(sizes, aurocs.tolist(), strict=True))
    return {"curves": curves}


def mvfa(pictures: Pictures, seed: int, sizes: tuple[int, ...]) -> list[float]:
    """Tokens drawn at random, of each level; AUROC of each size."""
    model, draw = MVFA(load_encoder("embedded"), MVFAOptions(memory_tokens=None)), pictures.draw(SHOTS, seed)
    banks = model.remember(augment(torch.from_numpy(draw.shots.normal)))
    found = []
    for size in sizes:
        generator = torch.Generator().manual_seed(seed)
        for level, tokens in enumerate(banks):
            model.memory.remember(level, drawn(tokens, size, generator))
        found.append(_auroc(draw, lambda part: model.scores_of(model.evidence(part).few_map)))
    return found


def mediclip(pictures: Pictures, seed: int, sizes: tuple[int, ...]) -> list[float]:
    """A greedy coreset; AUROC of each size."""
    draw, found = pictures.draw(MEDICLIP_SHOTS, seed), []
    for size in sizes:
        model = MediCLIP(load_encoder("embedded"), MediCLIPOptions(memory_share=1, memory_size=size))
        model.remember(draw.shots.normal, seed)
        model.calibrate(draw.shots.normal)
        found.append(_auroc(draw, lambda part, model=model: model.scores_of(model.anomaly(torch.from_numpy(part))[0])))
    return found


def _auroc(draw: Draw, scores_of) -> float:
    parts = [draw.images[start : start + PART] for start in range(0, len(draw.images), PART)]
    return roc_auc_score(draw.abnormal, torch.cat([scores_of(part) for part in parts]).numpy())


MEMORIES = {f"MVFA, k = {SHOTS}, at random": mvfa, f"MediCLIP, k = {MEDICLIP_SHOTS}, greedy coreset": mediclip}
