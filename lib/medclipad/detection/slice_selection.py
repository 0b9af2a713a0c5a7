"""Which slices of which volumes a detector learns from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from medclipad.detection.cases import Case
from medclipad.detection.config import FitConfig
from medclipad.detection.slice_frames import FramedVolume
from medclipad.errors import TrainingError
from medclipad.methods.base import Shots
from medclipad.volume.progress import Progress

SPARE_IMAGES = 64

Chosen = tuple[int, int]
"""Index of a case, and the number of one of its slices."""


@dataclass(frozen=True)
class TrainingSlices:
    """Shots, where they come from, and the normal slices that were kept out of them.

    Attributes
    ----------
    shots
        What is learned from.
    spare_images
        Some of the normal slices that are not shots, float32 (n, S, S); of the shots, if none are left.
    spare_heights
        Their relative heights in the body, (n,); None for pictures.
    held_out
        Whether they were kept out of the shots.
    normal
        The volumes with normal slices.
    outlined
        The volumes with outlined slices among the shots.
    record
        For each volume its name and the numbers of its normal and abnormal shots.
    """

    shots: Shots
    spare_images: np.ndarray
    spare_heights: np.ndarray | None
    held_out: bool
    normal: list[NormalSlices]
    outlined: list[OutlinedSlices]
    record: list[dict[str, Any]]


@dataclass(frozen=True)
class NormalSlices:
    """Normal slices of a volume.

    Attributes
    ----------
    number
        Number of the volume, as in `Shots.volumes`.
    framed
        The volume as it was framed.
    slices
        Numbers of its normal slices.
    spare
        Those of them that are not shots.
    whole
        Whether all analysed slices are normal, and none is held out.
    """

    number: int
    framed: FramedVolume
    slices: list[int]
    spare: list[int]
    whole: bool

    @property
    def shown(self) -> FramedVolume:
        """The volume as it was given, with these slices alone; all of it, where all are normal."""
        return self.framed.given if len(self.slices) == len(self.framed.analysed) else self.framed.only(self.slices)


@dataclass(frozen=True)
class OutlinedSlices:
    """Slices of a volume in which lesions are outlined, and its normal ones.

    Attributes
    ----------
    number
        Number of the volume, as in `Shots.volumes`.
    framed
        The volume as it was framed.
    mask
        bool (I, J, K), the lesions.
    slices
        Numbers of its slices with lesion that are shots.
    normal
        Numbers of its normal slices.
    """

    number: int
    framed: FramedVolume
    mask: np.ndarray
    slices: list[int]
    normal: list[int]


@dataclass(frozen=True)
class _Candidates:
    """Slices that can be learned from, by case: normal, abnormal with a mask, abnormal without."""

    healthy: list[list[Chosen]]
    outlined: list[list[Chosen]]
    marked: list[list[Chosen]]


def select_shots(
    normal: Sequence[Case],
    abnormal: Sequence[Case],
    cases: Sequence[Case],
    framed: Sequence[FramedVolume],
    config: FitConfig,
    progress: Progress,
    plane: str | None = None,
) -> TrainingSlices:
    """Choose the slices to learn from, spread evenly over the volumes and along each stack.

    Slices with hardly any body are never used; abnormal slices with a mask are chosen before those without.

    Parameters
    ----------
    normal
        Of a normal volume with a mask, the slices without lesion are used.
    abnormal
        Each has a mask: its slices with lesion are abnormal shots, the others normal ones.
    cases
        Say themselves which of their slices are normal and abnormal.
    framed
        The volumes of all these, in this order, along the plane whose slices are scored.
    config
        Its `shots` of each kind are chosen; `image_size` and `intensity` are resolved.
    progress
        Called as progress("read", done, cases, {"volume": name}).
    plane
        Plane of the slices; by default the one whose slices are scored. Slices that a reader marked count in that one
        alone: in others a volume is normal or outlined as a whole.

    Raises
    ------
    TrainingError
        If a mask of an abnormal case is empty, or nothing is left to learn from.
    VolumeError
        If a mask is on another grid than its volume.
    """
    known = [*normal, *abnormal, *cases]
    if not known:
        raise TrainingError("There is nothing to learn from: give at least one normal volume.")
    plane, size = plane or config.plane, config.image_size or 0
    framed = [one if plane == config.plane else one.along(plane) for one in framed]
    marked_here = known if plane == config.plane else [case.without_marks() for case in known]
    found = _candidates(marked_here, framed, len(normal), len(abnormal), progress)
    count = None if config.shots == "all" else config.shots
    rng = np.random.default_rng(config.seed)
    normal_shots, spare = _spread(found.healthy, count, rng)
    outlined, _ = _spread(found.outlined, count, rng)
    marked, _ = _spread(found.marked, None if count is None else count - len(outlined), rng)
    if not any(len(frames.analysed) for frames in framed):
        raise TrainingError("The volumes show no body, only background: check the files and the intensity preset.")
    if not normal_shots:
        raise TrainingError("No slice without lesion is left to learn from: give a normal volume, or check the masks.")
    by_volume = _by_volume(spare or normal_shots)
    spare_images, _ = _spread(by_volume, SPARE_IMAGES, rng)

    def images(chosen: list[Chosen]) -> np.ndarray:
        stacks = [framed[case].images([k for c, k in chosen if c == case]) for case in sorted({c for c, _ in chosen})]
        return np.concatenate(stacks) if stacks else np.empty((0, size, size), np.float32)

    def heights(chosen: list[Chosen]) -> np.ndarray | None:
        stacks = [framed[case].heights[k] for case, k in sorted(chosen, key=lambda shot: shot[0])]
        return np.array(stacks) if any(len(frames.slicing) > 1 for frames in framed) else None

    shots = Shots(
        normal=images(normal_shots),
        heights=heights(normal_shots),
        volumes=np.array([case for case, _ in sorted(normal_shots, key=lambda shot: shot[0])], dtype=int),
        abnormal=np.concatenate([images(outlined), images(marked)]),
        masks=(*(_mask(known[case], framed[case], k) for case, k in outlined), *(None for _ in marked)),
    )
    record = [
        {
            "volume": case.volume.name,
            "normal": [int(k) for c, k in normal_shots if c == index],
            "abnormal": [int(k) for c, k in (*outlined, *marked) if c == index],
        }
        for index, case in enumerate(known)
    ]
    chosen_shots = set(normal_shots)
    slices = [
        NormalSlices(
            number=index,
            framed=framed[index],
            slices=[k for _, k in healthy],
            spare=[k for c, k in healthy if (c, k) not in chosen_shots],
            whole=len(healthy) == len(framed[index].analysed),
        )
        for index, healthy in enumerate(found.healthy)
        if healthy
    ]
    drawn = []
    for index, case in enumerate(known):
        if numbers := [k for c, k in outlined if c == index]:
            assert case.mask is not None, "an outlined slice has a mask"
            normal_ones = [k for _, k in found.healthy[index]]
            drawn.append(OutlinedSlices(index, framed[index], case.mask.array > 0, numbers, normal_ones))
    return TrainingSlices(
        shots=shots,
        spare_images=images(spare_images),
        spare_heights=heights(spare_images),
        held_out=bool(spare),
        normal=slices,
        outlined=drawn,
        record=record,
    )


def _candidates(
    known: Sequence[Case], framed: Sequence[FramedVolume], n_normal: int, n_abnormal: int, progress: Progress
) -> _Candidates:
    """Return the slices that can be learned from; the cases are `n_normal` normal ones, then `n_abnormal` abnormal."""
    found = _Candidates([], [], [])
    for index, (case, frames) in enumerate(zip(known, framed, strict=True)):
        progress("read", index, len(known), {"volume": case.volume.name})
        lesion, (is_normal, is_abnormal) = case.lesions(frames.slicing), case.known(frames.slicing)
        if n_normal <= index < n_normal + n_abnormal and not lesion.any():
            raise TrainingError(
                f'The mask of "{case.volume.name}" marks no voxel: paint the lesion, or give the volume as a normal '
                "one."
            )
        free = [int(k) for k in frames.analysed if k not in set(case.held_out)]
        learned = index >= n_normal  # of a volume given as normal, slices with lesion are not learned from
        found.healthy.append([(index, k) for k in free if is_normal[k]])
        found.outlined.append([(index, k) for k in free if lesion[k] and learned])
        found.marked.append([(index, k) for k in free if is_abnormal[k] and not lesion[k] and learned])
    progress("read", len(known), len(known), {})
    return found


def _mask(case: Case, frames: FramedVolume, number: int) -> np.ndarray:
    assert case.mask is not None, "an outlined slice has a mask"
    return frames.masks(case.mask.array > 0, [number])[0]


def _by_volume(chosen: list[Chosen]) -> list[list[Chosen]]:
    return [[pair for pair in chosen if pair[0] == case] for case in sorted({case for case, _ in chosen})]


def _spread(stacks: list[list[Chosen]], n: int | None, rng: np.random.Generator) -> tuple[list[Chosen], list[Chosen]]:
    """Return `n` slices of several stacks, shared out evenly and evenly spaced with a random phase, and the rest."""
    total = sum(map(len, stacks))
    if n is None or n >= total:
        return [pair for stack in stacks for pair in stack], []
    quota = np.zeros(len(stacks), dtype=int)
    order = rng.permutation(len(stacks))
    while quota.sum() < n:  # a slice of each stack in turn: small stacks leave their share to the others
        for case in order:
            if quota.sum() < n and quota[case] < len(stacks[case]):
                quota[case] += 1
    chosen, left = [], []
    for stack, count in zip(stacks, quota, strict=True):
        positions = set(((np.arange(count) + rng.random()) * len(stack) / count).astype(int)) if count else set()
        chosen += [pair for index, pair in enumerate(stack) if index in positions]
        left += [pair for index, pair in enumerate(stack) if index not in positions]
    return chosen, left
