"""Does it matter what is labelled next? Labelling replayed: each strategy beside random.

    python -m benchmarks.active_learning DIR [--rounds 20] [--seeds 5] [--out docs/active-learning.md]

DIR holds brain_mri_253/no and /yes (pictures of one slice, without masks) and brats2013_deepmedic (volumes with lesion
masks); what is absent is left out. Two replays:

pictures: each is a study of one slice; 40 % of them are the test set, drawn anew with each seed.
slabs: twenty rounds need more studies than there are volumes. Each volume is cut into slabs of THICKNESS neighbouring
slices, and each slab is a study, read and labelled as a whole. One patient is the test set, the next with each seed.

In every run two studies with normal slices are labelled at the start, then one a round, chosen by
`medclipad.active_learning.rank` as the server chooses. The detector is what MediCLIP is on the embedded encoder to nine
tenths: the memory of normal tokens, its score the mean of the highest 2 %. It learns from the lesion-free slices of
what is labelled; slices with lesion teach it nothing, but are spent. A distance to a memory is the smallest of the
distances to the slices in it, so all pairs of slices are compared once and every round is a minimum.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
import typer

from benchmarks.accuracy_data import SIZE, Patients, data_sets
from benchmarks.machine import machine
from medclipad.active_learning import STRATEGIES, Candidate, project, rank
from medclipad.detection.slice_frames import FramedVolume
from medclipad.encoders import load_encoder
from medclipad.methods.common.auroc import auroc
from medclipad.methods.mediclip.model import MediCLIP, MediCLIPOptions
from medclipad.methods.mediclip.normal_memory import PROJECTED, NormalMemory, farthest_points
from medclipad.volume import Volume

TOKENS = 196  # remembered of a slice: twenty of them fill the memory of 4000
TEST_SHARE = 0.4
START = 2
QUANTILE = 0.95
STEP, THICKNESS = 2, 4  # every second slice, four of them: slabs of 8 mm
_TOGETHER = 16  # memories that a slice is compared with at a time


@dataclass(frozen=True)
class Replay:
    """Slices of studies. images: float32 (n, S, S) in [0, 1]; abnormal: bool (n,); study: int (n,), from 0 on;
    patient: int (n,), or None where the test set is drawn among the studies.
    """

    title: str
    what: str
    images: np.ndarray
    abnormal: np.ndarray
    study: np.ndarray
    patient: np.ndarray | None

    def test(self, rng: np.random.Generator, seed: int) -> np.ndarray:
        """Bool (n,): the slices that are never labelled."""
        if self.patient is not None:
            return self.patient == np.unique(self.patient)[seed % len(np.unique(self.patient))]
        order = rng.permutation(self.study.max() + 1)
        return np.isin(self.study, order[: int(TEST_SHARE * len(order))])


def main(
    data: Path,
    rounds: int = 20,
    seeds: int = 5,
    out: Annotated[Path, typer.Option(help="Report; the plots go to images/ beside it.")] = Path(
        "docs/active-learning.md"
    ),
) -> None:
    """Replay labelling and write the report."""
    parts = []
    for replay in replays(data):
        started = time.perf_counter()
        distances, features = compare_all(replay.images)
        curves = {
            name: np.array([run(name, seed, rounds, replay, distances, features) for seed in range(seeds)])
            for name in STRATEGIES
        }
        picture = f"active-learning-{replay.title}.png"
        plot(curves, out.parent / "images" / picture)
        parts.append(section(replay, curves, picture, time.perf_counter() - started))
    out.write_text(page(parts), encoding="utf-8")
    print(out.read_text(encoding="utf-8"))


def replays(data: Path) -> Iterator[Replay]:
    """Those whose data is there."""
    if (data / "brain_mri_253").is_dir():
        yield _pictures(data / "brain_mri_253")
    for _, found in data_sets(data) if (data / "brats2013_deepmedic").is_dir() else ():
        if isinstance(found, Patients):
            yield _slabs(found)


def _pictures(folder: Path) -> Replay:
    """The pictures of the folders `no` and `yes`, less those whose pixels are there already."""
    images, truth, seen = [], [], set()
    for kind in ("no", "yes"):
        for path in sorted((folder / kind).iterdir()):
            picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            digest = None if picture is None else hashlib.sha256(picture.tobytes()).hexdigest()
            if picture is None or digest in seen:
                continue
            seen.add(digest)
            volume = Volume(picture.T[:, ::-1, None].astype(np.float32), np.eye(4), name=path.name)
            images.append(FramedVolume(volume, "axial", "mr", SIZE).images([0])[0])
            truth.append(kind == "yes")
    what = (
        f"{len(truth)} pictures of one slice of MR (Kaggle's brain tumour set), {sum(truth)} abnormal, exact "
        f"duplicates dropped; {100 * TEST_SHARE:.0f} % of them are the test set, another draw with each seed."
    )
    return Replay("pictures", what, np.stack(images), np.array(truth), np.arange(len(truth)), None)


def _slabs(patients: Patients) -> Replay:
    """Slabs of the patients' volumes."""
    images, truth, study, patient = [], [], [], []
    for number, (slices, inside, _) in enumerate(patients.stacks):
        first = study[-1].max() + 1 if study else 0
        images.append(slices[::STEP])
        truth.append(inside[::STEP])
        study.append(first + np.arange(len(truth[-1])) // THICKNESS)
        patient.append(np.full(len(truth[-1]), number))
    abnormal, slab = np.concatenate(truth), np.concatenate(study)
    what = (
        f"FLAIR of {len(patients.stacks)} patients with glioma (BRATS 2013), every {STEP}nd axial slice, "
        f"{len(abnormal)} of them, {abnormal.sum()} with tumour. So few volumes do not last for twenty rounds: they "
        f"are cut into {slab[-1] + 1} slabs of {THICKNESS} slices, {len(np.unique(slab[abnormal]))} with tumour. The "
        "slices of one patient are the test set, and the slabs of "
        "the others are labelled."
    )
    return Replay("slabs", what, np.concatenate(images), abnormal, slab, np.concatenate(patient))


@torch.inference_mode()
def compare_all(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(distances (n, n, tokens): of each token of slice i to the nearest of slice j's memory; features (n, width))."""
    encoder = load_encoder("embedded", SIZE)
    method = MediCLIP(encoder, MediCLIPOptions())
    generator = torch.Generator().manual_seed(0)
    tokens, memories, features = [], [], []
    for image in torch.from_numpy(images)[:, None]:
        taps = method.patch_tokens(image)
        joined = NormalMemory.join(method._memory_maps(taps), image).flatten(0, 2)
        directions = torch.randn(joined.shape[1], PROJECTED, generator=generator)
        tokens.append(joined)
        memories.append(joined[farthest_points(joined @ directions, TOKENS)])
        features.append(torch.cat([torch.nn.functional.normalize(tap[0].mean(dim=0), dim=0) for tap in taps]).numpy())
    distances = np.empty((len(images), len(images), len(tokens[0])), np.float32)
    for start in range(0, len(images), _TOGETHER):
        part = torch.stack(memories[start : start + _TOGETHER])
        for i, mine in enumerate(tokens):
            gaps = torch.cdist(mine, part.flatten(0, 1)).view(len(mine), len(part), TOKENS)
            distances[i, start : start + len(part)] = gaps.amin(dim=2).T.numpy()
    return distances, np.stack(features)


def run(
    strategy: str, seed: int, rounds: int, replay: Replay, distances: np.ndarray, features: np.ndarray
) -> list[float]:
    """AUROC of the test slices after the start and after each round."""
    rng = np.random.default_rng(seed)  # the same split and start for each strategy
    test, study, normal = replay.test(rng, seed), replay.study, ~replay.abnormal
    with_normal = np.unique(study[~test & normal])
    labelled = [int(number) for number in rng.permutation(with_normal)[:START]]
    nearest = np.full(distances.shape[::2], np.inf, np.float32)  # of each token to all that is remembered
    points, curve = project(features), []
    for number in range(rounds + 1):
        for new in labelled[-START if not number else -1 :]:
            for source in np.flatnonzero((study == new) & normal):
                np.minimum(nearest, distances[:, source], out=nearest)
        score = score_of(nearest)
        curve.append(auroc(score[test], replay.abnormal[test]))
        boundary = float(np.quantile(_left_out(np.isin(study, labelled) & normal, study, distances), QUANTILE))

        def candidate(one: int, score: np.ndarray = score, boundary: float = boundary) -> Candidate:
            mine = study == one
            return Candidate(f"{one:05d}", float(score[mine].max()), score[mine], boundary, points[mine])

        rest = [candidate(int(one)) for one in np.setdiff1d(study[~test], labelled)]
        chosen, _ = rank(strategy, rest, [candidate(one) for one in labelled], seed=1000 * seed + number)[0]
        labelled.append(int(chosen.name))
    return curve


def score_of(distances: np.ndarray) -> np.ndarray:
    """Score (...) of slices whose tokens have these distances (..., tokens): the mean of the highest 2 %."""
    count = max(1, int(0.02 * distances.shape[-1]))
    return np.partition(distances, -count, axis=-1)[..., -count:].mean(axis=-1).astype(float)


def _left_out(learned: np.ndarray, study: np.ndarray, distances: np.ndarray) -> list[float]:
    """Scores of learned slices, each as if its study had not been learned."""
    return [
        float(score_of(distances[k, others].min(axis=0)))
        for k in np.flatnonzero(learned)
        if (others := learned & (study != study[k])).any()
    ]


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
    axes.set(xlabel="labelled studies", ylabel="AUROC on the test slices")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def section(replay: Replay, curves: dict[str, np.ndarray], picture: str, seconds: float) -> str:
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
        f"## {replay.title.capitalize()}",
        "",
        f"{replay.what} {seeds} seeds, {points - 1} rounds of one label.",
        "",
        f"![AUROC against labelled studies](images/{picture})",
        "",
        f"| strategy | {heads} | mean over rounds | gain over random, mean (range over seeds) |",
        "|---|" + "---|" * (len(shown) + 2),
        *rows,
        "",
        f"{_verdict(curves)} {seconds / 60:.1f} minutes.",
        "",
    ])  # fmt: skip


def page(sections: list[str]) -> str:
    """The report."""
    return "\n".join([
        "# Active learning: does it matter what is labelled next?",
        "",
        "Written by `python -m benchmarks.active_learning`; what is replayed is said at the top of that file. Figures "
        "are AUROC over slices that are never labelled.",
        "",
        *sections,
        f"Machine: `{json.dumps(machine())}`",
        "",
    ])  # fmt: skip


def _verdict(curves: dict[str, np.ndarray]) -> str:
    """Which strategies were better, and which worse, than random in every run."""
    gains = {name: (curve - curves["random"]).mean(axis=1) for name, curve in curves.items() if name != "random"}
    better = [name for name, gain in gains.items() if gain.min() > 0]
    worse = [name for name, gain in gains.items() if gain.max() < 0]
    said = [f"{how} than random with every seed: {', '.join(who)}." for how, who in
            (("Better", better), ("Worse", worse)) if who]  # fmt: skip
    return " ".join(said) or "No strategy was better than random with every seed, and none worse."


def _gain(name: str, curves: dict[str, np.ndarray]) -> str:
    if name == "random":
        return "-"
    gains = (curves[name] - curves["random"]).mean(axis=1)
    return f"{gains.mean():+.3f} ({gains.min():+.3f} to {gains.max():+.3f})"


if __name__ == "__main__":
    typer.run(main)
