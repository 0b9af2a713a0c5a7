"""Published figures of MVFA on BMAD."""

from __future__ import annotations

from medclipad.methods.common.benchmark import UNKNOWN_FIGURES, PublishedFigures

_SOURCE = "README of MediaBrain-SJTU/MVFA-AD at a30bf7b"
# (image AUROC, pixel AUROC) in %: of the paper, and of the published code and weights.
_FIGURES: dict[int, dict[str, tuple[tuple[float, float | None], tuple[float, float | None]]]] = {
    4: {
        "Brain": ((92.44, 97.30), (92.31, 97.30)),
        "Liver": ((81.18, 99.73), (81.18, 99.69)),
        "Retina_RESC": ((96.18, 98.97), (96.18, 98.97)),
        "Retina_OCT2017": ((99.38, None), (99.38, None)),
        "Chest": ((81.95, None), (81.95, None)),
        "Histopathology": ((82.71, None), (82.71, None)),
    },
    0: {
        "Brain": ((78.63, 90.27), (79.80, 89.68)),
        "Liver": ((76.24, 97.85), (81.18, 97.93)),
        "Retina_RESC": ((83.31, 92.05), (88.99, 90.44)),
        "Retina_OCT2017": ((95.40, None), (95.40, None)),
        "Chest": ((71.11, None), (71.11, None)),
        "Histopathology": ((77.90, None), (76.90, None)),
    },
}
"""By shots, 0 for zero-shot."""


def published(class_name: str, shots: int) -> PublishedFigures:
    """Return the figures that the reference project's README gives; `shots` is 0 for zero-shot."""
    known = _FIGURES.get(shots, {}).get(class_name)
    if known is None:
        return UNKNOWN_FIGURES
    paper, code = ((image / 100, None if pixel is None else pixel / 100) for image, pixel in known)
    return PublishedFigures(_SOURCE, paper, code)
