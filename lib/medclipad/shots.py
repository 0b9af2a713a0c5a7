"""Which slices of which volumes a detector learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from medclipad.errors import TrainingError
from medclipad.framing import FramedVolume
from medclipad.methods.base import Progress, Shots
from medclipad.volume import Volume, require_same_grid

SPARE_IMAGES = 64
Case = Volume | tuple[Volume, Volume | None]


@dataclass(frozen=True)
class TrainingSlices:
    """Shots, where they come from, and the normal slices that were kept out of them.

    spare: per volume, the numbers of its normal slices that are no shots; where nothing could be spared (`held_out` is
    False), of those that are. spare_images: some of them, float32 (n, S, S).
    record: per volume its name and the numbers of its normal and abnormal shots.
    """

    shots: Shots
    spare: list[tuple[Volume, list[int]]]
    spare_images: np.ndarray
    held_out: bool
    record: list[dict]


def select_shots(
    normal: Sequence[Case],
    abnormal: Sequence[Case],
    n: int | None,
    plane: str,
    intensity: str,
    size: int,
    seed: int,
    progress: Progress,
) -> TrainingSlices:
    """Choose `n` normal and up to `n` abnormal slices (None: all), spread evenly over volumes and along each stack.

    A normal volume may come with a mask: then its slices without lesion are used. An abnormal volume must: its slices
    with lesion are abnormal shots, those without lesion are normal ones. Slices with hardly any body are never used.

    Raises TrainingError if a mask is empty where it may not be or nothing is left to learn from, and VolumeError if a
    mask is on another grid than its volume.
    """
    cases = [(*_pair(case), False) for case in normal] + [(*_pair(case), True) for case in abnormal]
    if not cases:
        raise TrainingError("There is nothing to learn from: give at least one normal volume.")
    framed, healthy, diseased = [], [], []
    for done, (volume, mask, must_show_lesion) in enumerate(cases):
        progress("read", done, len(cases), {"volume": volume.name})
        one = FramedVolume(volume, plane, intensity, size)
        lesion = _lesion_slices(one, mask)
        if must_show_lesion and not lesion.any():
            raise TrainingError(
                f'The mask of "{volume.name}" marks no voxel: paint the lesion, or give the volume as a normal one.'
            )
        framed.append(one)
        healthy.append([(len(framed) - 1, k) for k in one.analysed if not lesion[k]])
        diseased.append([(len(framed) - 1, k) for k in one.analysed if lesion[k] and must_show_lesion])
    progress("read", len(cases), len(cases), {})

    rng = np.random.default_rng(seed)
    normal_shots, spare = _spread(healthy, n, rng)
    abnormal_shots, _ = _spread(diseased, n, rng)
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
        abnormal=images(abnormal_shots),
        masks=tuple(framed[case].masks(cases[case][1].array > 0, [k])[0] for case, k in abnormal_shots),
    )
    record = [
        {
            "volume": volume.name,
            "normal": [int(k) for c, k in normal_shots if c == case],
            "abnormal": [int(k) for c, k in abnormal_shots if c == case],
        }
        for case, (volume, _, _) in enumerate(cases)
    ]
    kept = [(cases[chosen[0][0]][0], [int(k) for _, k in chosen]) for chosen in by_volume]
    return TrainingSlices(shots, kept, images(images_of), held_out, record)


def _pair(case: Case) -> tuple[Volume, Volume | None]:
    return case if isinstance(case, tuple) else (case, None)


def _lesion_slices(framed: FramedVolume, mask: Volume | None) -> np.ndarray:
    """bool (n_slices,): which slices show a voxel of the mask."""
    if mask is None:
        return np.zeros(len(framed.slicing), dtype=bool)
    require_same_grid(framed.volume, mask)
    return (framed.slicing.slices(mask.array) > 0).any(axis=(1, 2))


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
