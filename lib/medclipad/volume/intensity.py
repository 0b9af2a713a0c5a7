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
"""Percentiles of the foreground that become black and white."""

_PERCENTILE_SAMPLE = 1 << 22  # of more voxels than this a sample is taken: it gives the percentiles to 0.01 %

_MODALITIES = ("CT", "MR", "PT", "NM", "US")  # that a preset is for, or for none
_HOUNSFIELD_SAMPLE = 100_000
_PADDING = -1500  # what is below it is no Hounsfield unit

_CHOICES = "ct:brain, ct:lung, ct:abdomen, ct:bone, ct:<level>,<width>, mr, raw or auto"
_NUMBER = r"[-+]?\d+(?:\.\d*)?"


@dataclass(frozen=True)
class IntensityPreset:
    """Rule by which the values of a volume are mapped to [0, 1]; use `parse_preset` to make one.

    Attributes
    ----------
    text : str
        The text that `parse_preset` accepts; also `str(preset)`.
    kind : str
        "ct": a window in Hounsfield units. "mr": percentiles 0.5 to 99.5 of the foreground, over the whole volume.
        "raw": all finite values of the volume. "auto": to be resolved for a volume first, see `resolve_preset`.
    level : float or None
        Centre of a CT window in HU.
    width : float or None
        Width of a CT window in HU, above 0.
    """

    text: str
    kind: str
    level: float | None = None
    width: float | None = None

    def __str__(self) -> str:
        return self.text

    def window(self, volume: Volume, foreground: np.ndarray) -> tuple[float, float]:
        """Return the values that become black and white.

        Parameters
        ----------
        volume
            Volume to show.
        foreground
            Bool (I, J, K), as from `foreground_mask`; only "mr" uses it.

        Returns
        -------
        tuple of float
            (low, high) in the volume's units, low < high.

        Raises
        ------
        VolumeError
            If the preset is "auto".
        """
        if self.level is not None and self.width is not None:  # kind "ct"
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
    """Return the intensity preset with a given name.

    Parameters
    ----------
    text
        "ct:brain", "ct:lung", "ct:abdomen", "ct:bone", "ct:<level>,<width>" in HU, "mr", "raw" or "auto". Case and
        spaces do not matter.

    Raises
    ------
    VolumeError
        If the text is none of these, or the width is not above 0.

    Examples
    --------
    >>> preset = parse_preset("ct:40,80")
    >>> preset.level, preset.width
    (40.0, 80.0)
    """
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
    """Return the preset to use for a volume: "auto" becomes "mr", all others stay as they are.

    Parameters
    ----------
    preset
        Preset, or its text.
    volume
        Volume to show.

    Raises
    ------
    VolumeError
        If the preset is "auto" and the volume is CT: no window fits every organ, so one must be chosen. Also if the
        text is not a preset.

    Notes
    -----
    The file's modality decides what is CT; without one, values that only Hounsfield units have. A "CT" without air
    (cut or rescaled before) is treated like any other image.

    Examples
    --------
    >>> str(resolve_preset("auto", Volume(np.zeros((4, 4, 4)), np.eye(4), modality="MR")))
    'mr'
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
    """Return values mapped linearly from [low, high] to [0, 1] and clipped.

    Parameters
    ----------
    array
        Values of any real dtype and shape.
    low, high
        Values that become 0 and 1, low < high.

    Returns
    -------
    numpy.ndarray
        float32 of the same shape. NaN and -inf become 0, +inf becomes 1.

    Examples
    --------
    >>> to_unit(np.array([-100, 40, 500]), 0, 80).tolist()
    [0.0, 0.5, 1.0]
    """
    # int32 and float64 keep their precision until they are in [0, 1].
    values = np.array(array, dtype=np.result_type(array, np.float32))
    np.clip(values, low, high, out=values)
    values -= low
    values /= high - low
    np.nan_to_num(values, copy=False, nan=0.0)
    return values.astype(np.float32, copy=False)


def require_modality(preset: str | IntensityPreset, volume: Volume, remedy: str) -> None:
    """Raise VolumeError if a volume is of another modality than an intensity preset is for.

    Parameters
    ----------
    preset
        Preset, or its text. "mr" is for MR and "ct:..." for CT; "raw" and "auto" are for any.
    volume
        The volume. Its DICOM modality decides or, without one, its values.
    remedy
        What to do, the end of the sentence.

    Raises
    ------
    VolumeError
        With the evidence.

    Notes
    -----
    Values are taken for Hounsfield units if at least 1 % of them are air (-1100 to -850) and 1 % soft tissue (-200 to
    300), beside a padding value below -1500, such as -32768 or -2000, that CT images have outside of the scanned
    circle. Without any negative value they are taken for something else.
    """
    preset = parse_preset(preset) if isinstance(preset, str) else preset
    wanted = {"mr": "MR", "ct": "CT"}.get(preset.kind)
    if wanted is None:
        return
    evidence = ""
    if volume.modality in _MODALITIES:
        if volume.modality != wanted:
            evidence = f"it is {volume.modality} by its DICOM modality"
    elif wanted == "MR" and _has_hounsfield_values(volume.array):
        evidence = "it is CT by its values (in Hounsfield units, air at -1000)"
    elif wanted == "CT" and (ends := finite_range(volume.array)) is not None and 0 <= ends[0] < ends[1]:
        evidence = f"it is no CT by its values ({ends[0]:.4g} to {ends[1]:.4g}, without any below 0)"
    if evidence:
        name = volume.name or "the volume"
        raise VolumeError(f"{name}: {evidence}, but the intensity preset {preset} is for {wanted}; {remedy}.")


def _has_hounsfield_values(array: np.ndarray) -> bool:
    """Return whether values are Hounsfield units with air and soft tissue, beside a padding value."""
    values = finite_sample(array, _HOUNSFIELD_SAMPLE)
    padding = values < _PADDING
    if len(np.unique(values[padding])) > 1:
        return False
    values = values[~padding]
    if not len(values) or values.max() > 70000:  # metal reaches 30,000
        return False
    air, tissue = ((low <= values) & (values <= high) for low, high in ((-1100, -850), (-200, 300)))
    return bool(min(air.mean(), tissue.mean()) >= 0.01)


def _in_hounsfield_units(volume: Volume) -> bool:
    """Return whether the values are Hounsfield units that reach down to air."""
    if volume.modality not in (None, "CT"):
        return False
    ends = finite_range(volume.array)
    if ends is None:
        return False
    if volume.modality == "CT":
        return ends[0] < -200
    return _has_hounsfield_values(volume.array)
