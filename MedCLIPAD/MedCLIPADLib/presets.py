"""Intensity presets of detectors, and which of them suit a volume's modality."""

from __future__ import annotations

AUTO, ANY = "auto", "any"
_UNSPECIFIC = ("", "raw", "auto")  # presets that say nothing about the modality


def family(preset: str) -> str:
    """Return the family of a preset: "ct" for "ct:brain" and for "ct:40,80"."""
    return preset.partition(":")[0]


def preset_of(modality: str) -> str:
    """Return the preset family for a DICOM modality, or "" if there is none."""
    return {"CT": "ct", "MR": "mr"}.get(modality.upper(), "")


def preset_label(preset: str) -> str:
    """Return a preset as text, for example "MR" or "CT brain".

    It is "" if the preset says nothing about the modality.
    """
    if family(preset) in _UNSPECIFIC:
        return ""
    name, _, window = preset.partition(":")
    return f"{name.upper()} {window}".strip()


def suits(preset: str, required: str) -> bool:
    """Return whether a detector suits a volume.

    Parameters
    ----------
    preset : str
        Preset that the detector was trained with. "raw", "auto" and an unknown preset suit every volume.
    required : str
        Preset that the volume requires: "any", a family such as "ct" (all its presets suit), or one preset.
    """
    if required == ANY or family(preset) in _UNSPECIFIC:
        return True
    return preset == required or (":" not in required and family(preset) == required)
