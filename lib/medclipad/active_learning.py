"""Choose the image to label next, and the slices of it to look at first, from scores and features."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from medclipad.errors import MedCLIPADError
from medclipad.methods.common.coreset import farthest_points

STRATEGIES = {
    "most_anomalous": "The unlabelled image with the highest anomaly score",
    "most_uncertain": "The unlabelled image whose score is closest to the boundary between normal and abnormal",
    "most_diverse": "The unlabelled image that is least like the labelled ones (greedy coreset in feature space)",
    "random": "Any unlabelled image",
}
MAX_SLICES = 5
PROJECTED_WIDTH = 64
MIN_GAP = 3  # slices closer than this show the same anatomy
# Candidates to choose diverse slices from, for each slice asked for: some lie closer than MIN_GAP to a better one.
SPARE_SLICES = 4


@dataclass(frozen=True)
class Candidate:
    """An image as a detector sees it.

    Attributes
    ----------
    name
        Name of the image.
    volume_score
        Anomaly score of the image; nan if no slice was analysed.
    slice_scores
        float (n_slices,), nan where skipped.
    boundary
        Score above which a slice counts as abnormal.
    features
        float (n_slices, width) of the frozen encoder, nan where skipped; see `project`.
    """

    name: str
    volume_score: float
    slice_scores: np.ndarray
    boundary: float
    features: np.ndarray

    @cached_property
    def centre(self) -> np.ndarray:
        """Mean feature of the analysed slices, (width,); zeros if none was analysed."""
        analysed = np.isfinite(self.features).all(axis=1)
        if not analysed.any():
            return np.zeros(self.features.shape[1])
        return self.features[analysed].mean(axis=0, dtype=float)


def project(features: np.ndarray) -> np.ndarray:
    """Project features onto fixed random directions, which nearly keeps their distances.

    A thousand volumes then take some ten megabytes.

    Parameters
    ----------
    features
        float (n, width).

    Returns
    -------
    numpy.ndarray
        float16 (n, PROJECTED_WIDTH).

    Notes
    -----
    Johnson and Lindenstrauss, Extensions of Lipschitz mappings into a Hilbert space, 1984.
    """
    directions = np.random.default_rng(0).normal(size=(features.shape[1], PROJECTED_WIDTH)) / PROJECTED_WIDTH**0.5
    return (features @ directions).astype(np.float16)


def rank(
    strategy: str,
    candidates: Sequence[Candidate],
    labelled: Sequence[Candidate] = (),
    seed: int | None = None,
    count: int | None = None,
) -> list[tuple[Candidate, float]]:
    """Rank the candidates, the most useful to label first.

    Parameters
    ----------
    strategy
        One of STRATEGIES.
    candidates
        Unlabelled images.
    labelled
        Labelled images; only "most_diverse" uses them.
    seed
        Seed of "random"; None gives another order each time.
    count
        Largest number of candidates to return, by default all; the fewer, the sooner "most_diverse" is done.

    Returns
    -------
    list of (Candidate, float)
        The candidates with their priorities, in descending order; equal ones in the order of their names.

        The priority is, for "most_anomalous", the volume score; for "most_uncertain", minus its distance from the
        boundary; for "most_diverse", the distance of the mean feature from the closest labelled or already chosen one
        (without labelled images, the most typical image comes first: the one closest to the mean of all); for "random",
        a random number.

    Raises
    ------
    MedCLIPADError
        If there is no such strategy.

    Examples
    --------
    >>> unlabelled = [
    ...     Candidate(name, score, np.array([np.nan, score]), boundary=0.5, features=np.zeros((2, 8)))
    ...     for name, score in (("first", 0.2), ("second", 0.9), ("third", 0.55))
    ... ]
    >>> [candidate.name for candidate, _ in rank("most_anomalous", unlabelled)]
    ['second', 'third', 'first']
    >>> [candidate.name for candidate, _ in rank("most_uncertain", unlabelled)]
    ['third', 'first', 'second']
    """
    if strategy not in STRATEGIES:
        raise MedCLIPADError(f"There is no strategy {strategy!r}: choose one of {', '.join(STRATEGIES)}.")
    ordered = sorted(candidates, key=lambda candidate: candidate.name)
    if strategy == "most_diverse":
        return _rank_by_diversity(ordered, labelled, min(len(ordered), len(ordered) if count is None else count))
    generator = random.Random(seed)
    priorities: dict[str, Callable[[Candidate], float]] = {
        "most_anomalous": lambda candidate: _finite(candidate.volume_score),
        "most_uncertain": lambda candidate: -abs(_finite(candidate.volume_score) - candidate.boundary),
        "random": lambda candidate: generator.random(),
    }
    scored = [(candidate, priorities[strategy](candidate)) for candidate in ordered]
    return sorted(scored, key=lambda pair: -pair[1])[:count]


def rank_slices(
    strategy: str,
    candidate: Candidate,
    labelled: Sequence[Candidate] = (),
    count: int = MAX_SLICES,
    seed: int | None = None,
) -> list[tuple[int, float]]:
    """Rank the slices of an image, the most useful to look at first.

    Parameters
    ----------
    strategy
        One of STRATEGIES. "most_diverse" takes the slices farthest from the mean features of the labelled images (or,
        without any, from the image's own mean) and from each other.
    candidate
        The image.
    labelled
        Labelled images; only "most_diverse" uses them.
    count
        Largest number of slices.
    seed
        Seed of "random"; None gives another order each time.

    Returns
    -------
    list of (int, float)
        Slice numbers with their priorities, in descending order, at least MIN_GAP slices apart. Empty if no slice of
        the image was analysed.
    """
    analysed = np.flatnonzero(np.isfinite(candidate.slice_scores))
    if not len(analysed):
        return []
    chosen: list[tuple[int, float]] = []
    for number, priority in _rank_analysed(strategy, candidate, analysed, labelled, count, seed):
        if all(abs(number - other) >= MIN_GAP for other, _ in chosen):
            chosen.append((number, priority))
        if len(chosen) == count:
            break
    return chosen


def _rank_analysed(
    strategy: str,
    candidate: Candidate,
    analysed: np.ndarray,
    labelled: Sequence[Candidate],
    count: int,
    seed: int | None,
) -> list[tuple[int, float]]:
    """Return the analysed slices with their priorities, in descending order."""
    if strategy == "most_diverse":
        centres = np.stack([other.centre for other in labelled] or [candidate.centre])
        order, gaps = _farthest(candidate.features[analysed], centres, min(len(analysed), SPARE_SLICES * count))
        return [(int(analysed[index]), float(gap)) for index, gap in zip(order, gaps, strict=True)]
    scores = candidate.slice_scores[analysed]
    generator = random.Random(seed)
    priorities = {
        "most_anomalous": scores,
        "most_uncertain": -abs(scores - candidate.boundary),
        "random": np.array([generator.random() for _ in analysed]),
    }[strategy]
    return [(int(analysed[index]), float(priorities[index])) for index in np.argsort(-priorities, kind="stable")]


def _rank_by_diversity(
    candidates: list[Candidate], labelled: Sequence[Candidate], count: int
) -> list[tuple[Candidate, float]]:
    """Return the first `count` candidates with their distance from the labelled ones and those before them."""
    if not count:
        return []
    points = np.stack([candidate.centre for candidate in candidates])
    if labelled:
        order, gaps = _farthest(points, np.stack([candidate.centre for candidate in labelled]), count)
        return [(candidates[index], float(gap)) for index, gap in zip(order, gaps, strict=True)]
    first = int(np.linalg.norm(points - points.mean(axis=0), axis=1).argmin())
    rest = [index for index in range(len(points)) if index != first]
    order, gaps = _farthest(points[rest], points[first : first + 1], min(len(rest), max(count - 1, 1)))
    top = float(gaps[0]) if len(rest) else 0.0
    ranked = [(candidates[rest[index]], float(gap)) for index, gap in zip(order, gaps, strict=True)]
    return [(candidates[first], top), *ranked][:count]


def _farthest(points: np.ndarray, centres: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices (count,) of points (n, d), each the farthest from the centres and those before it.

    With them comes their distance (count,) when they were chosen.
    """
    if not count:
        return np.zeros(0, dtype=int), np.zeros(0)
    as_tensors = [torch.from_numpy(np.asarray(part, dtype=np.float64)) for part in (points, centres)]
    order, gaps = farthest_points(as_tensors[0], count, as_tensors[1])
    return order.numpy(), gaps.numpy()


def _finite(score: float) -> float:
    """Return the score, or 0 for an image of which no slice was analysed: it is the least anomalous."""
    return score if np.isfinite(score) else 0.0
