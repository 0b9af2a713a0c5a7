"""A case to draw: what is shown of it, in which grey window, and which slices are worth looking at.

This module does not load matplotlib, so that the DICOM export can use it on a server.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from medclipad.volume import Slicing, Volume, parse_preset

if TYPE_CHECKING:
    from medclipad.detection.result import AnomalyResult

MARGIN = 4  # pixels shown around the foreground


@dataclass(frozen=True, eq=False)
class DrawnCase:
    """A volume, the result of a detector, and the ground truth if it is known.

    Attributes
    ----------
    volume
        The image.
    result
        What the detector found in it.
    truth
        Mask on the same grid, non-zero where abnormal.
    window
        (low, high) of the grey values; None takes those that the detector saw, or else percentiles of the foreground.
    """

    volume: Volume
    result: AnomalyResult
    truth: Volume | None = None
    window: tuple[float, float] | None = None

    @property
    def slicing(self) -> Slicing:
        """Plane and order of the slices."""
        return self.result.slicing

    @cached_property
    def grey_window(self) -> tuple[float, float]:
        """(low, high), the values drawn black and white."""
        return self.window or self.result.window or parse_preset("mr").window(self.volume, self.result.foreground)

    @cached_property
    def lesion_area(self) -> np.ndarray:
        """Voxels of the truth in each slice: int (n_slices,)."""
        if self.truth is None:
            return np.zeros(len(self.slicing), int)
        return np.count_nonzero(self.slicing.slices(self.truth.array), axis=(1, 2))

    @cached_property
    def view(self) -> tuple[slice, slice]:
        """Rows and columns that hold the foreground of every slice, with a margin."""
        visible = self.slicing.slices(self.result.foreground).any(axis=0)
        if not visible.any():
            return slice(None), slice(None)
        return _with_margin(np.any(visible, axis=1)), _with_margin(np.any(visible, axis=0))


def choose_key_slices(case: DrawnCase, count: int = 8) -> list[int]:
    """Return the numbers of the slices most worth looking at, ascending.

    These are the slice of the largest lesion, the highest score, and the highest score without a lesion; then slices
    evenly spaced over the lesion, then over the scored slices. Slices close to a chosen one are left out.

    Parameters
    ----------
    case
        Case to choose from.
    count
        Largest number of slices.
    """
    scores, area = case.result.slice_scores, case.lesion_area
    scored, lesion = np.flatnonzero(~np.isnan(scores)), np.flatnonzero(area)
    by_score = scored[np.argsort(-scores[scored], kind="stable")]
    best = [lesion[np.argsort(-area[lesion], kind="stable")], by_score, by_score[area[by_score] == 0]]
    every = lesion if lesion.size else scored
    min_gap = max(1, len(every) // (2 * count))
    chosen: list[int] = []

    def choose(candidates: Iterable[int]) -> None:
        for n in candidates:
            if len(chosen) < count and all(abs(int(n) - other) >= min_gap for other in chosen):
                chosen.append(int(n))

    choose(pool[0] for pool in best if pool.size)
    choose(_evenly_spaced(lesion, count - len(chosen)))
    choose(_evenly_spaced(scored, count))
    return sorted(chosen) or [len(scores) // 2]


def _with_margin(visible: np.ndarray) -> slice:
    """Return the range from the first to the last True, with a margin."""
    hits = np.flatnonzero(visible)
    return slice(max(0, hits[0] - MARGIN), hits[-1] + 1 + MARGIN)


def _evenly_spaced(pool: np.ndarray, count: int) -> np.ndarray:
    """Return `count` members of a pool, evenly spaced."""
    return pool[((np.arange(count) + 0.5) / count * len(pool)).astype(int)] if pool.size else pool
