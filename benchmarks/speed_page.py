"""The page of `benchmarks.speed`: tables between its two marks, and plots in images/ beside it."""

from __future__ import annotations

from pathlib import Path

import typer

from benchmarks.speed_fidelity import FIDELITY, LAST, LOSSES
from benchmarks.speed_growth import GROWTH
from benchmarks.speed_memory import DRAWS
from benchmarks.speed_rows import TABLE
from medclipad.export.result_files import write_text

MARKS = ("<!-- tables of benchmarks.speed -->", "<!-- end of tables -->")
HEADINGS = (
    *("", "reference", "reference, here", "goal", "measured", "reached", "seconds", "of peak", "at peak"),
    "repetitions",
)
DPI = 120
NOTHING = 0.01  # what still counts as 0


def number(value: float | None, digits: int = 3) -> str:
    """With so many significant digits, or a dash."""
    if value is None:
        return "–"
    return f"{value:.0f}" if abs(value) >= 10**digits else f"{value:.{digits}g}"


def cells(name: str, results: dict) -> list[str]:
    """A line of the table: title, reference there and here, goal, measured, whether reached, and what it comes from."""
    row, result = TABLE[name], results[name]
    measured = result["measured"]
    reached = measured <= (row.goal or NOTHING)
    share = least = "–"
    if "share_of_peak" in result:
        share = f"{result['share_of_peak']:.0%} {result['precision']}"
        peaks = [one["peak_gflops"] for one in results.values() if one.get("precision") == result["precision"]]
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
    """Put tables and plots of what was measured into a page that has the two marks."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, _, rest = text.partition(MARKS[0])
    _, mark, after = rest.partition(MARKS[1])
    if not mark:
        raise typer.BadParameter(f"{page} has no lines {MARKS[0]} and {MARKS[1]} for the tables to stand between.")
    images = page.parent / "images"
    parts = [_machine(content), _table(content["results"]), *_goals(content["results"], images)]
    parts += [_precision(content["results"]), *_losses(content["results"], images)]
    parts += [_memories(content["results"]), *_growth(content["results"], images)]
    write_text(page, f"{before}{MARKS[0]}\n" + "\n\n".join(part for part in parts if part) + f"\n\n{mark}{after}")


def markdown(headings: list[str], rows: list[list[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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
        said = (f"{name} {min(values):.0f} to {max(values):.0f}" for name, values in by_type.items())
        text += f" Peak of a matrix product, GFLOP/s: {', '.join(said)}."
    if units:
        text += f" U took {min(units):.2f} to {max(units):.2f} s."
    if content["architecture"]:
        text += f" **A smoke run with {content['architecture']}: these figures mean nothing.**"
    return text


def _table(results: dict) -> str:
    rows = [cells(name, results) for name, row in TABLE.items() if name in results]
    return f"### Reference, goal, measured\n\n{markdown(list(HEADINGS), rows)}" if rows else ""


def _goals(results: dict, images: Path) -> list[str]:
    """Bars: goal and measured as parts of the reference's cost."""
    rows = [(row, results[name]) for name, row in TABLE.items() if name in results and row.reference and row.goal]
    if not rows:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.4 * len(rows) + 1.2), layout="constrained")
    axes = figure.subplots()
    for place, (row, result) in enumerate(rows):
        axes.barh(place, result["measured"] / row.reference, color="C0", height=0.6)
        axes.plot([row.goal / row.reference] * 2, [place - 0.4, place + 0.4], color="C3", linewidth=2)
    axes.axvline(1, color="0.4", linestyle="--")
    axes.set(xscale="log", xlabel="part of the reference's cost; red: the goal")
    axes.set_yticks(range(len(rows)), [row.title for row, _ in rows])
    axes.invert_yaxis()
    return [_saved(figure, images / "performance-goals.png", "Cost as a part of the reference's")]


