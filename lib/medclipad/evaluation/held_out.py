"""Choose the labelled slices that are held out of a training, to compare the old and the new detector on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from medclipad.detection.cases import Case
from medclipad.files import sha256_of_text
from medclipad.volume import Slicing

MAX_SLICES = 64  # bounds the time of a comparison: both detectors analyse every held-out slice
# Neighbouring slices are held out together: a single one resembles the neighbours that were learned from too much.
RUN_LENGTH = 4
MIN_ABNORMAL_VOLUMES = 3  # with fewer, holding out a whole volume would leave too little to learn from

Known = tuple[np.ndarray, np.ndarray]  # (normal, abnormal), bool (n_slices,) each, see `Case.known`


@dataclass(frozen=True)
class HeldOut:
    """Slices of a case that are held out of a training.

    Attributes
    ----------
    case
        The case, with its ground truth.
    numbers
        Numbers of the held-out slices, ascending.
    """

    case: Case
    numbers: list[int]

    def truth(self, plane: str) -> np.ndarray:
        """Return which of the slices are abnormal along a plane: bool (len(numbers),)."""
        _, abnormal = self.case.known(Slicing(self.case.volume, plane))
        return abnormal[self.numbers]


def hold_out(
    cases: Sequence[Case], fraction: float, plane: str, learned_volumes: Collection[str] = ()
) -> tuple[list[Case], list[HeldOut]]:
    """Hold out about a fraction of the labelled slices.

    With three abnormal volumes or more, whole volumes are held out. With fewer, runs of neighbouring slices of each
    volume are. The choice is the same each time.

    Parameters
    ----------
    cases
        Labelled cases.
    fraction
        Share of the labelled volumes or slices to hold out, in [0, 1]; 0 holds out nothing.
    plane
        Plane along which the slices are labelled.
    learned_volumes
        Names of the volumes that the old detector learned from. They are held out last, so that neither detector has an
        advantage.

    Returns
    -------
    list of Case, list of HeldOut
        Cases to learn from, and what is held out of them. Nothing is held out if either part would lack normal or
        abnormal slices.

    Raises
    ------
    VolumeError
        If a mask is on another grid than its volume.
    TrainingError
        If a labelled slice is outside its volume.
    """
    known = [case.known(Slicing(case.volume, plane)) for case in cases]
    abnormal = [index for index, (_, is_abnormal) in enumerate(known) if is_abnormal.any()]
    if not fraction or not abnormal or not any(is_normal.any() for is_normal, _ in known):
        return list(cases), []
    if len(abnormal) >= MIN_ABNORMAL_VOLUMES:
        kept, held_out = _hold_out_volumes(cases, known, fraction, learned_volumes)
    else:
        kept, held_out = _hold_out_runs(cases, known, fraction)
    held_out = thinned(held_out)
    truth = np.concatenate([part.truth(plane) for part in held_out]) if held_out else np.zeros(0, bool)
    usable = truth.any() and not truth.all() and _has_both_classes(kept, plane)
    return (kept, held_out) if usable else (list(cases), [])


def _hold_out_volumes(
    cases: Sequence[Case], known: Sequence[Known], fraction: float, learned_volumes: Collection[str]
) -> tuple[list[Case], list[HeldOut]]:
    """Hold out whole volumes: at least one abnormal volume, and the fraction of the normal ones."""

    def rank(index: int) -> tuple[bool, str]:
        name = cases[index].volume.name
        return name in learned_volumes, sha256_of_text(name)

    abnormal = [index for index, (_, is_abnormal) in enumerate(known) if is_abnormal.any()]
    normal = [index for index in range(len(cases)) if index not in abnormal]
    chosen = [
        index
        for group, at_least in ((abnormal, 1), (normal, 0))
        for index in sorted(group, key=rank)[: max(round(fraction * len(group)), at_least)]
    ]
    kept = [case for index, case in enumerate(cases) if index not in chosen]
    held_out = [HeldOut(cases[index], np.flatnonzero(known[index][0] | known[index][1]).tolist()) for index in chosen]
    return kept, held_out


def _hold_out_runs(cases: Sequence[Case], known: Sequence[Known], fraction: float) -> tuple[list[Case], list[HeldOut]]:
    """Hold out runs of neighbouring slices of each volume."""
    held_out = [HeldOut(case, _runs(*truth, fraction)) for case, truth in zip(cases, known, strict=True)]
    kept = [replace(case, held_out=part.numbers) for case, part in zip(cases, held_out, strict=True)]
    return kept, [part for part in held_out if part.numbers]


def _runs(normal: np.ndarray, abnormal: np.ndarray, fraction: float) -> list[int]:
    """Return every n-th run of RUN_LENGTH labelled slices, n = 1 / fraction, among the normal and the abnormal ones."""
    every = max(2, round(1 / fraction))
    chosen: list[int] = []
    for group in (np.flatnonzero(normal), np.flatnonzero(abnormal)):
        run = RUN_LENGTH if len(group) >= RUN_LENGTH * every else 1
        chosen += [int(number) for index, number in enumerate(group) if (index // run) % every == every // 2]
    return sorted(chosen)


def thinned(held_out: list[HeldOut]) -> list[HeldOut]:
    """Return about MAX_SLICES of the slices, evenly spaced along each volume."""
    total = sum(len(part.numbers) for part in held_out)
    if total <= MAX_SLICES:
        return held_out
    step = total / MAX_SLICES
    return [
        replace(part, numbers=[part.numbers[int(position)] for position in np.arange(0, len(part.numbers), step)])
        for part in held_out
    ]


def _has_both_classes(cases: Sequence[Case], plane: str) -> bool:
    """Return whether normal and abnormal slices are left to learn from."""
    normal, abnormal = False, False
    for case in cases:
        slicing = Slicing(case.volume, plane)
        free = np.ones(len(slicing), dtype=bool)
        free[list(case.held_out)] = False
        is_normal, is_abnormal = case.known(slicing)
        normal, abnormal = normal or bool((is_normal & free).any()), abnormal or bool((is_abnormal & free).any())
    return normal and abnormal
