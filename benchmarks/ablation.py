"""Compare what a token of MediCLIP's memory may keep and how a map becomes a score: image AUROC on half of the data.

    python -m benchmarks.ablation DATA [--half tuning|other] [--seeds N] [--json FILE]

DATA is as for `benchmarks.accuracy`. Each of the two sets without masks is split into halves by a hash of each file.
The defaults were chosen on the tuning half; the other half shows whether they hold. 16 normal images are remembered and
the others of the half are tested. To be quick, this is not the detector itself: a quarter of the tokens is compared,
all of them are remembered, and there is no head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from sklearn.metrics import roc_auc_score

from benchmarks.accuracy import BATCH, memory_model, plain_tokens
from benchmarks.accuracy_data import ImageSet, data_sets
from benchmarks.machine import machine
from benchmarks.pages import markdown_table
from medclipad.export.result_files import write_json
from medclipad.methods.common.normal_memory import BRIGHTNESS_WEIGHT, NormalMemory
from medclipad.methods.common.token_memory import nearest_distance

SHOTS = 16
STRIDE = 2  # every second token, in both directions
SHARES = (0, 0.005, 0.02, 0.1)  # the score is the mean of this share of the map; 0 is the maximum


@torch.inference_mode()
def tokens(images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return tokens (n, g, g, width) as they are, and as the memory joins them."""
    model = memory_model(1.0)
    plain, joined = [], []
    for part in torch.from_numpy(images).split(BATCH):
        plain.append(plain_tokens(model, part)[:, ::STRIDE, ::STRIDE])
        maps = model.memory_maps(model.patch_tokens(part))
        joined.append(NormalMemory.join(maps, part)[:, ::STRIDE, ::STRIDE])
    return torch.cat(plain), torch.cat(joined)


def token_forms(plain: torch.Tensor, joined: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return the tokens in several forms: the memory's own with columns left out or weighted differently."""
    first, second = memory_model(1.0).encoder.widths[1:3]
    lengths, brightness = [first, first + 1 + second], joined.shape[-1] - 1

    def weighted(length: float, bright: float, *extra: torch.Tensor) -> torch.Tensor:
        weights = torch.ones(joined.shape[-1])
        weights[lengths], weights[brightness] = length, bright / BRIGHTNESS_WEIGHT
        return torch.cat([joined * weights, *extra], dim=-1)

    steps = torch.linspace(-1, 1, joined.shape[1])
    position = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1).expand(*joined.shape[:3], 2)
    return {
        "as they are": plain,
        "direction": weighted(0, 0),
        "direction, length": weighted(1, 0),
        "direction, length, brightness × 1": weighted(1, 1),
        "direction, length, brightness × 2 (default)": weighted(1, 2),
        "direction, length, brightness × 3": weighted(1, 3),
        "default and position × 0.3": weighted(1, 2, 0.3 * position),
    }


def measure_auroc(image_set: ImageSet, seeds: int, half: int) -> dict[str, list[list[float]]]:
    """Return the AUROC by form of token: for each seed a list over SHARES."""
    images, abnormal = image_set.images[image_set.half == half], image_set.abnormal[image_set.half == half]
    aurocs: dict[str, list[list[float]]] = {}
    for form, kept in token_forms(*tokens(images)).items():
        for seed in range(seeds):
            shots = np.random.default_rng(seed).permutation(np.flatnonzero(~abnormal))[:SHOTS]
            rest = np.setdiff1d(np.arange(len(images)), shots)
            ranked = (
                nearest_distance(kept[rest], kept[shots].flatten(0, 2)).flatten(1).sort(dim=1, descending=True).values
            )
            scores = [ranked[:, : max(1, int(share * ranked.shape[1]))].mean(dim=1) for share in SHARES]
            aurocs.setdefault(form, []).append([float(roc_auc_score(abnormal[rest], score)) for score in scores])
    return aurocs


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the data sets.")],
    half: Annotated[Literal["tuning", "other"], typer.Option(help="Half of each data set to use.")] = "tuning",
    seeds: Annotated[int, typer.Option(help="Number of draws.")] = 5,
    json: Annotated[Path | None, typer.Option(help="Write the results to this file.")] = None,
) -> None:
    """Compare forms of MediCLIP's remembered tokens, with a table for each data set without masks."""
    result = {"machine": machine(), "half": half, "seeds": seeds, "shares": SHARES, "image_auroc": {}}
    for name, image_set in data_sets(data):
        if not isinstance(image_set, ImageSet):
            continue
        aurocs = measure_auroc(image_set, seeds, 0 if half == "tuning" else 1)
        result["image_auroc"][name] = aurocs
        headings = ["tokens", "maximum", *(f"highest {share:.1%}" for share in SHARES[1:])]
        rows = [[form, *(f"{value:.3f}" for value in np.mean(runs, axis=0))] for form, runs in aurocs.items()]
        print(f"\n**{name}, {half} half, image AUROC, mean of {seeds} draws, by the share that makes the score**\n")
        print(markdown_table(headings, rows), flush=True)
    if json:
        write_json(json, result)


if __name__ == "__main__":
    typer.run(main)
