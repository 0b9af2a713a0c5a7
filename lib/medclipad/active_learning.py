"""Which volume, and which of its slices, to label next. Pure: from scores and features to an order."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medclipad.errors import MedCLIPADError

STRATEGIES = {
    "most_anomalous": "The unlabelled image with the highest anomaly score",
    "most_uncertain": "The unlabelled image whose score is nearest to what parts normal from abnormal",
    "most_diverse": "The unlabelled image that is least like the labelled ones (greedy coreset in feature space)",
    "random": "Any unlabelled image",
}
MAX_SLICES = 5
PROJECTED = 64
APART = 3  # slices next to a chosen one show the same: they are passed over


@dataclass(frozen=True)
class Candidate:
    """An image as a detector sees it.

    slice_scores: float (n_slices,), nan where skipped. volume_score: of the image. boundary: score above which a slice
    is called abnormal. features: float (n_slices, width) of the frozen encoder, nan where skipped; see `project`.
    """

    name: str
    volume_score: float
    slice_scores: np.ndarray
    boundary: float
    features: np.ndarray

    @property
    def centre(self) -> np.ndarray:
        """(width,) mean feature of the slices that were looked at; zeros if none was."""
        seen = np.isfinite(self.features).all(axis=1)
        return self.features[seen].mean(axis=0, dtype=float) if seen.any() else np.zeros(self.features.shape[1])


def project(features: np.ndarray) -> np.ndarray:
    """Features (n, width) on PROJECTED random directions, always the same: float16, distances nearly kept.

    Johnson and Lindenstrauss 1984. A thousand volumes then take some ten megabytes.
    """
    directions = np.random.default_rng(0).normal(size=(features.shape[1], PROJECTED)) / PROJECTED**0.5
    return (features @ directions).astype(np.float16)


def rank(
    strategy: str, candidates: Sequence[Candidate], labelled: Sequence[Candidate] = (), seed: int | None = None
) -> list[tuple[Candidate, float]]:
    """Candidates with their merit, the most useful first; equals in the order of their names.

    Merit: most_anomalous, the volume score; most_uncertain, minus its distance to the boundary; most_diverse, the
    distance of the mean feature to the nearest labelled or already chosen one (without any, first the one nearest to
    the mean of all, as the most typical); random, a random number. Raises MedCLIPADError for another strategy.
    """
    if strategy not in STRATEGIES:
        raise MedCLIPADError(f"There is no strategy {strategy!r}; there are: {', '.join(STRATEGIES)}.")
    ordered = sorted(candidates, key=lambda one: one.name)
    if strategy == "most_diverse":
        return _coreset(ordered, labelled)
    draw = random.Random(seed)
    merits = {
        "most_anomalous": lambda one: _finite(one.volume_score),
        "most_uncertain": lambda one: -abs(_finite(one.volume_score) - one.boundary),
        "random": lambda one: draw.random(),
    }
    scored = [(one, merits[strategy](one)) for one in ordered]
    return sorted(scored, key=lambda pair: -pair[1])


def slices_first(
    strategy: str,
    candidate: Candidate,
    labelled: Sequence[Candidate] = (),
    count: int = MAX_SLICES,
    seed: int | None = None,
) -> list[tuple[int, float]]:
    """At most `count` slices of an image to look at first, with their merit, the most useful first.

    Neighbours of a chosen slice are passed over as long as others are left. most_diverse: the slices farthest from the
    labelled images' mean features and from each other; without labelled images, from the image's own mean.
    """
    seen = np.flatnonzero(np.isfinite(candidate.slice_scores))
    if not len(seen):
        return []
    scores = candidate.slice_scores[seen]
    if strategy == "most_diverse":
        centres = [one.centre for one in labelled] or [candidate.centre]
        order, merits = _farthest(candidate.features[seen], np.stack(centres), min(len(seen), 4 * count))
        ranked = [(int(seen[k]), float(merit)) for k, merit in zip(order, merits, strict=True)]
    else:
        draw = random.Random(seed)
        merits = {
            "most_anomalous": scores,
            "most_uncertain": -abs(scores - candidate.boundary),
            "random": np.array([draw.random() for _ in seen]),
        }[strategy]
        ranked = [(int(seen[k]), float(merits[k])) for k in np.argsort(-merits, kind="stable")]
    chosen = []
    for number, merit in ranked:
        if all(abs(number - other) >= APART for other, _ in chosen):
            chosen.append((number, merit))
        if len(chosen) == count:
            break
    return chosen


def _coreset(candidates: list[Candidate], labelled: Sequence[Candidate]) -> list[tuple[Candidate, float]]:
    if not candidates:
        return []
    points = np.stack([one.centre for one in candidates])
    if labelled:
        order, merits = _farthest(points, np.stack([one.centre for one in labelled]), len(points))
        return [(candidates[k], float(merit)) for k, merit in zip(order, merits, strict=True)]
    first = int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())
    rest = [k for k in range(len(points)) if k != first]
    order, merits = _farthest(points[rest], points[first : first + 1], len(rest))
    top = float(merits[0]) if len(rest) else 0.0
    return [(candidates[first], top), *((candidates[rest[k]], float(m)) for k, m in zip(order, merits, strict=True))]


def _farthest(points: np.ndarray, centres: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Greedy k-centre: indices (count,) of points (n, d), each the farthest from the centres and those before it.

    Returns them with their distance (count,) when chosen.
    """
    gaps = np.min([np.linalg.norm(points - centre, axis=1) for centre in centres], axis=0)
    order, merits = np.zeros(count, dtype=int), np.zeros(count)
    for place in range(count):
        best = int(gaps.argmax())
        order[place], merits[place] = best, gaps[best]
        gaps = np.minimum(gaps, np.linalg.norm(points - points[best], axis=1))
        gaps[best] = -1
    return order, merits


def _finite(score: float) -> float:
    """An image of which no slice could be looked at is the least anomalous."""
    return score if np.isfinite(score) else 0.0
