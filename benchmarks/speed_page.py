"""Page of `benchmarks.speed`: tables between its two marks, and plots in images/ beside it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.pages import markdown_table, replace_between
from benchmarks.speed_fidelity import FIDELITY, LAST, LOSSES
from benchmarks.speed_growth import GROWTH
from benchmarks.speed_memory import DRAWS
from benchmarks.speed_rows import TABLE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MARKS = ("<!-- tables of benchmarks.speed -->", "<!-- end of tables -->")
HEADINGS = (
    *("", "reference", "reference, here", "goal", "measured", "reached", "seconds", "of peak", "at peak"),
    "repetitions",
)
DPI = 120
NEARLY_ZERO = 0.01  # U, reaches the goal 0


def number(value: float | None, digits: int = 3) -> str:
    """Return a number with so many significant digits, or a dash."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def cells(name: str, results: dict) -> list[str]:
    """Return a row of the table, under HEADINGS."""
    row, result = TABLE[name], results[name]
    measured = result["measured"]
    reached = measured <= (row.goal or NEARLY_ZERO)
    share = least = "–"
    if "share_of_peak" in result:
        share = f"{result['share_of_peak']:.0%} {result['precision']}"
        peaks = [other["peak_gflops"] for other in results.values() if other.get("precision") == result["precision"]]
        least = f"{number(measured * result['share_of_peak'] * result['peak_gflops'] / max(peaks), 2)} {row.unit}"
    spread = f"{len(result['values'])} ({number(min(result['values']))} to {number(max(result['values']))})"
    return [
        row.title,
        "–" if row.reference is None else f"{number(row.reference)} {row.unit}",
        "–" if "reference_measured" not in result else f"{number(result['reference_measured'])} {row.unit}",
        f"≤ {number(row.goal)} {row.unit}" if row.goal else "0",
        f"{number(measured)} {row.unit}",
        "yes" if reached else "no",
        number(result["seconds"]),
        share,
        least,
        "; ".join([spread, *([result["note"]] if "note" in result else [])]),
    ]


def write_page(page: Path, content: dict) -> None:
    """Put tables and plots of the results into a page that holds both marks."""
    images = page.parent / "images"
    parts = [_machine(content), _table(content["results"]), *_goals(content["results"], images)]
    parts += [_precision(content["results"]), *_losses(content["results"], images)]
    parts += [_memories(content["results"]), *_growth(content["results"], images)]
    replace_between(page, MARKS, "\n\n".join(part for part in parts if part))


def _machine(content: dict) -> str:
    here, results = content["machine"], content["results"]
    peaks = [(result["precision"], result["peak_gflops"]) for result in results.values() if "peak_gflops" in result]
    units = [result["unit_seconds"] for result in results.values() if "unit_seconds" in result]
    text = (
        f"{here['date']}, {here['processor']} ({here['capability']}), {here['cores']} cores, "
        f"{here['threads']} threads, GPU: {here['gpu']}, Python {here['python']}, torch {here['torch']}."
    )
    if peaks:
        by_type = {name: [peak for own, peak in peaks if own == name] for name, _ in peaks}
        ranges = (f"{name} {min(values):.0f} to {max(values):.0f}" for name, values in by_type.items())
        text += f" Peak of a matrix product, GFLOP/s: {', '.join(ranges)}."
    if units:
        text += f" U took {min(units):.2f} to {max(units):.2f} s."
    if content["architecture"]:
        text += f" **A smoke run with {content['architecture']}: these numbers mean nothing.**"
    return text


def _table(results: dict) -> str:
    rows = [cells(name, results) for name, row in TABLE.items() if name in results]
    return f"### Reference, goal, measured\n\n{markdown_table(HEADINGS, rows)}" if rows else ""


def _goals(results: dict, images: Path) -> list[str]:
    """Draw goal and measurement as shares of the reference's cost."""
    rows = [
        (row.reference, row, results[name])
        for name, row in TABLE.items()
        if name in results and row.reference and row.goal
    ]
    if not rows:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.4 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    for index, (reference, row, result) in enumerate(rows):
        axes.barh(index, result["measured"] / reference, color="C0", height=0.6)
        axes.plot([row.goal / reference] * 2, [index - 0.4, index + 0.4], color="C3", linewidth=2)
    axes.axvline(1, color="0.4", linestyle="--")
    axes.set(xscale="log", xlabel="share of the reference's cost; red: the goal")
    axes.set_yticks(range(len(rows)), [row.title for _, row, _ in rows])
    axes.invert_yaxis()
    return [_saved(figure, images / "performance-goals.png", "Cost as a share of the reference's")]


