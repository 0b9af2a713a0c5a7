"""Speed beside that of the reference codes, the goals and the machine's peak; growth of the cost; effect of bfloat16.

    python -m benchmarks.speed [--json FILE] [--data DIR] [--only NAME ...] [--again]
                               [--page docs/explanation/performance.md]
    python -m benchmarks.speed --architecture ViT-S-32-alt --loss-epochs 4 --budget 2     # a smoke run

Ratios are in units of U: one float32 forward pass of a single image through open_clip's own ViT-L-14-336 image tower at
240 px (weights by `benchmarks.recipe`), timed before and after each repetition. Results in FILE are not measured again
without --again, so that a run can be split; --page writes the page and its plots from FILE. DIR holds brain_mri_253;
without it, AUROCs are left out. Run it on an idle machine.
"""

from __future__ import annotations

import json as js
import tempfile
import time
import traceback
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.speed_bench import Bench
from benchmarks.speed_fidelity import FIDELITY, LOSSES
from benchmarks.speed_growth import GROWTH
from benchmarks.speed_memory import memory_sizes
from benchmarks.speed_page import HEADINGS, cells, write_page
from benchmarks.speed_rows import TABLE
from medclipad.export.result_files import write_json

OTHERS = {**FIDELITY, **LOSSES, "memory-sizes": memory_sizes}
NAMES = (*TABLE, *GROWTH, *OTHERS)
MACHINE_KEYS = ("processor", "cores", "threads", "gpu", "torch")  # the same for all results of a file


def main(
    json: Annotated[Path | None, typer.Option(help="File for the results; those it holds are not repeated.")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Only these results: {', '.join(NAMES)}.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also repeat the results that the file holds.")] = False,
    data: Annotated[Path | None, typer.Option(help="Folder that holds brain_mri_253, for AUROCs.")] = None,
    work: Annotated[
        Path | None, typer.Option(help="Folder for weights and detectors; default a temporary one.")
    ] = None,
    budget: Annotated[float, typer.Option(help="Seconds to spend on images in each comparison of precisions.")] = 90,
    loss_epochs: Annotated[
        int, typer.Option(min=1, help="Epochs of the published training whose loss is compared.")
    ] = 200,
    architecture: Annotated[
        str | None, typer.Option(help="Smoke run with this ViT for both methods. Its results mean nothing.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Page to write the tables into; plots go to images/ beside it.")
    ] = None,
) -> None:
    """Measure speed and memory, and print a table."""
    unknown = sorted(set(only or ()) - set(NAMES))
    if unknown:
        raise typer.BadParameter(f"There is no result {unknown[0]}: choose from {', '.join(NAMES)}.")
    here = {"machine": machine(), "architecture": architecture, "results": {}}
    kept = js.loads(json.read_text()) if json and json.is_file() else here
    if kept["architecture"] != architecture or any(
        kept["machine"][key] != here["machine"][key] for key in MACHINE_KEYS
    ):
        raise typer.BadParameter(f"{json} holds results of another machine or architecture: name another file.")
    results, failed = kept["results"], []
    with tempfile.TemporaryDirectory() as temporary:
        folder = work or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        bench = Bench(folder.resolve(), architecture, data, budget, loss_epochs)
        for name in only or NAMES:
            if name in results and not again:
                continue
            start = time.perf_counter()
            try:
                result = measure(name, bench)
            except Exception:  # the others are still measured; this one is named at the end
                traceback.print_exc()
                failed.append(name)
                continue
            results[name] = result | {"took": time.perf_counter() - start, "date": here["machine"]["date"]}
            print(f"{name}: {js.dumps(results[name])}", flush=True)
            if json:
                write_json(json, {**here, "results": results})
    table = Table(*HEADINGS)
    for name in TABLE:
        if name in results:
            table.add_row(*cells(name, results))
    Console(width=160).print(table)
    if page:
        write_page(page, {**kept, "results": results})
    if failed:
        raise SystemExit(f"Not measured (see above): {', '.join(failed)}.")


def measure(name: str, bench: Bench) -> dict:
    """Return the result of a row, a plot or a comparison."""
    if name in TABLE:
        return TABLE[name].measure(bench)
    if name in GROWTH:
        return {"curves": GROWTH[name].measure(bench)}
    return OTHERS[name](bench)


if __name__ == "__main__":
    typer.run(main)
