"""Intensity presets: which values of a volume become black and white."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from medclipad.errors import VolumeError
from medclipad.volume.blocks import finite_range, finite_sample
from medclipad.volume.volume import Volume

CT_WINDOWS = {"brain": (40.0, 80.0), "lung": (-600.0, 1500.0), "abdomen": (50.0, 400.0), "bone": (400.0, 1800.0)}
"""Level and width in Hounsfield units."""

MR_PERCENTILES = (0.5, 99.5)

_PERCENTILE_SAMPLE = 1 << 22  # of more voxels a sample is taken: it gives these percentiles to 0.01 %

_CHOICES = "ct:brain, ct:lung, ct:abdomen, ct:bone, ct:<level>,<width>, mr, raw or auto"
_NUMBER = r"[-+]?\d+(?:\.\d*)?"


@dataclass(frozen=True)
class IntensityPreset:
    """How a volume's values become [0, 1]; `str(preset)` is the text that `parse_preset` takes.

    `kind` is "ct" (a window of `level` and `width` HU), "mr" (percentiles .5 to 99.5 of the foreground over the whole
    volume), "raw" (all finite values of the volume) or "auto" (to be resolved for a volume first: `resolve_preset`).
    """

    text: str
    kind: str
    level: float | None = None
    width: float | None = None

    def __str__(self) -> str:
        return self.text

    def window(self, volume: Volume, foreground: np.ndarray) -> tuple[float, float]:
        """(low, high) in the volume's units with low < high; `foreground` is bool (I, J, K)."""
        if self.kind == "ct":
            return self.level - self.width / 2, self.level + self.width / 2
        if self.kind == "auto":
            raise VolumeError("the intensity preset 'auto' has no window of its own; resolve it for a volume first.")
        low, high = finite_range(volume.array) or (0.0, 1.0)
        if self.kind == "mr":
            inside = finite_sample(volume.array, _PERCENTILE_SAMPLE, foreground)
            if inside.size:
                bottom, top = (float(p) for p in np.percentile(inside, MR_PERCENTILES))
                # A foreground of one value (a binary image) keeps the volume's minimum as its black.
                low, high = (bottom, top) if bottom < top else (low, top)
        return (low, high) if low < high else (low, low + max(1.0, abs(low)))


def parse_preset(text: str) -> IntensityPreset:
    """A preset from its text: `ct:brain|lung|abdomen|bone`, `ct:<level>,<width>`, `mr`, `raw` or `auto`."""
    clean = re.sub(r"\s+", "", str(text)).lower()
    if clean in ("mr", "raw", "auto"):
        return IntensityPreset(clean, clean)
    if clean.removeprefix("ct:") in CT_WINDOWS and clean.startswith("ct:"):
        return IntensityPreset(clean, "ct", *CT_WINDOWS[clean[3:]])
    numbers = re.fullmatch(rf"ct:({_NUMBER}),({_NUMBER})", clean)
    if numbers is None:
        raise VolumeError(f"{text!r} is not an intensity preset; choose {_CHOICES}.")
    level, width = (float(number) for number in numbers.groups())
    if width <= 0:
        raise VolumeError(f"{text!r}: the width of a CT window must be above 0.")
    return IntensityPreset(clean, "ct", level, width)


def resolve_preset(preset: str | IntensityPreset, volume: Volume) -> IntensityPreset:
    """The preset to use for a volume: `auto` becomes `mr`, all others stay.

    No window is right for every organ in CT, so `auto` raises VolumeError there and asks for one. What is CT is taken
    from the file's modality where it has one, else from values that only Hounsfield units have; a "CT" without air
    (values cut or rescaled before) is treated like any other picture.
    """
    preset = parse_preset(preset) if isinstance(preset, str) else preset
    if preset.kind != "auto":
        return preset
    if _in_hounsfield_units(volume):
        raise VolumeError(
            f"{volume.name or 'the volume'} holds CT numbers, for which 'auto' has no window; "
            "choose ct:brain, ct:lung, ct:abdomen, ct:bone or ct:<level>,<width>."
        )
    return parse_preset("mr")


def to_unit(array: np.ndarray, low: float, high: float) -> np.ndarray:
    """float32 in [0, 1], linear from `low` to `high` and clipped; NaN and -inf become 0, +inf becomes 1."""
    # int32 and float64 keep their precision until they are on [0, 1].
    values = np.array(array, dtype=np.result_type(array, np.float32))
    np.clip(values, low, high, out=values)
    values -= low
    values /= high - low
    np.nan_to_num(values, copy=False, nan=0.0)
    return values.astype(np.float32, copy=False)


def _in_hounsfield_units(volume: Volume) -> bool:
    if volume.modality not in (None, "CT"):
        return False
    ends = finite_range(volume.array)
    if ends is None:
        return False
    low, high = ends
    if volume.modality == "CT":
        return low < -200
    # No modality given: air at -1000 (some scanners pad below it) and something denser than water.
    return -4096 <= low <= -900 and 0 < high <= 70000
