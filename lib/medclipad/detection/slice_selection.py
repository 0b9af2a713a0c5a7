"""Which slices of which volumes a detector learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medclipad.detection.slice_frames import FramedVolume
from medclipad.errors import TrainingError
from medclipad.methods.base import Progress, Shots
from medclipad.volume import Slicing, Volume, require_mask

SPARE_IMAGES = 64
Pair = tuple[Volume, Volume | None]


@dataclass(frozen=True)
class Case:
    """A volume and what is known of its slices along the plane that is learned.

    mask: its lesions, on the volume's grid: slices with a voxel of it are abnormal, with that mask.
    normal, abnormal: numbers of slices that a reader only called so, counted as `Slicing` does. A called slice with a
        voxel of the mask is abnormal, one that was called abnormal otherwise is so without a mask. `normal` None takes
        all slices that are not abnormal.
    held_out: numbers of slices that are neither learned from nor calibrated on.
    """

    volume: Volume
    mask: Volume | None = None
    normal: Sequence[int] | None = None
    abnormal: Sequence[int] = ()
    held_out: Sequence[int] = ()

    def lesions(self, slicing: Slicing) -> np.ndarray:
        """bool (n_slices,): which slices show a voxel of the mask; VolumeError if it is on another grid."""
        if self.mask is None:
            return np.zeros(len(slicing), dtype=bool)
        require_mask(self.volume, self.mask)
        return (slicing.slices(self.mask.array) > 0).any(axis=(1, 2))

    def known(self, slicing: Slicing) -> tuple[np.ndarray, np.ndarray]:
        """(normal, abnormal), bool (n_slices,) each; held-out slices included, the others are unknown.

        Raises TrainingError if a called slice is outside of the volume.
        """
        abnormal = self.lesions(slicing) | self._called(self.abnormal, slicing)
        every = np.ones(len(slicing), dtype=bool)
        normal = every if self.normal is None else self._called(self.normal, slicing)
        return normal & ~abnormal, abnormal

    def _called(self, numbers: Sequence[int], slicing: Slicing) -> np.ndarray:
        outside = [number for number in numbers if not 0 <= number < len(slicing)]
        if outside:
            raise TrainingError(
                f'"{self.volume.name}" has no {slicing.plane} slice {outside[0]}: give numbers from 0 to '
                f"{len(slicing) - 1}."
            )
        chosen = np.zeros(len(slicing), dtype=bool)
        chosen[list(numbers)] = True
        return chosen


@dataclass(frozen=True)
class TrainingSlices:
    """Shots, where they come from, and the normal slices that were kept out of them.

    spare: per volume, as it was framed, the numbers of its normal slices that are no shots; where nothing could be
    spared (`held_out` is False), of those that are. spare_images: some of them, float32 (n, S, S).
    record: per volume its name and the numbers of its normal and abnormal shots.
    """

    shots: Shots
    spare: list[tuple[FramedVolume, list[int]]]
    spare_images: np.ndarray
    held_out: bool
    record: list[dict]


def select_shots(
    normal: Sequence[Volume | Pair],
    abnormal: Sequence[Pair],
    n: int | None,
    plane: str,
    intensity: str,
    size: int,
    seed: int,
    progress: Progress,
    cases: Sequence[Case] = (),
) -> TrainingSlices:
    """Choose `n` normal and up to `n` abnormal slices (None: all), spread evenly over volumes and along each stack.

    A normal volume may come with a mask: then its slices without lesion are used. An abnormal volume must: its slices
    with lesion are abnormal shots, those without lesion are normal ones. `cases` say themselves which of their slices
    are what. Abnormal slices with a mask are chosen before those without. Slices with hardly any body are never used.

    Raises TrainingError if a mask is empty where it may not be or nothing is left to learn from, and VolumeError if a
    mask is on another grid than its volume.
    """
    known = [*(Case(*_pair(one)) for one in normal), *(Case(*_pair(one)) for one in abnormal), *cases]
    if not known:
        raise TrainingError("There is nothing to learn from: give at least one normal volume.")
    framed, healthy, diseased, called = [], [], [], []
    for place, case in enumerate(known):
        progress("read", place, len(known), {"volume": case.volume.name})
        one = FramedVolume(case.volume, plane, intensity, size)
        lesion, (is_normal, is_abnormal) = case.lesions(one.slicing), case.known(one.slicing)
        if len(normal) <= place < len(normal) + len(abnormal) and not lesion.any():
            raise TrainingError(
                f'The mask of "{case.volume.name}" marks no voxel: paint the lesion, or give the volume as a normal '
                "one."
            )
        framed.append(one)
        free = [k for k in one.analysed if k not in set(case.held_out)]
        learned = place >= len(normal)  # of a volume given as normal, slices with lesion are not learned from
        healthy.append([(place, k) for k in free if is_normal[k]])
        diseased.append([(place, k) for k in free if lesion[k] and learned])
        called.append([(place, k) for k in free if is_abnormal[k] and not lesion[k] and learned])
    progress("read", len(known), len(known), {})

    rng = np.random.default_rng(seed)
    normal_shots, spare = _spread(healthy, n, rng)
    outlined, _ = _spread(diseased, n, rng)
    unmasked, _ = _spread(called, None if n is None else n - len(outlined), rng)
    abnormal_shots = [*outlined, *unmasked]
    if not any(len(one.analysed) for one in framed):
        raise TrainingError("The volumes show no body, only background: check the files and the intensity preset.")
    if not normal_shots:
        raise TrainingError("No slice without lesion is left to learn from: give a normal volume, or check the masks.")
    held_out = bool(spare)
    by_volume = _by_volume(spare or normal_shots)
    images_of, _ = _spread(by_volume, SPARE_IMAGES, rng)

    def images(chosen: list[tuple[int, int]]) -> np.ndarray:
        stacks = [framed[case].images([k for c, k in chosen if c == case]) for case in sorted({c for c, _ in chosen})]
        return np.concatenate(stacks) if stacks else np.empty((0, size, size), np.float32)

    shots = Shots(
        normal=images(normal_shots),
        abnormal=np.concatenate([images(outlined), images(unmasked)]),
        masks=(
            *(framed[case].masks(known[case].mask.array > 0, [k])[0] for case, k in outlined),
            *(None for _ in unmasked),
        ),
    )
    record = [
        {
            "volume": one.volume.name,
            "normal": [int(k) for c, k in normal_shots if c == case],
            "abnormal": [int(k) for c, k in abnormal_shots if c == case],
        }
        for case, one in enumerate(known)
    ]
    kept = [(framed[chosen[0][0]], [int(k) for _, k in chosen]) for chosen in by_volume]
    return TrainingSlices(shots, kept, images(images_of), held_out, record)


def _pair(case: Volume | Pair) -> Pair:
    return case if isinstance(case, tuple) else (case, None)


def _by_volume(chosen: list[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    return [[pair for pair in chosen if pair[0] == case] for case in sorted({case for case, _ in chosen})]


def _spread(
    stacks: list[list[tuple[int, int]]], n: int | None, rng: np.random.Generator
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(chosen, left): `n` of the slices of several stacks, shared out evenly and evenly spaced with a random phase."""
    total = sum(map(len, stacks))
    if n is None or n >= total:
        return [pair for stack in stacks for pair in stack], []
    quota = np.zeros(len(stacks), dtype=int)
    order = rng.permutation(len(stacks))
    while quota.sum() < n:  # one slice a stack in turn, so that small stacks leave their share to the others
        for case in order:
            if quota.sum() < n and quota[case] < len(stacks[case]):
                quota[case] += 1
    chosen, left = [], []
    for stack, count in zip(stacks, quota, strict=True):
        positions = set(((np.arange(count) + rng.random()) * len(stack) / count).astype(int)) if count else set()
        chosen += [pair for place, pair in enumerate(stack) if place in positions]
        left += [pair for place, pair in enumerate(stack) if place not in positions]
    return chosen, left
