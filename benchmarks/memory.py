"""Peak memory of reading and detecting a volume, by its size, beside the need that is estimated before.

    python -m benchmarks.memory [--megabytes 64 --megabytes 256] [--suffix .nii.gz]

Each size is measured in a process of its own. The memory of the program and the encoder is subtracted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import nibabel as nib
import numpy as np
import typer
from nibabel.openers import Opener
from rich.console import Console
from rich.table import Table

from medclipad import Volume, fit

SIDE = 1024  # voxels of a slice's rows and columns
HEADINGS = (
    "volume (MB)",
    "voxels",
    "reading: estimate",
    "reading: peak",
    "detecting: estimate",
    "detecting: peak",
)
KEYS = ("read_estimate", "read_peak", "detect_estimate", "detect_peak")


def main(
    megabytes: Annotated[
        list[int] | None, typer.Option(help="Size of the voxels, int16; repeatable. Default 64, 128 and 256.")
    ] = None,
    suffix: Annotated[str, typer.Option(help="File format: .nii or .nii.gz.")] = ".nii",
) -> None:
    """Measure the peak memory of reading and detecting a volume, in MB beyond the program itself."""
    table = Table(*HEADINGS, title=f"{suffix}; MB beyond the program")
    home = tempfile.TemporaryDirectory()
    detector = Path(home.name) / "detector"
    fit(normal=[small_head()], shots=4, epochs=1).save(detector)
    for size in megabytes or (64, 128, 256):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"head{suffix}"
            make_head(path, size * 1_000_000)
            command = [sys.executable, "-m", "benchmarks.memory_of", str(path), str(detector)]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        row = json.loads(done.stdout.splitlines()[-1])
        table.add_row(str(size), " x ".join(map(str, row["shape"])), *(f"{row[key]:.0f}" for key in KEYS))
    Console(width=140).print(table)


def small_head() -> Volume:
    """Return twenty slices of noise with air beside it."""
    array = np.random.default_rng(0).integers(1, 900, (256, 256, 20)).astype(np.int16)
    array[:40] = 0
    return Volume(array, np.eye(4), name="small")


def make_head(path: Path, size: int) -> None:
    """Write a noisy ball of `size` bytes, int16, slice by slice."""
    shape = (SIDE, SIDE, max(1, size // (2 * SIDE * SIDE)))
    header = nib.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(np.int16)
    header.set_sform(np.diag((0.2, 0.2, 200 / shape[2], 1)), code=1)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    rng = np.random.default_rng(0)
    x = np.linspace(-1, 1, SIDE)
    flat = x[:, None] ** 2 + x**2
    with Opener(str(path), "wb") as stream:
        stream.write(header.binaryblock + bytes(4))
        for z in np.linspace(-0.9, 0.9, shape[2]):
            tissue = 600 + 60 * rng.standard_normal(flat.shape, dtype=np.float32)
            stream.write(np.where(flat + z * z < 0.8, tissue, 0).astype(np.int16).tobytes())


def peak() -> float:
    """Return the most memory that this process has held since `start_peak`, in MB."""
    return _status("VmHWM")


def start_peak() -> float:
    """Reset the peak; return the memory held now, in MB. Linux only."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(key: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1e3


if __name__ == "__main__":
    typer.run(main)
