"""Does it matter which image is labelled next? Labelling replayed: each strategy beside random.

    python -m benchmarks.active_learning DIR [--rounds 20] [--seeds 5] [--out docs/active-learning.md]

DIR holds the folders `no` (normal) and `yes` (abnormal) with one slice an image, such as Kaggle's brain MRI set of 253.
Each image is a study of one slice. In every run 40 % of the images are the test set; two normal ones are labelled at
the start, then one a round, chosen by `medclipad.active_learning.rank` as the server chooses. The detector is what
MediCLIP is on the embedded encoder to nine tenths: the memory of normal tokens. It learns from images labelled normal;
an image labelled abnormal without a mask teaches it nothing, but is spent. A distance to a memory is the smallest of
the distances to the images in it, so all pairs of images are compared once and every round is a minimum.
"""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer

from benchmarks.machine import machine
from medclipad.active_learning import STRATEGIES, Candidate, project, rank
from medclipad.comparison import auroc
from medclipad.encoders import load_encoder
from medclipad.framing import FramedVolume
from medclipad.methods.mediclip.memory import PROJECTED, NormalMemory, farthest_points
from medclipad.methods.mediclip.model import MediCLIP, MediCLIPOptions
from medclipad.volume import Volume

TOKENS = 196  # remembered of an image: twenty of them fill the memory of 4000
TEST_SHARE = 0.4
START = 2
QUANTILE = 0.95


def main(
    data: Path,
    rounds: int = 20,
    seeds: int = 5,
    out: Annotated[Path, typer.Option(help="Report; the plot goes to images/ beside it.")] = Path(
        "docs/active-learning.md"
    ),
) -> None:
    """Replay labelling and write the report."""
    started = time.perf_counter()
    names, volumes, abnormal = load(data)
    scores, features = compare_all(volumes)
    curves = {
        name: np.array([replay(name, seed, rounds, names, scores, features, abnormal) for seed in range(seeds)])
        for name in STRATEGIES
    }
    seconds = time.perf_counter() - started
    plot(curves, out.parent / "images" / "active-learning.png")
    out.write_text(report(curves, abnormal, seconds), encoding="utf-8")
    print(out.read_text(encoding="utf-8"))


def load(data: Path) -> tuple[list[str], list[Volume], np.ndarray]:
    """(names, slices, bool abnormal) of the images of both folders, less those whose pixels are there already."""
    names, volumes, truth, seen = [], [], [], set()
    for folder in ("no", "yes"):
        for path in sorted((data / folder).iterdir()):
            picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            digest = None if picture is None else hashlib.sha256(picture.tobytes()).hexdigest()
            if picture is None or digest in seen:
                continue
            seen.add(digest)
            names.append(f"{folder}/{path.name}")
            volumes.append(Volume(picture.T[:, ::-1, None].astype(np.float32), np.eye(4), name=path.name))
            truth.append(folder == "yes")
    return names, volumes, np.array(truth)


@torch.inference_mode()
def compare_all(volumes: list[Volume]) -> tuple[np.ndarray, np.ndarray]:
    """(distances (n, n, tokens): of each token of image i to the nearest of image j's; features (n, width))."""
    encoder = load_encoder("embedded", 224)
    method = MediCLIP(encoder, MediCLIPOptions())
    generator = torch.Generator().manual_seed(0)
    tokens, memories, features = [], [], []
    for volume in volumes:
        framed = FramedVolume(volume, "axial", "mr", 224)
        image = torch.from_numpy(framed.images([0]))
        taps = method.patch_tokens(image)
        joined = NormalMemory.join(method._memory_maps(taps), image).flatten(0, 2)
        directions = torch.randn(joined.shape[1], PROJECTED, generator=generator)
        tokens.append(joined)
        memories.append(joined[farthest_points(joined @ directions, TOKENS)])
        features.append(torch.cat([torch.nn.functional.normalize(tap[0].mean(dim=0), dim=0) for tap in taps]).numpy())
    distances = np.empty((len(volumes), len(volumes), len(tokens[0])), np.float16)
    for i, mine in enumerate(tokens):
        for j, memory in enumerate(memories):
            distances[i, j] = torch.cdist(mine, memory).amin(dim=1).numpy()
    return distances, np.stack(features)


