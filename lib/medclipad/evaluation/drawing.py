"""Pictures of a case: slices with the anomaly map over them and the truth outlined, and the curve of slice scores.

Built on matplotlib's Figure, without pyplot: no global state, safe in a server's threads.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from skimage.measure import find_contours

from medclipad.volume import Slicing, Volume, parse_preset, to_unit

if TYPE_CHECKING:
    from medclipad.detection.result import AnomalyResult

TRUTH_COLOUR = "#35e0ff"  # stands out from grey and from every colour of the map
# The dark end of a uniform map would hide on the dark image: its brighter part keeps the uniformity.
HEAT = ListedColormap(colormaps["inferno"](np.linspace(0.3, 1.0, 256)), name="heat")
UNDATED = {"png": {}, "svg": {"Date": None}}
MARGIN = 4  # pixels around the head
OPACITY = (0.35, 0.75)  # of the map at the threshold, and at its maximum


@dataclass(frozen=True, eq=False)
class Picture:
    """What is drawn: a volume, what a detector says of it, the truth (on the same grid) if it is known.

    window: (low, high) of the grey values; by default those that the detector saw, else percentiles of
        the foreground.
    """

    volume: Volume
    result: AnomalyResult
    truth: Volume | None = None
    window: tuple[float, float] | None = None

    @property
    def slicing(self) -> Slicing:
        return self.result.slicing

    @cached_property
    def grey(self) -> tuple[float, float]:
        return self.window or self.result.window or parse_preset("mr").window(self.volume, self.result.foreground)

    @cached_property
    def lesion_area(self) -> np.ndarray:
        """int (n_slices,): voxels of the truth in each slice."""
        if self.truth is None:
            return np.zeros(len(self.slicing), int)
        return np.count_nonzero(self.slicing.slices(self.truth.array), axis=(1, 2))

    @cached_property
    def view(self) -> tuple[slice, slice]:
        """Rows and columns that hold the foreground of every slice, and a margin."""
        visible = self.slicing.slices(self.result.foreground).any(axis=0)
        if not visible.any():
            return slice(None), slice(None)
        hits = (np.flatnonzero(visible.any(axis=axis)) for axis in (1, 0))
        return tuple(slice(max(0, hit[0] - MARGIN), hit[-1] + 1 + MARGIN) for hit in hits)


def key_slices(picture: Picture, count: int = 8) -> list[int]:
    """At most `count` slices worth looking at, ascending: the largest lesion, the highest score, the highest score
    without lesion; then evenly over the lesion, then over the scored slices. Near neighbours are not repeated."""
    scores, area = picture.result.slice_scores, picture.lesion_area
    scored, lesion = np.flatnonzero(~np.isnan(scores)), np.flatnonzero(area)
    by_score = scored[np.argsort(-scores[scored], kind="stable")]
    best = [lesion[np.argsort(-area[lesion], kind="stable")], by_score, by_score[area[by_score] == 0]]
    every = lesion if lesion.size else scored
    apart = max(1, len(every) // (2 * count))
    chosen: list[int] = []

    def choose(candidates: Iterable[int]) -> None:
        for n in candidates:
            if len(chosen) < count and all(abs(int(n) - other) >= apart for other in chosen):
                chosen.append(int(n))

    choose(pool[0] for pool in best if pool.size)
    choose(_evenly(lesion, count - len(chosen)))
    choose(_evenly(scored, count))
    return sorted(chosen) or [len(scores) // 2]


def _evenly(pool: np.ndarray, count: int) -> np.ndarray:
    return pool[((np.arange(count) + 0.5) / count * len(pool)).astype(int)] if pool.size else pool


def draw_slices(picture: Picture, slices: Sequence[int], title: str = "") -> Figure:
    """Two rows: the slices as they are, and below with the map over them and the truth outlined; a legend at the right.

    The map is transparent where it does not exceed the result's threshold.
    """
    slicing, result = picture.slicing, picture.result
    spacing = slicing.pixel_spacing
    height, width = slicing.slice(picture.volume.array, 0)[picture.view].shape
    tile = 1.55  # inches
    tall = tile * height * spacing[0] / (width * spacing[1])
    head, label, legend = 0.3 if title else 0.04, 0.2, 0.75
    total = (tile * len(slices) + legend, 2 * tall + head + label)
    figure = Figure(figsize=total, dpi=110, facecolor="black")
    norm = Normalize(result.threshold, max(float(result.anomaly_map.array.max()), result.threshold + 1e-3))
    for column, n in enumerate(slices):
        grey = to_unit(slicing.slice(picture.volume.array, n)[picture.view], *picture.grey)
        heat = slicing.slice(result.anomaly_map.array, n)[picture.view]
        for row in (0, 1):
            bottom = tall * (1 - row) / total[1]
            axes = figure.add_axes((tile * column / total[0], bottom, tile / total[0], tall / total[1]))
            axes.imshow(grey, cmap="gray", vmin=0, vmax=1, aspect=spacing[0] / spacing[1], interpolation="bilinear")
            axes.axis("off")
            if row:
                axes.imshow(_overlay(heat, norm), aspect=spacing[0] / spacing[1], interpolation="nearest")
                _outline(axes, picture, n)
        score = result.slice_scores[n]
        text = f"slice {n} · " + ("skipped" if np.isnan(score) else f"{score:.2f}")
        figure.text(tile * (column + 0.5) / total[0], 1 - (head + label / 2) / total[1], text,
                    color="#d8d8d8", fontsize=8, ha="center", va="center")  # fmt: skip
    _legend(figure, picture, norm, legend / total[0])
    if title:
        figure.text(0.1 / total[0], 1 - head / 2 / total[1], title, color="white", fontsize=10, va="center")
    return figure


def draw_scores(picture: Picture, marked: Sequence[int] = ()) -> Figure:
    """Score against slice: truth slices shaded, skipped ones hatched, `marked` ones dotted."""
    scores = picture.result.slice_scores
    figure = Figure(figsize=(9.6, 2.1), layout="constrained")
    axes = figure.add_subplot()
    if picture.truth is not None:
        _shade(axes, picture.lesion_area > 0, "slices with lesion", facecolor="#35b6d0", alpha=0.28, linewidth=0)
    _shade(
        axes, np.isnan(scores), "skipped (background)", facecolor="none", edgecolor="#b5b5b5", hatch="////", linewidth=0
    )
    axes.plot(np.arange(len(scores)), scores, color="#8c2369", linewidth=1.6, label="anomaly score")
    marked = [n for n in marked if not np.isnan(scores[n])]
    axes.plot(marked, scores[marked], "o", color="#8c2369", markersize=4, label="shown above")
    axes.set_xlim(-0.5, len(scores) - 0.5)
    axes.set_xlabel(f"{picture.slicing.plane} slice", fontsize=9)
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
    """Write the key slices of a result as a PNG: images above, below with the map over them and the truth outlined.

    Arguments as in `Picture`. Raises OSError if the file cannot be written.
    """
    picture = Picture(volume, result, truth, window)
    Path(path).write_bytes(image_bytes(draw_slices(picture, key_slices(picture), title or volume.name), "png"))


def image_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as "png" or "svg", the same bytes for the same picture."""
    stream = io.BytesIO()
    with rc_context({"svg.hashsalt": "medclipad"}):
        figure.savefig(stream, format=kind, facecolor=figure.get_facecolor(), metadata=UNDATED[kind])
    return stream.getvalue()


