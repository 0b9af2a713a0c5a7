"""Draw a case: slices with the anomaly map and the outlined ground truth, and the curve of slice scores.

Uses matplotlib's Figure without pyplot: no global state, safe in the threads of a server.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from skimage.measure import find_contours

from medclipad.evaluation.drawn_case import DrawnCase, choose_key_slices
from medclipad.volume import Volume, to_unit

if TYPE_CHECKING:
    from medclipad.detection.result import AnomalyResult

TRUTH_COLOUR = "#35e0ff"  # stands out from grey and from every colour of the map
# The dark end of a uniform colour map would be invisible on the dark image; the brighter part stays uniform.
HEAT = ListedColormap(colormaps["inferno"](np.linspace(0.3, 1.0, 256)), name="heat")
UNDATED: dict[str, dict[str, Any]] = {"png": {}, "svg": {"Date": None}}  # the same picture is the same bytes
OPACITY = (0.35, 0.75)  # of the map at the threshold, and at its maximum
TILE_INCHES = 1.55  # width of a slice
LABEL_INCHES, LEGEND_INCHES = 0.2, 0.75
TITLE_INCHES, NO_TITLE_INCHES = 0.3, 0.04
LIGHT_GREY = "#d8d8d8"
CURVE_COLOUR = "#8c2369"


def draw_slices(case: DrawnCase, slices: Sequence[int], title: str = "") -> Figure:
    """Draw slices in two rows: the images above, and below the map over them with the ground truth outlined.

    The map is transparent where it does not exceed the result's threshold. A legend stands at the right.

    Parameters
    ----------
    case
        Case to draw.
    slices
        Numbers of the slices.
    title
        Text above the slices.
    """
    slicing, result = case.slicing, case.result
    spacing = slicing.pixel_spacing
    height, width = slicing.slice(case.volume.array, 0)[case.view].shape
    tall = TILE_INCHES * height * spacing[0] / (width * spacing[1])
    head = TITLE_INCHES if title else NO_TITLE_INCHES
    total = (TILE_INCHES * len(slices) + LEGEND_INCHES, 2 * tall + head + LABEL_INCHES)
    figure = Figure(figsize=total, dpi=110, facecolor="black")
    norm = Normalize(result.threshold, 1.0)  # the same colours mean the same in every picture
    for column, n in enumerate(slices):
        grey = to_unit(slicing.slice(case.volume.array, n)[case.view], *case.grey_window)
        heat = slicing.slice(result.anomaly_map.array, n)[case.view]
        for row in (0, 1):
            bottom = tall * (1 - row) / total[1]
            axes = figure.add_axes((TILE_INCHES * column / total[0], bottom, TILE_INCHES / total[0], tall / total[1]))
            axes.imshow(grey, cmap="gray", vmin=0, vmax=1, aspect=spacing[0] / spacing[1], interpolation="bilinear")
            axes.axis("off")
            if row:
                axes.imshow(_overlay(heat, norm), aspect=spacing[0] / spacing[1], interpolation="nearest")
                _outline_truth(axes, case, n)
        score = result.slice_scores[n]
        text = f"slice {n} · " + ("skipped" if np.isnan(score) else f"{score:.2f}")
        figure.text(TILE_INCHES * (column + 0.5) / total[0], 1 - (head + LABEL_INCHES / 2) / total[1], text,
                    color=LIGHT_GREY, fontsize=8, ha="center", va="center")  # fmt: skip
    _draw_legend(figure, norm, LEGEND_INCHES / total[0], case.truth is not None)
    if title:
        figure.text(0.1 / total[0], 1 - head / 2 / total[1], title, color="white", fontsize=10, va="center")
    return figure


def draw_scores(case: DrawnCase, marked: Sequence[int] = ()) -> Figure:
    """Draw the score against the slice number.

    Slices with a lesion are shaded, skipped ones are hatched.

    Parameters
    ----------
    case
        Case to draw.
    marked
        Numbers of the slices to mark with a dot.
    """
    scores = case.result.slice_scores
    figure = Figure(figsize=(9.6, 2.1), layout="constrained")
    axes = figure.add_subplot()
    if case.truth is not None:
        _shade(axes, case.lesion_area > 0, "slices with lesion", facecolor="#35b6d0", alpha=0.28, linewidth=0)
    _shade(
        axes, np.isnan(scores), "skipped (background)", facecolor="none", edgecolor="#b5b5b5", hatch="////", linewidth=0
    )
    axes.plot(np.arange(len(scores)), scores, color=CURVE_COLOUR, linewidth=1.6, label="anomaly score")
    marked = [n for n in marked if not np.isnan(scores[n])]
    axes.plot(marked, scores[marked], "o", color=CURVE_COLOUR, markersize=4, label="shown above")
    axes.axhline(case.result.slice_limit, color="#555555", linewidth=0.9, linestyle="--", label="slice limit")
    axes.set_xlim(-0.5, len(scores) - 0.5)
    axes.set_xlabel(f"{case.slicing.plane} slice", fontsize=9)
    axes.set_ylabel("score", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def save_png(
    path: str | Path,
    volume: Volume,
    result: AnomalyResult,
    *,
    truth: Volume | None = None,
    window: tuple[float, float] | None = None,
    title: str = "",
) -> None:
    """Write the key slices of a result as a PNG, drawn as by `draw_slices`.

    Parameters
    ----------
    path
        File to write.
    volume, result, truth, window
        As in `DrawnCase`.
    title
        Text above the slices; by default the name of the volume.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    case = DrawnCase(volume, result, truth, window)
    figure = draw_slices(case, choose_key_slices(case), title or volume.name)
    Path(path).write_bytes(image_bytes(figure, "png"))