def _precision(results: dict) -> str:
    found = {name: results[name] for name in FIDELITY if name in results}
    if not found:
        return ""
    headings = ["", "encoder", "pictures", "score: largest difference (range)", "score: Spearman"]
    headings += ["map: largest difference (range)", "map: Spearman", "AUROC float32", "bfloat16", "difference"]
    rows = []
    for name, result in found.items():
        one = result["figures"]
        aurocs = [f"{one[key]:.4f}" if key in one else "–" for key in ("auroc_float32", "auroc_bfloat16")]
        rows.append([name.removeprefix("precision-"), result["architecture"], str(one["pictures"])])
        for part in ("score", "map"):
            rows[-1] += [f"{number(one[f'{part}_difference'], 2)} ({number(one[f'{part}_range'], 2)})"]
            rows[-1] += [f"{one[f'{part}_spearman']:.5f}"]
        rows[-1] += [*aurocs, f"{one['auroc_difference']:+.4f}" if "auroc_difference" in one else "–"]
    return f"### bfloat16 against float32\n\n{markdown(headings, rows)}"


def _losses(results: dict, images: Path) -> list[str]:
    found = {name: results[name] for name in LOSSES if name in results}
    if not found:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(found), 3.6), layout="constrained")
    rows = []
    for axes, result in zip(figure.subplots(1, len(found), squeeze=False)[0], found.values(), strict=True):
        for name, points in result["curves"].items():
            axes.plot(*zip(*points, strict=True), label=name)
            looks = [points[0][1], points[-1][1], result["ends"][name]]
            auroc = f"{result['auroc'][name]:.3f}" if name in result["auroc"] else "–"
            rows.append([result["architecture"], name, str(points[-1][0]), *(f"{look:.3f}" for look in looks), auroc])
        axes.set(title=result["architecture"], xlabel="steps", ylabel="held-out focal + dice loss")
        axes.legend()
    last = f"mean of the last {LAST} looks"
    table = markdown(["encoder", "schedule", "steps", "loss before", "after", last, "AUROC"], rows)
    picture = _saved(figure, images / "performance-loss.png", "Held-out loss against steps")
    return [f"### MediCLIP's losses\n\n{table}", picture]


def _memories(results: dict) -> str:
    curves = results.get("memory-sizes", {}).get("curves")
    if not curves:
        return ""
    sizes = [str(n) for n, _ in next(iter(curves.values()))]
    rows = [[name, *(f"{auroc:.3f}" for _, auroc in points)] for name, points in curves.items()]
    said = f"Memories alone, embedded encoder, mean of {DRAWS} draws."
    return f"### AUROC by tokens remembered\n\n{said}\n\n{markdown(['', *sizes], rows)}"


def _growth(results: dict, images: Path) -> list[str]:
    found = {name: results[name]["curves"] for name in GROWTH if name in results}
    if not found:
        return []
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6 * -(-len(found) // 2)), layout="constrained")
    grid = figure.subplots(-(-len(found) // 2), 2, squeeze=False).ravel()
    rows = []
    for axes, (name, curves) in zip(grid, found.items(), strict=False):
        growth = GROWTH[name]
        for label, points in curves.items():
            axes.plot(*zip(*points, strict=True), marker="o", label=label)
            said = ", ".join(f"{x:g}: {number(y)}" for x, y in points)
            rows.append([growth.title, growth.x, label, said])
        axes.set(xscale="log", yscale="log", title=growth.title, xlabel=growth.x, ylabel=growth.y)
        axes.xaxis.minorticks_off()
        ticks = sorted({x for points in curves.values() for x, _ in points})
        axes.set_xticks(ticks, [f"{x:g}" for x in ticks], rotation=45)
        axes.legend()
    for axes in grid[len(found) :]:
        axes.remove()
    picture = _saved(figure, images / "performance-growth.png", "Seconds against slices, size, shots and memory")
    table = markdown(["", "of", "", "seconds"], rows)
    return [f"### How cost grows\n\nEmbedded encoder, in seconds.\n\n{picture}", table]


def _saved(figure, path: Path, alt: str) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=DPI)
    return f"![{alt}](images/{path.name})"
