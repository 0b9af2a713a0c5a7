"""The colour table of the maps, on one fixed range of values.

It is perceptually uniform, from violet through red to pale yellow. A colour means the same rarity in every volume,
detector and method; its names, which the legend shows, say which.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from slicer.i18n import tr as _

from MedCLIPADLib.nodes import singleton
from MedCLIPADLib.rarity import UNCALIBRATED, one_in

TAG = "MedCLIPADAnomaly"
LOW, HIGH = 0.4, 1.0  # values of the first and the last colour: 1 in 100, and the highest of all
STEP = 0.025  # between two colours: an eighth of a decade
COUNT = 25
WINDOW = (LOW - STEP / 2, HIGH + STEP / 2)  # range of the display: values of LOW and HIGH are in the middle of a colour
_NAMED = (0, 8, 16, 24)  # colours of the values 0.4, 0.6, 0.8 and 1
_APART = 4  # colours between two names, so that they do not overlap
_BLANK = " "  # name of all others: the legend leaves out colours without a name, and labels all others
# CIELAB lightness, chroma and hue (degrees) at a few points of the path; all inside sRGB.
_PATH = np.array([[30, 62, 310], [42, 66, 345], [54, 72, 20], [66, 66, 48], [79, 60, 72], [92, 46, 98]], dtype=float)
_WHITE = np.array([0.95047, 1.0, 1.08883])  # D65
_RGB = np.array(
    [[3.2404542, -1.5371385, -0.4985314], [-0.969266, 1.8760108, 0.041556], [0.0556434, -0.2040259, 1.0572252]]
)


def colours(count: int = COUNT) -> np.ndarray:
    """Return a (count, 3) array of sRGB colours in [0, 1], from dark to light.

    Their steps are equal in CIELAB.
    """
    lightness, chroma, hue = _PATH.T
    points = np.linspace(0, 1, 2048)
    knots = np.linspace(0, 1, len(_PATH))
    smooth = [np.interp(points, knots, values) for values in (lightness, chroma, np.unwrap(np.radians(hue)))]
    lab = np.stack([smooth[0], smooth[1] * np.cos(smooth[2]), smooth[1] * np.sin(smooth[2])], axis=1)
    length = np.concatenate([[0], np.linalg.norm(np.diff(lab, axis=0), axis=1).cumsum()])
    even = np.linspace(0, length[-1], count)
    return _srgb(np.stack([np.interp(even, length, channel) for channel in lab.T], axis=1))


def value_of(number: int) -> float:
    """Return the map value in the middle of a colour."""
    return round(LOW + STEP * number, 3)


def names(top: float) -> list[str]:
    """Return the names of all colours, which are the labels of the legend; most are blank.

    Parameters
    ----------
    top : float
        Top of the detector's scale; values above it occur in none of its normal scans. 1 if it is not calibrated.
    """
    found = [_BLANK] * COUNT
    if top >= UNCALIBRATED:
        for number in _NAMED:
            found[number] = f"{value_of(number):.1f}"
        return found
    known = [number for number in _NAMED if value_of(number) <= top]
    for number in known:
        found[number] = one_in(value_of(number))
    found[max(_first_above(top), known[-1] + _APART if known else 0)] = _("never seen")
    return found


def colour_node(top: float) -> Any:
    """Return the colour node of all maps with a scale that ends at `top`.

    The colours are the same for all; only the names differ. It is created if the scene has none, and filled if it was
    loaded without colours.
    """
    tag = f"{TAG}{COUNT if top >= UNCALIBRATED else _first_above(top)}"
    node = singleton("vtkMRMLColorTableNode", tag, "MedCLIPAD anomaly")
    table, labels = colours(), names(top)
    if not _is_filled(node, table, labels):
        node.SetTypeToUser()
        node.SetNumberOfColors(COUNT)
        node.SetAttribute("Category", "MedCLIPAD")
        for number, (red, green, blue) in enumerate(table):
            node.SetColor(number, labels[number], float(red), float(green), float(blue), 1.0)
    return node


def _first_above(top: float) -> int:
    """Return the first colour whose value is above the top of a scale."""
    return next(number for number in range(COUNT) if value_of(number) > top)


def _is_filled(node: Any, table: np.ndarray, labels: list[str]) -> bool:
    """Return whether a node has the colours and their names.

    A scene saved without its colour file is loaded with black ones, and one of another language with other names.
    """
    last = [0.0] * 4
    return (
        node.GetNumberOfColors() == COUNT
        and node.GetColor(COUNT - 1, last)
        and np.allclose(last[:3], table[-1], atol=0.01)
        and [node.GetColorName(number) for number in range(COUNT)] == labels
    )


def _srgb(lab: np.ndarray) -> np.ndarray:
    """Return CIELAB colours as sRGB."""
    y = (lab[:, 0] + 16) / 116
    f = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
    xyz = _WHITE * np.where(f > 6 / 29, f**3, (f - 16 / 116) * 3 * (6 / 29) ** 2)
    linear = np.clip(xyz @ _RGB.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
