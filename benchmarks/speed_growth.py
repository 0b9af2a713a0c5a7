"""How cost grows, of `benchmarks.speed`: slices, in-plane size, shots and memory, with the embedded encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

import medclipad as mc
from benchmarks.speed_bench import SIZES, Bench, head, pictures
from benchmarks.speed_clock import Work, seconds_of
from medclipad.encoders import load_encoder
from medclipad.methods import METHODS
from medclipad.methods.common.token_memory import TokenMemory, draw
from medclipad.methods.mvfa import MVFA, MVFAOptions
from medclipad.methods.mvfa.augment import augment

SLICES, IN_PLANE, SHOTS = (10, 30, 100, 300, 600), (128, 256, 512, 1024), (1, 4, 16, 64)
BANKS = (500, 2000, 8000, 32000, None)  # None: all
SMALL = 128  # pixels, where the number of slices grows
FEW = 16  # slices, where their size grows
TESTED = 4  # pictures held against the bank
SHORT = 3.0  # seconds under which a point is the median of three


@dataclass(frozen=True)
class Growth:
    """A plot: axes, and what measures the seconds by curve and x."""

    title: str
    x: str
    y: str
    measure: Callable[[Bench], dict[str, list[tuple[float, float]]]]


def curve(sizes: Sequence[float], work_of: Callable[[float], Work]) -> list[tuple[float, float]]:
    """(size, seconds) of each; what `work_of` does itself is not timed."""
    points = []
    for size in sizes:
        work = work_of(size)
        spent = [seconds_of(work)]
        if spent[0] < SHORT:
            spent = [seconds_of(work) for _ in range(3)]
        points.append((size, median(spent)))
    return points


def embedded(method: str, **options) -> mc.AnomalyDetector:
    """Hardly trained: how long it takes to detect does not depend on it."""
    options = {"max_steps": 1, **options} if method == "mediclip" else {"max_samples": 8, **options}
    return fitting(method, 4, **options)()


def fitting(method: str, shots: int, **options) -> Callable[[], mc.AnomalyDetector]:
    """Fits a detector when it is called."""
    normal, lesion = head(80, 224), head(max(shots, 4), 224, seed=1)
    abnormal = [(lesion, lesion.with_array((lesion.array > 900).astype(np.uint8)))] if method == "mvfa" else []
    return lambda: mc.fit(method, normal=[normal], abnormal=abnormal, shots=shots, **options)


def slices(bench: Bench) -> dict:
    return _detected(bench.some(SLICES), lambda n: head(n, SMALL))


def in_plane(bench: Bench) -> dict:
    return _detected(bench.some(IN_PLANE), lambda side: head(FEW, side))


def _detected(sizes: Sequence[int], volume_of: Callable[[int], mc.Volume]) -> dict:
    curves = {}
    for method in METHODS:
        detector = embedded(method)
        detector.detect(head(FEW, SMALL))

        def work_of(size: int, detector: mc.AnomalyDetector = detector) -> Work:
            volume = volume_of(size)
            return lambda: detector.detect(volume)

        curves[method] = curve(sizes, work_of)
    return curves


def shots(bench: Bench) -> dict:
    return {method: curve(bench.some(SHOTS), lambda n, method=method: fitting(method, n)) for method in METHODS}


def bank(bench: Bench) -> dict:
    """A picture through MVFA whole, by tokens remembered at the finest level, and the search alone at ViT-L's size."""
    encoder = load_encoder("embedded")
    model = MVFA(encoder, MVFAOptions(memory_tokens=None))
    images = augment(torch.from_numpy(pictures(4, encoder.image_size)))
    banks, generator = model.remember(images), torch.Generator().manual_seed(0)
    tested = torch.from_numpy(pictures(TESTED, encoder.image_size, seed=1))

    def embedded_of(tokens: float) -> Work:
        for level, every in enumerate(banks):
            model.memory.remember(level, draw(every, int(tokens), generator))
        return lambda: model.evidence(tested)

    grid = SIZES["mvfa"] // 14
    every, width = 44 * (grid * grid + 1), 768
    found, queries = torch.randn(4, every, width), torch.randn(TESTED, grid * grid, width)

    def search_of(tokens: float) -> Work:
        memory = TokenMemory(len(found), width)
        for level, level_tokens in enumerate(found):
            memory.remember(level, level_tokens[: int(tokens)])
        return lambda: [memory.distance(level, queries) for level in range(len(found))]

    curves = {
        "embedded, whole": curve([n or len(banks[0]) for n in bench.some(BANKS)], embedded_of),
        "ViT-L's tokens, search alone": curve(bench.some([500, 2000, 8000, every]), search_of),
    }
    return {name: [(x, y / TESTED) for x, y in points] for name, points in curves.items()}


GROWTH = {
    "slices": Growth(f"detect, {SMALL}×{SMALL} pixels", "slices", "s", slices),
    "in-plane": Growth(f"detect, {FEW} slices", "pixels a side", "s", in_plane),
    "shots": Growth("fit with its defaults", "shots", "s", shots),
    "bank-size": Growth("MVFA's memory, a slice", "tokens remembered a level", "s a slice", bank),
}
