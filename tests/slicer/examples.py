"""A map in the scene without a server: a volume with two warm spots."""

from __future__ import annotations

from typing import Any

import numpy as np
from served import SHAPE, add_volume, grid

SPOTS = (((22, 18, 13), 4.0, 0.9), ((9, 10, 5), 3.0, 0.75))  # (i, j, k), width in voxels, height
LIMITS = {"0.5": 0.87, "1": 0.7, "2": 0.61, "8": 0.42}  # as the server sends them
VERDICT = (
    "Unusual: higher than 24 of 24 normal scans (p = .04). 2 regions above the limit of 1 false alarm per scan; the "
    "largest 20.1 ml, right, slices 9-17. Research software: not for diagnosis."
)


def warm(shape: Any = SHAPE) -> np.ndarray:
    """Return a map with two warm spots, float32 [k, j, i] in [0, 1]."""
    i, j, k = np.indices(shape)
    values = [
        height * np.exp(-((i - c[0]) ** 2 + (j - c[1]) ** 2 + (k - c[2]) ** 2) / (2 * width**2))
        for c, width, height in SPOTS
    ]
    return np.ascontiguousarray(np.maximum.reduce(values).T.astype(np.float32))


def example(
    affine: np.ndarray | None = None,
    plane: str = "axial",
    array: np.ndarray | None = None,
    volume: Any = None,
    detector: str = "example",
    skipped: tuple[int, ...] = (),
    **answered: Any,
) -> Any:
    """Return a Result as an analysis creates it, with its plot; `answered` replaces parts of the server's answer."""
    from MedCLIPADLib.detection import Answer
    from MedCLIPADLib.grid import Slicing
    from MedCLIPADLib.plots import store_scores
    from MedCLIPADLib.results import Result
    from MedCLIPADLib.volumes import new_image

    affine = grid() if affine is None else affine
    array = warm() if array is None else array
    if volume is None:
        volume = add_volume("case", (array * 300 + 50).astype(np.int16), affine)
    slicing = Slicing(array.shape[::-1], affine, plane)
    slices = slicing.first(array)
    scores = [None if n in skipped else float(layer.max()) for n, layer in enumerate(slices)]
    about = {
        "method": "mediclip",
        "detector": detector,
        "plane": slicing.plane,
        "threshold": 0.5,
        "volume_score": 0.9,
        "slice_scores": scores,
        "p_value": 0.04,
        "normal_scans": 24,
        "verdict": VERDICT,
        "warnings": [],
        "promise": "This rests on 24 normal scans: at most 1 false alarm in 25 can be promised.",
        "slice_limit": 0.62,
        "region_limits": LIMITS,
        "false_regions_per_scan": 1.0,
        "region_limit": 0.7,
        "regions": [],
        "scale_top": 0.88,
        "complete": True,
        **answered,
    }
    answer = Answer("case-1", "0" * 64, "http://127.0.0.1:9", about, new_image(array), float(array.max()), False)
    result = Result.create(volume, answer, affine)
    store_scores(result)
    return result


def legend_labels(result: Any) -> dict[float, str]:
    """Return what the legend says beside which map value: a name is drawn in the middle of its colour."""
    display = result.node.GetScalarVolumeDisplayNode()
    colour, low, high = display.GetColorNode(), display.GetWindowLevelMin(), display.GetWindowLevelMax()
    count = colour.GetNumberOfColors()
    named = {n: colour.GetColorName(n) for n in range(count) if colour.GetColorName(n).strip()}
    return {round(low + (high - low) * (n + 0.5) / count, 3): name for n, name in named.items()}
