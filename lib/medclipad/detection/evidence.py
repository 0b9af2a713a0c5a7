"""How a method's map and the brightness add up to one map of evidence, without shots and with a few outlined slices.

Without outlined lesions nothing is known of their brightness: evidence is the distance of the method's map from what is
usual, and brightness that is unusual for its place adds to it in either direction. Outlined slices show whether lesions
are bright or dark and how far that can be trusted: then a logistic regression over voxels weighs these, together with
the brightness itself at nearly the voxel's own resolution.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from medclipad.detection.atlas import (
    BRIGHTNESS_WEIGHT,
    NormalAtlas,
    Places,
    RelativeBrightness,
    Sums,
    Usual,
    squash,
)
from medclipad.detection.slice_frames import SLAB, FramedVolume
from medclipad.volume.shelf import Shelf, ShelvedArray

FINE = 1.0  # standard deviation in mm of the Gaussian on brightness that is evidence itself
NAMES = ("map", "unusual brightness", "brightness", "squared brightness")
_WITHOUT_SHOTS = (1.0, BRIGHTNESS_WEIGHT, 0.0, 0.0)


@dataclass(frozen=True)
class Evidence:
    """What a method's map is compared with, and what counts how much.

    Attributes
    ----------
    atlas
        What normal scans show.
    smoothing
        Standard deviation in mm of the Gaussian on map and unusual brightness.
    weights
        Of map, unusual brightness, brightness and its square.
    constant
        Added to their weighted sum.
    """

    atlas: NormalAtlas
    smoothing: float
    weights: tuple[float, ...] = _WITHOUT_SHOTS
    constant: float = 0.0

    def __call__(self, raw: np.ndarray, framed: FramedVolume, seen: np.ndarray, local: bool = True) -> None:
        """Turn a method's map float32 (I, J, K) into evidence in (0, 1), in place; 0 where nothing was seen.

        Parameters
        ----------
        raw
            The method's map in [0, 1], smoothed.
        framed
            The volume.
        seen
            bool (I, J, K), where there is a map.
        local
            Whether a place is compared with the same place of normal scans: not where the volume is unlike them.
        """
        if not seen.any():
            return
        places, brightness = Places(framed), RelativeBrightness(framed)
        slabs = _slabs(raw)
        for rows in slabs:
            self.atlas.unusual(raw[rows], places, local, rows)
        self.atlas.relative_to_itself(raw, seen)
        for rows in slabs:
            total = np.float32(self.weights[0]) * raw[rows] + np.float32(self.constant)
            others = self._brightness(places, brightness, local, self.weights, rows)
            for weight, part in zip(self.weights[1:], others, strict=True):
                total += np.float32(weight) * part
            squash(total)
            total[~seen[rows]] = 0
            raw[rows] = total

    def parts(self, raw: np.ndarray, framed: FramedVolume, seen: np.ndarray) -> list[np.ndarray]:
        """Return all that is added up, float32 (I, J, K) each, in the order of `NAMES`; see `__call__`."""
        places, own = Places(framed), raw.copy()
        self.atlas.unusual(own, places)
        self.atlas.relative_to_itself(own, seen)
        return [own, *self._brightness(places, RelativeBrightness(framed), True, (1.0,) * len(NAMES), slice(None))]

    def _brightness(
        self, places: Places, brightness: RelativeBrightness, local: bool, weights: Sequence[float], rows: slice
    ) -> list[np.ndarray]:
        """Return what brightness says in some rows, three arrays (i, J, K), or zeros where the weight is 0."""
        around = fine = np.zeros((1, 1, 1), dtype=np.float32)
        if weights[1] and local:
            around = self.atlas.unusual_brightness(brightness.smoothed(self.smoothing, rows), places, rows)
        if weights[2] or weights[3]:
            fine = brightness.smoothed(FINE, rows)
        return [around, fine, fine**2]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return all that it consists of, by name, to be saved with the weights of a detector."""
        atlas, numbers = self.atlas, {}
        for name in ("map", "brightness"):
            usual: Usual = getattr(atlas, name)
            numbers |= {f"{name}.mean": usual.mean, f"{name}.spread": usual.spread}
            numbers[f"{name}.overall"] = np.array([usual.overall_mean, usual.overall_spread])
        numbers |= {"level": np.array(atlas.level), "spread": np.array(atlas.spread)}
        numbers["weights"] = np.array([*self.weights, self.constant])
        return {f"evidence.{name}": torch.from_numpy(value) for name, value in numbers.items()}

    @classmethod
    def from_tensors(cls, tensors: dict[str, torch.Tensor], smoothing: float) -> Evidence | None:
        """Return what `tensors` came from, taking it out of the tensors of a detector; None if nothing is there.

        Raises
        ------
        KeyError
            If a part is missing.
        """
        names = [name for name in tensors if name.startswith("evidence.")]
        found = {name.removeprefix("evidence."): tensors.pop(name).numpy() for name in names}
        if not found:
            return None
        usual = {
            name: Usual(found[f"{name}.mean"], found[f"{name}.spread"], *map(float, found[f"{name}.overall"]))
            for name in ("map", "brightness")
        }
        (level, highest), (spread, widest) = (map(float, found[name]) for name in ("level", "spread"))
        *weights, constant = map(float, found["weights"])
        atlas = NormalAtlas(**usual, level=(level, highest), spread=(spread, widest))
        return cls(atlas, smoothing, tuple(weights), constant)


@dataclass(frozen=True)
class NormalPart:
    """Sums over the normal voxels of a scan, of its map and of its brightness, and what its map says of itself."""

    map: Sums
    brightness: Sums

    @classmethod
    def of(cls, raw: np.ndarray, framed: FramedVolume, normal: np.ndarray, smoothing: float) -> NormalPart:
        """Return the sums over a scan's normal voxels, bool (I, J, K), for its map float32 (I, J, K)."""
        places = Places(framed)
        return cls(places.sums(raw, normal), places.sums(RelativeBrightness(framed).smoothed(smoothing), normal))


class NormalParts:
    """The parts of many scans, on the disk, because each takes most of a megabyte."""

    def __init__(self) -> None:
        self._shelf, self._parts = Shelf(), list[ShelvedArray]()

    def append(self, part: NormalPart) -> None:
        """Keep the part of one more scan; raise VolumeError if the disk is full."""
        arrays = [array for sums in (part.map, part.brightness) for array in (sums.weight, sums.value, sums.square)]
        self._parts.append(self._shelf.put(np.stack(arrays)))

    def __iter__(self) -> Iterator[NormalPart]:
        for part in self._parts:
            arrays = part.open()
            yield NormalPart(Sums(*arrays[:3]), Sums(*arrays[3:]))


def learn_atlas(parts: Iterable[NormalPart], without: int | None = None) -> NormalAtlas:
    """Return what normal scans show at each place, all or without one of them; their levels are not known yet."""
    chosen = (part for index, part in enumerate(parts) if index != without)
    first = next(chosen)
    of_map, of_brightness = first.map, first.brightness
    for part in chosen:
        of_map, of_brightness = of_map + part.map, of_brightness + part.brightness
    return NormalAtlas(Usual.of(of_map), Usual.of(of_brightness))


def _slabs(values: np.ndarray) -> list[slice]:
    """Return rows of an array (I, J, K) that are worked on together, so that it is never copied as a whole."""
    step = max(1, SLAB // values[0].size)
    return [slice(start, min(start + step, len(values))) for start in range(0, len(values), step)]
