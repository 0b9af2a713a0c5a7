"""Draw the free-response ROC of an evaluation with its intervals.

Uses matplotlib's Figure without pyplot, as `drawing` does.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

from matplotlib.figure import Figure

from medclipad.errors import MedCLIPADError
from medclipad.evaluation.drawing import CURVE_COLOUR, image_bytes
from medclipad.evaluation.froc import RATES
from medclipad.evaluation.summary import Summary
from medclipad.files import atomic_file

OWN_COLOUR = "#1f6f8b"  # the detector's own limits


def draw_froc(summary: Summary, title: str = "") -> Figure:
    """Draw the sensitivity against the false regions per scan, with its 95 % interval over patients.

    Points mark what the detector's own limits give.

    Parameters
    ----------
    summary
        Figures of an evaluation.
    title
        Text above the curve.
    """
    figure = Figure(figsize=(6.4, 4.2), dpi=150, layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    curve = summary.froc_curve
    if summary.lesions:
        values = [float(value or 0) for value in curve.sensitivity]
        axes.plot(
            curve.false_per_scan, values, color=CURVE_COLOUR, linewidth=1.8, drawstyle="steps-post", label="best limit"
        )
        if None not in curve.low:
            low, high = ([float(end or 0) for end in ends] for ends in (curve.low, curve.high))
            axes.fill_between(curve.false_per_scan, low, high, step="post", color=CURVE_COLOUR, alpha=0.16, linewidth=0,
                              label="95 % interval over patients")  # fmt: skip
        own = [(point.false_per_scan.value, point.sensitivity.value) for point in summary.promised]
        shown = [(rate, found) for rate, found in own if rate is not None and found is not None and rate > 0]
        if shown:
            axes.plot(*zip(*shown, strict=True), "o", color=OWN_COLOUR, markersize=5, label="detector's own limits")
        axes.legend(fontsize=8, frameon=False, loc="upper left")
    else:
        axes.text(0.5, 0.5, "no lesion in these cases", ha="center", transform=axes.transAxes, color="#6a6a66")
    axes.set_xscale("log", base=2)
    axes.set_xticks(RATES, [str(Fraction(rate)) for rate in RATES])
    axes.set_xlim(RATES[0] / 1.1, RATES[-1] * 1.1)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("false regions per scan", fontsize=9)
    axes.set_ylabel("share of lesions found", fontsize=9)
    axes.grid(color="#e6e6e2", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    facts = f"{summary.lesions} lesions, {summary.scans} scans of {summary.patients} patients"
    axes.set_title(" · ".join(filter(None, [title, facts])), fontsize=9)
    return figure


def save_froc(path: Path, summary: Summary, title: str = "") -> None:
    """Write the curve of `draw_froc` as a PNG; raise MedCLIPADError if the file cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temp_path:
            temp_path.write_bytes(image_bytes(draw_froc(summary, title), "png"))
    except OSError as error:
        raise MedCLIPADError(
            f"{path} cannot be written ({error.strerror}): free some space, or choose another folder."
        ) from error