def _overlay(heat: np.ndarray, norm: Normalize) -> np.ndarray:
    strength = np.clip(norm(heat), 0, 1)
    colours = HEAT(strength)
    colours[..., 3] = np.where(heat > norm.vmin, OPACITY[0] + (OPACITY[1] - OPACITY[0]) * strength, 0)
    return colours


def _outline(axes: Axes, picture: Picture, n: int) -> None:
    if picture.truth is None:
        return
    mask = np.pad(picture.slicing.slice(picture.truth.array, n)[picture.view] != 0, 1)
    for line in find_contours(mask.astype(float), 0.5):
        axes.plot(line[:, 1] - 1, line[:, 0] - 1, color=TRUTH_COLOUR, linewidth=0.9)


def _legend(figure: Figure, picture: Picture, norm: Normalize, width: float) -> None:
    axes = figure.add_axes((1 - width * 0.88, 0.06, width * 0.16, 0.36))
    bar = figure.colorbar(ScalarMappable(norm, HEAT), cax=axes)
    bar.ax.tick_params(labelsize=7, colors="#d8d8d8", length=2)
    bar.outline.set_visible(False)
    figure.text(1 - width * 0.9, 0.46, "map", color="#d8d8d8", fontsize=8)
    if picture.truth is not None:
        figure.text(1 - width * 0.9, 0.56, "truth", color=TRUTH_COLOUR, fontsize=8)


def _shade(axes: Axes, where: np.ndarray, label: str, **style) -> None:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], where, [False]]).astype(int)))
    for k, (start, stop) in enumerate(edges.reshape(-1, 2)):
        axes.axvspan(start - 0.5, stop - 0.5, label=label if k == 0 else None, **style)
