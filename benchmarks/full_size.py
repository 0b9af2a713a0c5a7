"""Time and peak memory of `medclipad fit` and `medclipad detect` with the papers' encoder at full size.

    python -m benchmarks.full_size [--method mvfa] [--shots 4] [--epochs 1] [--json FILE]

The weights are made by recipe (published ones need a download) and the volumes are those of the sample study: times and
memory are real, maps mean nothing. In MVFA, one epoch over k shots is 22 k images.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.table import Table

from benchmarks.machine import machine
from benchmarks.recipe import recipe_file
from medclipad.export.result_files import write_json
from sample_data.make_study import make_study

ARCHITECTURES = {"mvfa": "ViT-L-14-336", "mediclip": "ViT-L-14-quickgelu"}


def main(
    method: Annotated[Literal["mvfa", "mediclip"], typer.Option(help="Method to measure.")] = "mvfa",
    shots: Annotated[int, typer.Option(help="Slices to learn from.")] = 4,
    epochs: Annotated[int, typer.Option(help="Epochs of the training; 0 for the method's own number.")] = 1,
    study: Annotated[Path | None, typer.Option(help="Folder of the sample study; default a temporary one.")] = None,
    json: Annotated[Path | None, typer.Option(help="Write the results to this file.")] = None,
) -> None:
    """Measure seconds and peak memory of `medclipad fit` and `medclipad detect` with a ViT-L/14."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        if study is None:
            study = folder / "study"
            make_study(study)
        images, truth = study / "images", study / "truth"
        encoder = recipe_file(ARCHITECTURES[method], folder / "recipe.pt")
        fit = ["fit", "--method", method, "--encoder", encoder, "--out", str(folder / "detector")]
        fit += ["--shots", str(shots), "--normal", str(images / "normal-1.nii.gz")]
        if method == "mvfa":
            fit += ["--abnormal", f"{images / 'bright-mass.nii.gz'}:{truth / 'bright-mass.nii.gz'}"]
        if epochs:
            fit += ["--epochs", str(epochs)]
        detect = ["detect", str(folder / "detector"), str(images / "dysplasia.nii.gz"), "--out", str(folder / "out")]
        rows = [{"command": name, **run_command(command)} for name, command in (("fit", fit), ("detect", detect))]
    table = Table("command", "seconds", "peak memory (GB)", title=f"{method}, {ARCHITECTURES[method]}, {shots} shots")
    for row in rows:
        table.add_row(row["command"], f"{row['seconds']:.0f}", f"{row['gigabytes']:.1f}")
    Console().print(table)
    if json:
        write_json(json, {"machine": machine(), "method": method, "shots": shots, "epochs": epochs, "commands": rows})


def run_command(arguments: list[str]) -> dict[str, float]:
    """Run a medclipad command; return its wall seconds and its peak resident memory in GB."""
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "medclipad", *arguments], stdout=sys.stderr)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"medclipad {arguments[0]} failed; see above.")
    return {"seconds": time.perf_counter() - start, "gigabytes": usage.ru_maxrss / 1024**2}


if __name__ == "__main__":
    typer.run(main)
