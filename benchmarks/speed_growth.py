"""Growth of the cost, for `benchmarks.speed`: by slices, in-plane size, shots and memory, on the embedded encoder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

import medclipad as mc
from benchmarks.speed_bench import SIZES, Bench, head, images
from benchmarks.speed_clock import Work, seconds_of
from medclipad.encoders import load_encoder
from medclipad.methods import method_names
from medclipad.methods.common.augment import augment
from medclipad.methods.common.token_memory import TokenMemory, draw
from medclipad.methods.mvfa.network import MVFANetwork
from medclipad.methods.mvfa.options import MVFAOptions

SLICES, IN_PLANE, SHOTS = (10, 30, 100, 300, 600), (128, 256, 512, 1024), (1, 4, 16, 64)
BANKS = (500, 2000, 8000, 32000, None)  # tokens remembered; None: all
SMALL = 128  # pixels a side, where the number of slices grows
FEW = 16  # slices, where their size grows
TESTED = 4  # images compared with the memory
SHORT = 3.0  # seconds; a faster point is the median of three

Curves = dict[str, list[tuple[float, float]]]
"""Points (x, seconds) by name of the curve."""


@dataclass(frozen=True)
class Growth:
    """Plot of seconds.

    Attributes
    ----------
    title, x, y : str
        Title and labels of the axes.
    measure : callable
        Returns the points (x, seconds) of each curve.
    """

    title: str
    x: str
    y: str
    measure: Callable[[Bench], Curves]


def curve(sizes: Sequence[int], work_of: Callable[[int], Work]) -> list[tuple[float, float]]:
    """Return (size, seconds) for each size. `work_of` prepares the work for a size and is not timed itself."""
    points = []
    for size in sizes:
        work = work_of(size)
        spent = [seconds_of(work)]
        if spent[0] < SHORT:
            spent = [seconds_of(work) for _ in range(3)]
        points.append((size, median(spent)))
    return points


def embedded(method: str, **options: Any) -> mc.AnomalyDetector:
    """Fit a detector on the embedded encoder, briefly: the time of a detection does not depend on it."""
    options = {"max_steps": 1, **options} if method == "mediclip" else {"max_samples": 8, **options}
    return fitting(method, 4, **options)()


def fitting(method: str, shots: int, **options: Any) -> Callable[[], mc.AnomalyDetector]:
    """Return a call that fits a detector."""
    normal, lesion = head(80, 224), head(max(shots, 4), 224, seed=1)
    abnormal = [(lesion, lesion.with_array((lesion.array > 900).astype(np.uint8)))] if method == "mvfa" else []
    return lambda: mc.fit(method=method, normal=[normal], abnormal=abnormal, shots=shots, **options)


def slices(bench: Bench) -> Curves:
    """Time detections by number of slices."""
    return _detected(bench.some(SLICES), lambda n: head(n, SMALL))


def in_plane(bench: Bench) -> Curves:
    """Time detections by in-plane size."""
    return _detected(bench.some(IN_PLANE), lambda side: head(FEW, side))


def _detected(sizes: Sequence[int], volume_of: Callable[[int], mc.Volume]) -> Curves:
    curves = {}
    for method in method_names():
        detector = embedded(method)
        detector.detect(head(FEW, SMALL))

        def work_of(size: int, detector: mc.AnomalyDetector = detector) -> Work:
            volume = volume_of(size)
            return lambda: detector.detect(volume)

        curves[method] = curve(sizes, work_of)
    return curves


def shots(bench: Bench) -> Curves:
    """Time fits by number of shots."""
    return {method: curve(bench.some(SHOTS), partial(fitting, method)) for method in method_names()}


def bank(bench: Bench) -> Curves:
    """Time an image by size of MVFA's memory: the whole method, and the search alone with the tokens of ViT-L."""
    encoder = load_encoder("embedded")
    model = MVFANetwork(encoder, MVFAOptions(memory_tokens="all"))
    shots = augment(torch.from_numpy(images(4, encoder.image_size)))
    banks, generator = model.remember(shots), torch.Generator().manual_seed(0)
    tested = torch.from_numpy(images(TESTED, encoder.image_size, seed=1))

    def embedded_of(count: int) -> Work:
        for level, tokens in enumerate(banks):
            model.memory.remember(level, tokens[draw(len(tokens), count, generator)])
        return lambda: model.evidence(tested)

    grid = SIZES["mvfa"] // 14
    total, width = 44 * (grid * grid + 1), 768  # 4 shots, augmented to 44 images
    remembered, queries = torch.randn(4, total, width), torch.randn(TESTED, grid * grid, width)

    def search_of(count: int) -> Work:
        memory = TokenMemory(len(remembered), width)
        for level, tokens in enumerate(remembered):
            memory.remember(level, tokens[:count])
        return lambda: [memory.distance(level, queries) for level in range(len(remembered))]

    curves = {
        "embedded, whole": curve([n or len(banks[0]) for n in bench.some(BANKS)], embedded_of),
        "ViT-L's tokens, search alone": curve(bench.some([500, 2000, 8000, total]), search_of),
    }
    return {name: [(x, y / TESTED) for x, y in points] for name, points in curves.items()}


GROWTH = {
    "slices": Growth(f"detect, {SMALL}×{SMALL} pixels", "slices", "s", slices),
    "in-plane": Growth(f"detect, {FEW} slices", "pixels a side", "s", in_plane),
    "shots": Growth("fit with its defaults", "shots", "s", shots),
    "bank-size": Growth("MVFA's memory, a slice", "tokens remembered a level", "s a slice", bank),
}
