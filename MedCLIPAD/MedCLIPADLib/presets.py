"""Intensity presets of detectors, and which of them a volume's modality calls for."""

from __future__ import annotations

AUTO, ANY = "auto", "any"


def family(preset: str) -> str:
    """ "ct:brain" and "ct:40,80" are of the family "ct"."""
    return preset.partition(":")[0]


def preset_of(modality: str) -> str:
    """The family that a DICOM modality calls for, or "" if none does."""
    return {"CT": "ct", "MR": "mr"}.get(modality.upper(), "")


def suits(preset: str, wanted: str) -> bool:
    """Whether a detector trained with `preset` may look at a volume that calls for `wanted`.

    A wanted family takes all its presets; raw, auto and an unknown preset suit, for they promise nothing.
    """
    if wanted == ANY or family(preset) in ("", "raw", "auto"):
        return True
    return preset == wanted or (":" not in wanted and family(preset) == wanted)
