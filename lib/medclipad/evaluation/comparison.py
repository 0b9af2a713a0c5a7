"""Did training again help? The old and the new detector on slices that the new one did not learn from."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from pydantic import BaseModel
from sklearn.metrics import average_precision_score

from medclipad.detection.slice_selection import Case
from medclipad.errors import TrainingError
from medclipad.files import sha256_of_text
from medclipad.methods.base import Progress, silent
from medclipad.methods.common.auroc import auroc
from medclipad.volume import Slicing

if TYPE_CHECKING:
    from medclipad.detection.detector import AnomalyDetector

MAX_SLICES = 64  # looked at by each of the two detectors
RUN = 4  # neighbouring slices that are kept out together: single ones would resemble what was learned too much
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class HeldOut:
    """Slices of a case that are kept out of a training, with their truth."""

    case: Case
    numbers: list[int]


class Figures(BaseModel):
    """Figures of a detector on held-out slices, each in 0..1, higher is better; None where not defined.

    slice_auroc: over all slices together. voxel_auroc, average_precision: over the voxels of body in slices of cases
    with a mask. dice: of the map above the detector's own threshold, over the same voxels.
    """

    slice_auroc: float | None = None
    voxel_auroc: float | None = None
    average_precision: float | None = None
    dice: float | None = None


@dataclass(frozen=True)
class Measured:
    """Figures, and what a comparison needs beside them.

    scores: (n,) of the slices, truth: bool (n,) whether they are abnormal; outlines: (m,) average precision of the map
    within each abnormal slice with a mask.
    """

    figures: Figures
    scores: np.ndarray
    truth: np.ndarray
    outlines: np.ndarray


def hold_out(
    cases: Sequence[Case], fraction: float, plane: str, learned: Collection[str] = ()
) -> tuple[list[Case], list[HeldOut]]:
    """(cases to learn from, what is kept out of them): about `fraction` of what is labelled.

    With three abnormal volumes or more, whole volumes are kept out, those first that the old detector did not learn
    from (`learned` names those that it did): so neither has an advantage. With fewer, runs of neighbouring slices of
    each volume are. The choice is the same each time. Nothing is kept out if there are no two classes to tell apart, or
    too little would be left to learn from.

    Raises VolumeError if a mask is on another grid than its volume, TrainingError if a called slice does not exist.
    """
    known = [case.known(Slicing(case.volume, plane)) for case in cases]
    diseased = [place for place, (_, abnormal) in enumerate(known) if abnormal.any()]
    healthy = [place for place in range(len(cases)) if place not in diseased]
    if not fraction or not diseased or not any(normal.any() for normal, _ in known):
        return list(cases), []

    def rank(place: int) -> tuple[bool, str]:
        name = cases[place].volume.name
        return name in learned, sha256_of_text(name)

    if len(diseased) >= 3:
        chosen = [
            place
            for group, least in ((diseased, 1), (healthy, 0))
            for place in sorted(group, key=rank)[: max(round(fraction * len(group)), least)]
        ]
        kept = [case for place, case in enumerate(cases) if place not in chosen]
        held = [HeldOut(cases[place], np.flatnonzero(known[place][0] | known[place][1]).tolist()) for place in chosen]
    else:
        held = [HeldOut(case, _runs(*truth, fraction)) for case, truth in zip(cases, known, strict=True)]
        kept = [replace(case, held_out=one.numbers) for case, one in zip(cases, held, strict=True)]
        held = [one for one in held if one.numbers]
    held = _thinned(held)
    truth = np.concatenate([_truth(one, plane) for one in held]) if held else np.zeros(0, bool)
    return (kept, held) if truth.any() and not truth.all() and _teaches(kept, plane) else (list(cases), [])


def measure(
    detector: AnomalyDetector, held: Sequence[HeldOut], plane: str, name: str = "", progress: Progress = silent
) -> Measured:
    """What a detector makes of held-out slices. `progress("compare", done, volumes, {"detector": name})`."""
    scores, truth, values, lesions, outlines = [], [], [], [], []
    for done, one in enumerate(held):
        progress("compare", done, len(held), {"detector": name})
        result = detector.detect(one.case.volume, plane=plane, slices=one.numbers)
        seen = np.isfinite(result.slice_scores)
        scores.append(result.slice_scores[seen])
        truth.append(one.case.known(result.slicing)[1][seen])
        if one.case.mask is not None:
            body = result.slicing.slices(result.foreground)[seen]
            maps = result.slicing.slices(result.anomaly_map.array)[seen]
            masks = result.slicing.slices(one.case.mask.array)[seen] > 0
            values.append(maps[body])
            lesions.append(masks[body])
            outlines += [
                average_precision_score(lesion[inside], values_of[inside])
                for values_of, lesion, inside in zip(maps, masks, body, strict=True)
                if lesion[inside].any()
            ]
    progress("compare", len(held), len(held), {"detector": name})
    if not scores:
        raise TrainingError("No slice was held out to measure a detector on.")
    slice_scores, slice_truth = np.concatenate(scores), np.concatenate(truth)
    figures = Figures(slice_auroc=auroc(slice_scores, slice_truth))
    if values:
        voxels, inside = np.concatenate(values), np.concatenate(lesions)
        above = voxels > detector.info.calibration.threshold
        if inside.any():
            figures.dice = float(2 * (above & inside).sum() / (above.sum() + inside.sum()))
            figures.average_precision = float(average_precision_score(inside, voxels))
        figures.voxel_auroc = auroc(voxels, inside)
    return Measured(figures, slice_scores, slice_truth, np.array(outlines))


def measurably_worse(old: Measured, new: Measured, seed: int = 0) -> bool:
    """Whether the new detector ranks the slices, or outlines what is in them, worse in 95 % of resamples of them."""
    rng = np.random.default_rng(seed)
    return _ranks_worse(old, new, rng) or _outlines_worse(old, new, rng)


def _ranks_worse(old: Measured, new: Measured, rng: np.random.Generator) -> bool:
    """Paired bootstrap of the slice AUROC, within each class."""
    if new.figures.slice_auroc is None or old.figures.slice_auroc is None or len(old.scores) != len(new.scores):
        return False
    gain = _wins(new) - _wins(old)
    abnormal, normal = (rng.multinomial(n, np.full(n, 1 / n), RESAMPLES) for n in gain.shape)  # how often each is drawn
    changes = (abnormal @ gain * normal).sum(axis=1)
    return bool((changes < 0).mean() >= CONFIDENCE)


def _wins(one: Measured) -> np.ndarray:
    """Of each pair (abnormal, normal slice), whether it is ranked rightly: 1, a tie 0.5. The mean is the AUROC."""
    return (1 + np.sign(one.scores[one.truth][:, None] - one.scores[~one.truth])) / 2


def _outlines_worse(old: Measured, new: Measured, rng: np.random.Generator) -> bool:
    """Paired bootstrap of the mean average precision within abnormal slices."""
    if len(old.outlines) != len(new.outlines) or len(new.outlines) < 2:
        return False
    gain = new.outlines - old.outlines
    means = rng.choice(gain, (RESAMPLES, len(gain))).mean(axis=1)
    return bool((means < 0).mean() >= CONFIDENCE)


def _runs(normal: np.ndarray, abnormal: np.ndarray, fraction: float) -> list[int]:
    """Every so many runs of RUN known neighbours, among the normal and among the abnormal slices of a volume."""
    every = max(2, round(1 / fraction))
    chosen: list[int] = []
    for group in (np.flatnonzero(normal), np.flatnonzero(abnormal)):
        run = RUN if len(group) >= RUN * every else 1
        chosen += [int(k) for place, k in enumerate(group) if (place // run) % every == every // 2]
    return sorted(chosen)


def _thinned(held: list[HeldOut]) -> list[HeldOut]:
    """At most MAX_SLICES, evenly of each volume and along it, abnormal and normal slices in their proportion."""
    total = sum(len(one.numbers) for one in held)
    if total <= MAX_SLICES:
        return held
    step = total / MAX_SLICES
    return [replace(one, numbers=[one.numbers[int(at)] for at in np.arange(0, len(one.numbers), step)]) for one in held]


def _truth(one: HeldOut, plane: str) -> np.ndarray:
    return one.case.known(Slicing(one.case.volume, plane))[1][one.numbers]


def _teaches(cases: Sequence[Case], plane: str) -> bool:
    """Whether both classes are left to learn from."""
    normal, abnormal = False, False
    for case in cases:
        free = np.ones(len(Slicing(case.volume, plane)), dtype=bool)
        free[list(case.held_out)] = False
        is_normal, is_abnormal = case.known(Slicing(case.volume, plane))
        normal, abnormal = normal or bool((is_normal & free).any()), abnormal or bool((is_abnormal & free).any())
    return normal and abnormal
