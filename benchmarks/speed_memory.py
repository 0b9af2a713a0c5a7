"""AUROC by size of the memory, for `benchmarks.speed`: what a smaller memory, which is searched faster, costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from benchmarks.accuracy_data import Draw, ImageSet, data_sets
from benchmarks.speed_bench import SHOTS, Bench
from medclipad.encoders import load_encoder
from medclipad.methods.common.augment import augment
from medclipad.methods.common.token_memory import draw as drawn
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions

TOKENS = (125, 500, 2000, 8000)  # sizes of the memory
DRAWS = 2
MEDICLIP_SHOTS = 16
BATCH = 16  # images analysed together


def memory_sizes(bench: Bench) -> dict:
    """Return the mean AUROC over draws, by data set and memory, of memories alone on the embedded encoder."""
    if bench.data is None:
        return {"curves": {}}
    curves, sizes = {}, bench.some(TOKENS)
    for name, image_set in data_sets(bench.data):
        if isinstance(image_set, ImageSet):
            for method, measure in MEMORIES.items():
                aurocs = np.mean([measure(image_set, seed, sizes) for seed in range(DRAWS)], axis=0)
                curves[f"{name}, {method}"] = list(zip(sizes, aurocs.tolist(), strict=True))
    return {"curves": curves}


def mvfa(image_set: ImageSet, seed: int, sizes: Sequence[int]) -> list[float]:
    """Return the AUROC for each number of tokens in each level of MVFA's memory, drawn at random."""
    model, draw = MVFANetwork(load_encoder("embedded"), MVFAOptions(memory_tokens="all")), image_set.draw(SHOTS, seed)
    banks = model.remember(augment(torch.from_numpy(draw.shots.normal)))
    aurocs = []
    for size in sizes:
        generator = torch.Generator().manual_seed(seed)
        for level, tokens in enumerate(banks):
            model.memory.remember(level, tokens[drawn(len(tokens), size, generator)])
        aurocs.append(_auroc(draw, lambda part: model.scores_of(model.evidence(part).few_map)))
    return aurocs


def mediclip(image_set: ImageSet, seed: int, sizes: Sequence[int]) -> list[float]:
    """Return the AUROC for each size of MediCLIP's memory, drawn at random."""
    draw, aurocs = image_set.draw(MEDICLIP_SHOTS, seed), []
    for size in sizes:
        model = MediCLIPNetwork(load_encoder("embedded"), MediCLIPOptions(memory_share=1, memory_size=size))
        model.remember(draw.shots, seed)
        model.calibrate(draw.shots.normal)
        aurocs.append(_auroc(draw, lambda part, model=model: model.scores_of(model.anomaly(torch.from_numpy(part))[0])))
    return aurocs


def _auroc(draw: Draw, scores_of: Callable[[np.ndarray], Tensor]) -> float:
    parts = [draw.images[start : start + BATCH] for start in range(0, len(draw.images), BATCH)]
    return float(roc_auc_score(draw.abnormal, torch.cat([scores_of(part) for part in parts]).numpy()))


MEMORIES = {f"MVFA, k = {SHOTS}, at random": mvfa, f"MediCLIP, k = {MEDICLIP_SHOTS}, at random": mediclip}