def replay(
    strategy: str,
    seed: int,
    rounds: int,
    names: list[str],
    distances: np.ndarray,
    features: np.ndarray,
    abnormal: np.ndarray,
) -> list[float]:
    """AUROC on the test images after the start and after each round."""
    rng = np.random.default_rng(seed)  # the same split and start for each strategy
    order = rng.permutation(len(names))
    test, pool = order[: int(TEST_SHARE * len(order))], order[int(TEST_SHARE * len(order)) :]
    labelled = [int(k) for k in pool if not abnormal[k]][:START]
    points = project(features)
    curve = []
    for number in range(rounds + 1):
        normal = [k for k in labelled if not abnormal[k]]
        score = distances[:, normal].min(axis=1).max(axis=1).astype(float)
        curve.append(auroc(score[test], abnormal[test]))
        left_out = [distances[k, [other for other in normal if other != k]].min(axis=0).max() for k in normal]
        boundary = float(np.quantile(left_out, QUANTILE))

        def candidate(k: int, score: np.ndarray = score, boundary: float = boundary) -> Candidate:
            return Candidate(names[k], score[k], score[k : k + 1], boundary, points[k : k + 1])

        rest = [candidate(int(k)) for k in pool if k not in labelled]
        chosen, _ = rank(strategy, rest, [candidate(k) for k in labelled], seed=1000 * seed + number)[0]
        labelled.append(names.index(chosen.name))
    return curve


def plot(curves: dict[str, np.ndarray], path: Path) -> None:
    """Mean and range over the seeds of each strategy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        labelled = START + np.arange(curve.shape[1])
        style = {"color": "0.4", "linestyle": "--"} if name == "random" else {}
        line = axes.plot(labelled, curve.mean(axis=0), label=name, **style)[0]
        axes.fill_between(labelled, curve.min(axis=0), curve.max(axis=0), alpha=0.12, color=line.get_color())
    axes.set(xlabel="labelled images", ylabel="AUROC on the test images")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def report(curves: dict[str, np.ndarray], abnormal: np.ndarray, seconds: float) -> str:
    """Markdown: the table, each strategy's gain over random with its spread, and what it was measured on."""
    seeds, points = curves["random"].shape
    shown = sorted({0, points // 4, points // 2, points - 1})
    rows = [
        f"| {name} | {' | '.join(f'{curve[:, k].mean():.3f}' for k in shown)} | {curve.mean():.3f} "
        f"| {_gain(name, curves)} |"
        for name, curve in curves.items()
    ]
    heads = " | ".join(f"{START + k} labelled" for k in shown)
    return "\n".join([
        "# Active learning: does it matter which image is labelled next?",
        "",
        "Written by `python -m benchmarks.active_learning`; what is replayed is said at the top of that file.",
        f"{len(abnormal)} images of one slice, {abnormal.sum()} abnormal, exact duplicates dropped; {seeds} seeds, "
        f"each with its own split and start; {points - 1} rounds of one label.",
        "",
        "![AUROC against labelled images](images/active-learning.png)",
        "",
        f"| strategy | {heads} | mean over rounds | gain over random, mean (range over seeds) |",
        "|---|" + "---|" * (len(shown) + 2),
        *rows,
        "",
        _verdict(curves),
        "",
        f"AUROC on the 40 % of the images that are never labelled; {seconds / 60:.1f} minutes in all.",
        "",
        f"Machine: `{json.dumps(machine())}`",
        "",
    ])  # fmt: skip


def _verdict(curves: dict[str, np.ndarray]) -> str:
    """Which strategies were better than random in every run."""
    gains = {name: (curve - curves["random"]).mean(axis=1) for name, curve in curves.items() if name != "random"}
    better = [name for name, gain in gains.items() if gain.min() > 0]
    if better:
        return f"Better than random with every seed: {', '.join(better)}."
    return "No strategy was better than random with every seed: on these images it does not measurably matter."


def _gain(name: str, curves: dict[str, np.ndarray]) -> str:
    if name == "random":
        return "-"
    gains = (curves[name] - curves["random"]).mean(axis=1)
    return f"{gains.mean():+.3f} ({gains.min():+.3f} to {gains.max():+.3f})"


if __name__ == "__main__":
    typer.run(main)