def image_bytes(figure: Figure, file_format: Literal["png", "svg"]) -> bytes:
    """Return a figure as a PNG or SVG file; the same picture gives the same bytes."""
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "medclipad"}):
        figure.savefig(stream, format=file_format, facecolor=figure.get_facecolor(), metadata=UNDATED[file_format])
    return stream.getvalue()


def _overlay(heat: np.ndarray, norm: Normalize) -> np.ndarray:
    """Return the map as RGBA, transparent up to the threshold."""
    strength = np.clip(norm(heat), 0, 1)
    colours = HEAT(strength)
    colours[..., 3] = np.where(heat > norm.vmin, OPACITY[0] + (OPACITY[1] - OPACITY[0]) * strength, 0)
    return colours


def _outline_truth(axes: Axes, case: DrawnCase, n: int) -> None:
    """Draw the outline of the ground truth in slice n."""
    if case.truth is None:
        return
    mask = np.pad(case.slicing.slice(case.truth.array, n)[case.view] != 0, 1)
    for line in find_contours(mask.astype(float), 0.5):
        axes.plot(line[:, 1] - 1, line[:, 0] - 1, color=TRUTH_COLOUR, linewidth=0.9)


def _draw_legend(figure: Figure, norm: Normalize, width: float, has_truth: bool) -> None:
    """Draw the colour bar of the map, and name the colour of the ground truth."""
    axes = figure.add_axes((1 - width * 0.88, 0.06, width * 0.16, 0.36))
    bar = figure.colorbar(ScalarMappable(norm, HEAT), cax=axes)
    bar.ax.tick_params(labelsize=7, colors=LIGHT_GREY, length=2)
    bar.outline.set_visible(False)
    figure.text(1 - width * 0.9, 0.46, "map", color=LIGHT_GREY, fontsize=8)
    if has_truth:
        figure.text(1 - width * 0.9, 0.56, "truth", color=TRUTH_COLOUR, fontsize=8)


def _shade(axes: Axes, selected: np.ndarray, label: str, **style: Any) -> None:
    """Shade the slices where `selected` is True, with one entry in the legend."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], selected, [False]]).astype(int)))
    for index, (start, stop) in enumerate(edges.reshape(-1, 2)):
        axes.axvspan(start - 0.5, stop - 0.5, label=label if index == 0 else None, **style)