def _precision(results: dict) -> str:
    measured = {name: results[name] for name in FIDELITY if name in results}
    if not measured:
        return ""
    headings = ["", "encoder", "images", "score: largest difference (range)", "score: Spearman"]
    headings += ["map: largest difference (range)", "map: Spearman", "AUROC float32", "bfloat16", "difference"]
    rows = []
    for name, result in measured.items():
        figures = result["figures"]
        aurocs = [f"{figures[key]:.4f}" if key in figures else "–" for key in ("auroc_float32", "auroc_bfloat16")]
        rows.append([name.removeprefix("precision-"), result["architecture"], str(figures["pictures"])])
        for part in ("score", "map"):
            rows[-1] += [f"{number(figures[f'{part}_difference'], 2)} ({number(figures[f'{part}_range'], 2)})"]
            rows[-1] += [f"{figures[f'{part}_spearman']:.5f}"]
        rows[-1] += [*aurocs, f"{figures['auroc_difference']:+.4f}" if "auroc_difference" in figures else "–"]
    return f"### bfloat16 against float32\n\n{markdown_table(headings, rows)}"


def _losses(results: dict, images: Path) -> list[str]:
    measured = [results[name] for name in LOSSES if name in results]
    if not measured:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(measured), 3.6), layout="constrained")
    rows = []
    for axes, result in zip(figure.subplots(1, len(measured), squeeze=False)[0], measured, strict=True):
        for name, points in result["curves"].items():
            axes.plot(*zip(*points, strict=True), label=name)
            shown = [points[0][1], points[-1][1], result["ends"][name]]
            auroc = f"{result['auroc'][name]:.3f}" if name in result["auroc"] else "–"
            rows.append([result["architecture"], name, str(points[-1][0]), *(f"{loss:.3f}" for loss in shown), auroc])
        axes.set(title=result["architecture"], xlabel="steps", ylabel="held-out focal + dice loss")
        axes.legend()
    last = f"mean of the last {LAST} losses"
    table = markdown_table(["encoder", "schedule", "steps", "loss before", "after", last, "AUROC"], rows)
    plot = _saved(figure, images / "performance-loss.png", "Held-out loss against steps")
    return [f"### MediCLIP's losses\n\n{table}", plot]


def _memories(results: dict) -> str:
    curves = results.get("memory-sizes", {}).get("curves")
    if not curves:
        return ""
    sizes = [str(n) for n, _ in next(iter(curves.values()))]
    rows = [[name, *(f"{auroc:.3f}" for _, auroc in points)] for name, points in curves.items()]
    caption = f"Memories alone, embedded encoder, mean of {DRAWS} draws."
    return f"### AUROC by tokens remembered\n\n{caption}\n\n{markdown_table(['', *sizes], rows)}"


def _growth(results: dict, images: Path) -> list[str]:
    measured = {name: results[name]["curves"] for name in GROWTH if name in results}
    if not measured:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6 * -(-len(measured) // 2)), layout="constrained")
    grid = figure.subplots(-(-len(measured) // 2), 2, squeeze=False).ravel()
    rows = []
    for axes, (name, curves) in zip(grid, measured.items(), strict=False):
        growth = GROWTH[name]
        for label, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=label)
            seconds = ", ".join(f"{x:g}: {number(y)}" for x, y in points)
            rows.append([growth.title, growth.x, label, seconds])
        axes.set(xscale="log", yscale="log", title=growth.title, xlabel=growth.x, ylabel=growth.y)
        axes.xaxis.minorticks_off()
        ticks = sorted({x for points in curves.values() for x, _ in points})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks], rotation=45)
        axes.legend()
    for axes in grid[len(measured) :]:
        axes.remove()
    plot = _saved(figure, images / "performance-growth.png", "Seconds against slices, size, shots and memory")
    table = markdown_table(["", "of", "", "seconds"], rows)
    return [f"### How the cost grows\n\nEmbedded encoder, in seconds.\n\n{plot}", table]


def _saved(figure: Figure, path: Path, alt: str) -> str:
    """Save a plot; return the Markdown that shows it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return f"![{alt}](images/{path.name})"
