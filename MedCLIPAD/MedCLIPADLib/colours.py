"""The colour table of the maps.

It is perceptually uniform, from violet through red to pale yellow.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from MedCLIPADLib.nodes import singleton

TAG = "MedCLIPADAnomaly"
COUNT = 256
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


def colour_node() -> Any:
    """Return the colour node of all maps.

    It is created if the scene has none, and filled if it was loaded without colours.
    """
    node = singleton("vtkMRMLColorTableNode", TAG, "MedCLIPAD anomaly")
    table = colours()
    if not _has_colours(node, table):
        node.SetTypeToUser()
        node.SetNumberOfColors(COUNT)
        node.SetAttribute("Category", "MedCLIPAD")
        for number, (red, green, blue) in enumerate(table):
            node.SetColor(number, f"{number / (COUNT - 1):.3f}", float(red), float(green), float(blue), 1.0)
    return node


def _has_colours(node: Any, table: np.ndarray) -> bool:
    """Return whether a node has the colours.

    A scene saved without its colour file is loaded with black ones.
    """
    last = [0.0] * 4
    return (
        node.GetNumberOfColors() == COUNT
        and node.GetColor(COUNT - 1, last)
        and np.allclose(last[:3], table[-1], atol=0.01)
    )


def _srgb(lab: np.ndarray) -> np.ndarray:
    """Return CIELAB colours as sRGB."""
    y = (lab[:, 0] + 16) / 116
    f = np.stack([y + lab[:, 1] / 500, y, y - lab[:, 2] / 200], axis=1)
    xyz = _WHITE * np.where(f > 6 / 29, f**3, (f - 16 / 116) * 3 * (6 / 29) ** 2)
    linear = np.clip(xyz @ _RGB.T, 0, 1)
    return np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
