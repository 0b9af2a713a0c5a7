"""Compare active-learning strategies with random choice, by replaying the labelling of data with known labels.

    python -m benchmarks.active_learning DIR [--rounds 20] [--seeds 5] [--out docs/explanation/active-learning.md]

DIR holds brain_mri_253/no and /yes (images of one slice, without masks) and brats2013_deepmedic (volumes with lesion
masks), or one of them. There are two replays:

pictures: each image is a study of one slice. 40 % of them are the test set, a different draw for each seed.
slabs: twenty rounds need more studies than there are volumes. Each volume is cut into slabs of THICKNESS neighbouring
slices, and each slab is a study that is read and labelled as a whole. One patient is the test set, another for each
seed.

In every run two studies with normal slices are labelled at the start, and then one in each round, chosen by
`medclipad.active_learning.rank` as the server does. The detector is the memory of normal tokens, which makes nine
tenths of MediCLIP's map on the embedded encoder; its score is the mean of the highest 2 %. It learns from the
lesion-free slices of the labelled studies; slices with lesion cost a label and teach it nothing. The distance to a
memory is the smallest of the distances to the slices in it: all pairs of slices are compared once, and each round takes
a minimum.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import typer

from benchmarks.accuracy_data import SIZE, PatientSet, data_sets
from benchmarks.machine import machine
from benchmarks.pages import markdown_table
from medclipad.active_learning import STRATEGIES, Candidate, project, rank
from medclipad.detection.slice_frames import FramedVolume
from medclipad.encoders import load_encoder
from medclipad.methods.common.auroc import auroc
from medclipad.methods.common.coreset import PROJECTED, farthest_points
from medclipad.methods.common.normal_memory import NormalMemory
from medclipad.methods.mediclip.network import MediCLIPNetwork
from medclipad.methods.mediclip.options import MediCLIPOptions
from medclipad.volume import Volume

TOKENS = 196  # remembered of a slice: twenty slices fill the memory of 4000
TEST_SHARE = 0.4  # of the studies, where no patients are known
START = 2  # studies labelled at the start
QUANTILE = 0.95  # of the scores of learned slices: the boundary between normal and abnormal
STEP, THICKNESS = 2, 4  # every second slice, four of them: slabs of 8 mm
_BATCH = 16  # memories that a slice is compared with at a time

REPORT = Path("docs/explanation/active-learning.md")


@dataclass(frozen=True)
class Replay:
    """Slices of studies whose labelling is replayed.

    Attributes
    ----------
    title, description : str
        Name, and a sentence for the report.
    images : numpy.ndarray
        float32 (n, S, S) in [0, 1].
    abnormal : numpy.ndarray
        bool (n,).
    study : numpy.ndarray
        Number of each slice's study, int (n,), from 0.
    patient : numpy.ndarray or None
        Number of each slice's patient, int (n,); None where the test set is drawn among the studies.
    """

    title: str
    description: str
    images: np.ndarray
    abnormal: np.ndarray
    study: np.ndarray
    patient: np.ndarray | None

    def test(self, rng: np.random.Generator, seed: int) -> np.ndarray:
        """Return which slices are the test set and never labelled, bool (n,)."""
        if self.patient is not None:
            return self.patient == np.unique(self.patient)[seed % len(np.unique(self.patient))]
        order = rng.permutation(self.study.max() + 1)
        return np.isin(self.study, order[: int(TEST_SHARE * len(order))])


def main(
    data: Annotated[Path, typer.Argument(help="Folder of the data sets.")],
    rounds: Annotated[int, typer.Option(help="Rounds, one label in each.")] = 20,
    seeds: Annotated[int, typer.Option(help="Number of seeds.")] = 5,
    out: Annotated[Path, typer.Option(help="Report; the plots go to images/ beside it.")] = REPORT,
) -> None:
    """Compare active-learning strategies with random choice, and write a report."""
    parts = []
    for replay in replays(data):
        started = time.perf_counter()
        distances, features = compare_all(replay.images)
        curves = {
            name: np.array([run(name, seed, rounds, replay, distances, features) for seed in range(seeds)])
            for name in STRATEGIES
        }
        plot_name = f"active-learning-{replay.title}.png"
        plot(curves, out.parent / "images" / plot_name)
        parts.append(section(replay, curves, plot_name, time.perf_counter() - started))
    out.write_text(page(parts), encoding="utf-8")
    print(out.read_text(encoding="utf-8"))


def replays(data: Path) -> Iterator[Replay]:
    """Yield the replays whose data a folder holds."""
    if (data / "brain_mri_253").is_dir():
        yield _single_slices(data / "brain_mri_253")
    for _, data_set in data_sets(data) if (data / "brats2013_deepmedic").is_dir() else ():
        if isinstance(data_set, PatientSet):
            yield _slabs(data_set)


def _single_slices(folder: Path) -> Replay:
    """Return the images of the folders `no` and `yes`, exact duplicates dropped."""
    images, truth, seen = [], [], set()
    for label in ("no", "yes"):
        for path in sorted((folder / label).iterdir()):
            pixels = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
            digest = None if pixels is None else hashlib.sha256(pixels.tobytes()).hexdigest()
            if pixels is None or digest in seen:
                continue
            seen.add(digest)
            volume = Volume(pixels.T[:, ::-1, None].astype(np.float32), np.eye(4), name=path.name)
            images.append(FramedVolume(volume, "axial", "mr", SIZE).images([0])[0])
            truth.append(label == "yes")
    description = (
        f"{len(truth)} MR images of one slice (Kaggle's brain tumour set), {sum(truth)} abnormal, exact duplicates "
        f"dropped; {100 * TEST_SHARE:.0f} % of them are the test set, a different draw for each seed."
    )
    return Replay("pictures", description, np.stack(images), np.array(truth), np.arange(len(truth)), None)


def _slabs(patients: PatientSet) -> Replay:
    """Return the patients' volumes, cut into slabs."""
    images, truth, study, patient = [], [], [], []
    for number, (slices, inside, _) in enumerate(patients.stacks):
        first = study[-1].max() + 1 if study else 0
        images.append(slices[::STEP])
        truth.append(inside[::STEP])
        study.append(first + np.arange(len(truth[-1])) // THICKNESS)
        patient.append(np.full(len(truth[-1]), number))
    abnormal, slab = np.concatenate(truth), np.concatenate(study)
    description = (
        f"FLAIR of {len(patients.stacks)} patients with glioma (BRATS 2013), every {STEP}nd axial slice: "
        f"{len(abnormal)} slices, {abnormal.sum()} with tumour. So few volumes do not last for twenty rounds: they are "
        f"cut into {slab[-1] + 1} slabs of {THICKNESS} slices, {len(np.unique(slab[abnormal]))} with tumour. The "
        "slices of one patient are the test set, and the slabs of the others are labelled."
    )
    return Replay("slabs", description, np.concatenate(images), abnormal, slab, np.concatenate(patient))


@torch.inference_mode()
def compare_all(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compare all pairs of slices.

    Returns
    -------
    distances : numpy.ndarray
        Distance (n, n, tokens) of each token of slice i to the nearest token in slice j's memory.
    features : numpy.ndarray
        Features (n, width) of the slices, for the diverse strategy.
    """
    encoder = load_encoder("embedded", SIZE)
    method = MediCLIPNetwork(encoder, MediCLIPOptions())
    generator = torch.Generator().manual_seed(0)
    tokens, memories, features = [], [], []
    for image in torch.from_numpy(images)[:, None]:
        taps = method.patch_tokens(image)
        joined = NormalMemory.join(method.memory_maps(taps), image).flatten(0, 2)
        directions = torch.randn(joined.shape[1], PROJECTED, generator=generator)
        tokens.append(joined)
        memories.append(joined[farthest_points(joined @ directions, TOKENS)[0]])
        features.append(torch.cat([torch.nn.functional.normalize(tap[0].mean(dim=0), dim=0) for tap in taps]).numpy())
    distances = np.empty((len(images), len(images), len(tokens[0])), np.float32)
    for start in range(0, len(images), _BATCH):
        part = torch.stack(memories[start : start + _BATCH])
        for i, own in enumerate(tokens):
            gaps = torch.cdist(own, part.flatten(0, 1)).view(len(own), len(part), TOKENS)
            distances[i, start : start + len(part)] = gaps.amin(dim=2).T.numpy()
    return distances, np.stack(features)


def run(
    strategy: str, seed: int, rounds: int, replay: Replay, distances: np.ndarray, features: np.ndarray
) -> list[float]:
    """Return the AUROC of the test slices after the start and after each round."""
    rng = np.random.default_rng(seed)  # the same split and start for each strategy
    test, study, normal = replay.test(rng, seed), replay.study, ~replay.abnormal
    with_normal = np.unique(study[~test & normal])
    labelled = [int(number) for number in rng.permutation(with_normal)[:START]]
    nearest = np.full(distances.shape[::2], np.inf, np.float32)  # of each token to what is remembered
    points, curve = project(features), []
    for number in range(rounds + 1):
        for new in labelled[-START if not number else -1 :]:
            for source in np.flatnonzero((study == new) & normal):
                np.minimum(nearest, distances[:, source], out=nearest)
        score = score_of(nearest)
        area = auroc(score[test], replay.abnormal[test])
        curve.append(np.nan if area is None else area)
        boundary = float(np.quantile(_left_out(np.isin(study, labelled) & normal, study, distances), QUANTILE))

        def candidate(index: int, score: np.ndarray = score, boundary: float = boundary) -> Candidate:
            own = study == index
            return Candidate(f"{index:05d}", float(score[own].max()), score[own], boundary, points[own])

        rest = [candidate(int(index)) for index in np.setdiff1d(study[~test], labelled)]
        chosen, _ = rank(strategy, rest, [candidate(index) for index in labelled], seed=1000 * seed + number)[0]
        labelled.append(int(chosen.name))
    return curve


def score_of(distances: np.ndarray) -> np.ndarray:
    """Return the scores (...) of slices from their tokens' distances (..., tokens): the mean of the highest 2 %."""
    count = max(1, int(0.02 * distances.shape[-1]))
    return np.partition(distances, -count, axis=-1)[..., -count:].mean(axis=-1).astype(float)


def _left_out(learned: np.ndarray, study: np.ndarray, distances: np.ndarray) -> list[float]:
    """Return the scores of learned slices, each as if its study had not been learned."""
    return [
        float(score_of(distances[k, others].min(axis=0)))
        for k in np.flatnonzero(learned)
        if (others := learned & (study != study[k])).any()
    ]


def plot(curves: dict[str, np.ndarray], path: Path) -> None:
    """Draw the mean and range over the seeds of each strategy."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, curve in curves.items():
        labelled = START + np.arange(curve.shape[1])
        style: dict[str, Any] = {"color": "0.4", "linestyle": "--"} if name == "random" else {}
        line = axes.plot(labelled, curve.mean(axis=0), label=name, **style)[0]
        axes.fill_between(labelled, curve.min(axis=0), curve.max(axis=0), alpha=0.12, color=line.get_color())
    axes.set(xlabel="labelled studies", ylabel="AUROC on the test slices")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def section(replay: Replay, curves: dict[str, np.ndarray], plot_name: str, seconds: float) -> str:
    """Return a replay's part of the report: what was measured, the plot, and each strategy's gain over random."""
    seeds, points = curves["random"].shape
    shown = sorted({0, points // 4, points // 2, points - 1})
    rows = [
        [name, *(f"{curve[:, k].mean():.3f}" for k in shown), f"{curve.mean():.3f}", _gain(name, curves)]
        for name, curve in curves.items()
    ]
    counts = [f"{START + k} labelled" for k in shown]
    headings = ["strategy", *counts, "mean over rounds", "gain over random, mean (range over seeds)"]
    return "\n".join([
        f"## {replay.title.capitalize()}",
        "",
        f"{replay.description} {seeds} seeds, {points - 1} rounds of one label.",
        "",
        f"![AUROC against labelled studies](images/{plot_name})",
        "",
        markdown_table(headings, rows),
        "",
        f"{_verdict(curves)} {seconds / 60:.1f} minutes.",
        "",
    ])  # fmt: skip


def page(sections: list[str]) -> str:
    """Return the report."""
    return "\n".join([
        "# Active learning: does it matter what is labelled next?",
        "",
        "Written by `python -m benchmarks.active_learning`; the top of that file describes the replays. The numbers "
        "are AUROC over slices that are never labelled.",
        "",
        *sections,
        f"Machine: `{json.dumps(machine())}`",
        "",
    ])  # fmt: skip


def _verdict(curves: dict[str, np.ndarray]) -> str:
    """Return which strategies were better, and which worse, than random with every seed."""
    gains = {name: (curve - curves["random"]).mean(axis=1) for name, curve in curves.items() if name != "random"}
    better = [name for name, gain in gains.items() if gain.min() > 0]
    worse = [name for name, gain in gains.items() if gain.max() < 0]
    sentences = [f"{word} than random with every seed: {', '.join(names)}." for word, names in
                 (("Better", better), ("Worse", worse)) if names]  # fmt: skip
    return " ".join(sentences) or "No strategy was better than random with every seed, and none was worse."


def _gain(name: str, curves: dict[str, np.ndarray]) -> str:
    if name == "random":
        return "-"
    gains = (curves[name] - curves["random"]).mean(axis=1)
    return f"{gains.mean():+.3f} ({gains.min():+.3f} to {gains.max():+.3f})"


if __name__ == "__main__":
    typer.run(main)
