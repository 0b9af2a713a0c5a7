"""What a token of MediCLIP's memory should keep, and how a map becomes a score: image AUROC on halves of the data.

    python -m benchmarks.ablation DATA [--half tuning|other] [--seeds N] [--json FILE]

DATA as for `benchmarks.accuracy`; the two sets without masks are split in halves by a hash of each file. What the
defaults are was decided on the tuning half; the other half says whether it holds. 16 normal pictures are remembered,
the others of the half are tested. Quick, not the detector itself: a quarter of the tokens, all remembered, no head.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import typer
from sklearn.metrics import roc_auc_score

from benchmarks.accuracy import PART, _method, _plain
from benchmarks.accuracy_data import Pictures, data_sets
from benchmarks.machine import machine
from medclipad.export.result_files import write_json
from medclipad.methods.mediclip.normal_memory import BRIGHTNESS_WEIGHT, nearest

SHOTS = 16
STRIDE = 2  # of the tokens, in both directions
SHARES = (0, 0.005, 0.02, 0.1)  # of the map, of which the score is the mean; 0: the maximum


@torch.inference_mode()
def tokens(images: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, g, g, width) each: tokens as they are, and as the memory joins them."""
    model = _method(1.0)
    plain, joined = [], []
    for part in torch.from_numpy(images).split(PART):
        plain.append(_plain(model, part)[:, ::STRIDE, ::STRIDE])
        joined.append(model.memory.join(model._memory_maps(model.patch_tokens(part)), part)[:, ::STRIDE, ::STRIDE])
    return torch.cat(plain), torch.cat(joined)


def forms(plain: torch.Tensor, joined: torch.Tensor) -> dict[str, torch.Tensor]:
    """The tokens in several forms: the memory's own with columns left out or weighed otherwise."""
    first, second = _method(1.0).encoder.widths[1:3]
    lengths, brightness = [first, first + 1 + second], joined.shape[-1] - 1

    def weighed(length: float, bright: float, *extra: torch.Tensor) -> torch.Tensor:
        weights = torch.ones(joined.shape[-1])
        weights[lengths], weights[brightness] = length, bright / BRIGHTNESS_WEIGHT
        return torch.cat([joined * weights, *extra], dim=-1)

    steps = torch.linspace(-1, 1, joined.shape[1])
    position = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1).expand(*joined.shape[:3], 2)
    return {
        "as they are": plain,
        "direction": weighed(0, 0),
        "direction, length": weighed(1, 0),
        "direction, length, brightness × 1": weighed(1, 1),
        "direction, length, brightness × 2 (default)": weighed(1, 2),
        "direction, length, brightness × 3": weighed(1, 3),
        "default and position × 0.3": weighed(1, 2, 0.3 * position),
    }


def measure(pictures: Pictures, seeds: int, half: int) -> dict[str, list[list[float]]]:
    """AUROC by form of token: per seed a list over SHARES."""
    images, abnormal = pictures.images[pictures.half == half], pictures.abnormal[pictures.half == half]
    found: dict[str, list[list[float]]] = {}
    for form, kept in forms(*tokens(images)).items():
        for seed in range(seeds):
            shots = np.random.default_rng(seed).permutation(np.flatnonzero(~abnormal))[:SHOTS]
            rest = np.setdiff1d(np.arange(len(images)), shots)
            ranked = nearest(kept[rest], kept[shots].flatten(0, 2)).flatten(1).sort(dim=1, descending=True).values
            scores = [ranked[:, : max(1, int(share * ranked.shape[1]))].mean(dim=1) for share in SHARES]
            found.setdefault(form, []).append([float(roc_auc_score(abnormal[rest], score)) for score in scores])
    return found


def main(
    data: Path,
    half: Literal["tuning", "other"] = "tuning",
    seeds: int = 5,
    json: Annotated[Path | None, typer.Option(help="Write the figures here.")] = None,
) -> None:
    """Print a table for each set without masks."""
    result = {"machine": machine(), "half": half, "seeds": seeds, "shares": SHARES, "image_auroc": {}}
    for name, pictures in data_sets(data):
        if not isinstance(pictures, Pictures):
            continue
        found = measure(pictures, seeds, 0 if half == "tuning" else 1)
        result["image_auroc"][name] = found
        heads = ["maximum", *(f"highest {share:.1%}" for share in SHARES[1:])]
        print(f"\n**{name}, {half} half, image AUROC, mean of {seeds} draws, by the share that makes the score**\n")
        print("| tokens | " + " | ".join(heads) + " |\n|---" + "|---" * len(heads) + "|")
        for form, runs in found.items():
            print(f"| {form} | " + " | ".join(f"{value:.3f}" for value in np.mean(runs, axis=0)) + " |", flush=True)
    if json:
        write_json(json, result)


if __name__ == "__main__":
    typer.run(main)
