"""How a cohort scales: memory of a fit by its volumes; time and memory of `medclipad cohort` by volumes and workers.

    python -m benchmarks.cohort_scale --json FILE [--page docs/explanation/scale.md]
    python -m benchmarks.cohort_scale --json FILE --only runs --volumes 10000 --workers 2

Volumes are noisy balls, int16. Fits: 96 x 96 x 40 voxels, given as files and, beside that, held in memory, each in a
process of its own. Runs: 64 x 64 x 24 voxels, one thread a worker; all numbers of workers in turn, several times. The
seconds of a scan are those from the first finished scan to the last: starting Ray does not count. Stages: processor
time of reading, detecting and writing in this process, on volumes of the runs and on some of full size (192 x 224 x 160
voxels, three planes, 320 pixels), which `benchmarks.cohort_simulation` needs. Parts that are not measured stay as they
are in FILE.
"""

from __future__ import annotations

import json as json_format
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any, Literal

import numpy as np
import psutil
import typer

from benchmarks.cohort_scale_of import OPTIONS
from benchmarks.machine import machine
from benchmarks.pages import markdown_table, replace_between
from medclipad.cohort.listing import Scan
from medclipad.cohort.outputs import Layout, write_outputs
from medclipad.detection.cases import AS_IS
from medclipad.detection.detector import load_detector
from medclipad.detection.fit import fit
from medclipad.export.result_files import write_json
from medclipad.volume import Volume, write_volume

MARKS = ("<!-- tables of benchmarks.cohort_scale -->", "<!-- end of tables -->")
FIT_SHAPE, COHORT_SHAPE = (96, 96, 40), (64, 64, 24)
STAGES, BYTES = ("read", "encode", "write"), ("bytes_in", "bytes_out")
SIZES: dict[str, tuple[tuple[int, int, int], int, dict[str, Any]]] = {
    "small": (COHORT_SHAPE, 20, OPTIONS),
    "full": ((192, 224, 160), 3, {"planes": "all", "shots": 32}),
}
"""Volumes whose reading, detecting and writing are timed: their voxels, how many, and the options of the detector."""
_LOOK = 0.5  # seconds between two looks at the processes of a run
Part = Literal["fits", "runs", "stages"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def main(
    json: Annotated[Path, typer.Option(help="File for the figures.")],
    only: Annotated[Part | None, typer.Option(help="The one part to measure; default: all.")] = None,
    fit_volumes: Annotated[list[int], typer.Option("--fit", help="Volumes of each fit.")] = [10, 50, 200],  # noqa: B006
    volumes: Annotated[list[int], typer.Option(help="Volumes of each run.")] = [100, 1000],  # noqa: B006
    workers: Annotated[list[int], typer.Option(help="Workers of each run.")] = [1, 2],  # noqa: B006
    repeats: Annotated[int, typer.Option(help="Runs of the smallest cohort with each number of workers.")] = 3,
    page: Annotated[Path | None, typer.Option(help="Markdown page whose tables to replace.")] = None,
) -> None:
    """Measure how fits and cohorts scale, and print tables."""
    figures: dict[str, Any] = json_format.loads(json.read_text(encoding="utf-8")) if json.is_file() else {}
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        if only in (None, "fits"):
            rows = [row for count in fit_volumes for row in fits(home / f"fit-{count}", count)]
            figures["fits"] = {"machine": machine(), "rows": rows}
        if only in (None, "runs"):
            figures["runs"] = {"machine": machine(), "rows": runs(home, sorted(volumes), workers, repeats)}
        if only in (None, "stages"):
            figures["stages"] = {"machine": machine()}
            for size, (shape, scans, options) in SIZES.items():
                normal = make_volumes(home / f"normal-{size}", 2, COHORT_SHAPE, seed=10**6)
                fit(normal=normal, **options).save(home / f"detector-{size}")
                files = make_volumes(home / size, scans, shape)
                figures["stages"][size] = stages(home / f"detector-{size}", files, home / f"out-{size}")
    write_json(json, figures)
    text = report(figures)
    print(text)
    if page:
        replace_between(page, MARKS, f"\n{text}")


def make_volumes(folder: Path, count: int, shape: tuple[int, int, int], seed: int = 0) -> list[Path]:
    """Write noisy balls, each of its own, and return their files."""
    folder.mkdir()
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)
    inside, files = x**2 + y**2 + z**2 < 0.8, []
    for number in range(count):
        noise = np.random.default_rng(seed + number).standard_normal(shape, dtype=np.float32)
        array = np.where(inside, 500 + 60 * noise, 0).astype(np.int16)
        spacing = np.diag((*(180 / length for length in shape), 1.0))
        files.append(folder / f"ball-{number:05}.nii.gz")
        write_volume(Volume(array, spacing), files[-1])
    return files


def fits(folder: Path, count: int) -> list[dict[str, Any]]:
    """Return peak and seconds of a fit on so many volumes, as files and in memory."""
    make_volumes(folder, count, FIT_SHAPE)
    rows = []
    for how in ("files", "memory"):
        command = [sys.executable, "-m", "benchmarks.cohort_scale_of", str(folder), how]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=ENVIRONMENT)
        rows.append({"volumes": count, "given": how, **json_format.loads(done.stdout.splitlines()[-1])})
        print(rows[-1], file=sys.stderr)
    return rows


def stages(detector: Path, files: Sequence[Path], out: Path) -> dict[str, Any]:
    """Return the processor seconds that reading, detecting and writing take, of each scan, and its bytes.

    With one thread they are the time on an idle core, whatever other jobs do.
    """
    loaded = load_detector(detector)
    loaded.detect(Scan("first", str(files[0])).read(AS_IS))  # what the first scan does alone
    seconds, own = {stage: list[float]() for stage in STAGES}, psutil.Process()
    for number, file in enumerate(files):
        scan, times = Scan(f"s{number}", str(file)), [_processor_seconds(own)]
        volume = scan.read(AS_IS)
        times.append(_processor_seconds(own))
        result = loaded.detect(volume)
        times.append(_processor_seconds(own))
        write_outputs(out, Layout.FLAT, scan, volume, result, None)
        times.append(_processor_seconds(own))
        for name, start, end in zip(STAGES, times, times[1:], strict=False):
            seconds[name].append(round(end - start, 4))
    written = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    sizes = {"bytes_in": sum(file.stat().st_size for file in files), "bytes_out": written}
    return {**seconds, **{name: round(size / len(files)) for name, size in sizes.items()}}


def runs(home: Path, volumes: Sequence[int], workers: Sequence[int], repeats: int) -> list[dict[str, Any]]:
    """Return runs of cohorts: rounds of all numbers of workers, several of the smallest cohort."""
    detector, folders = home / "detector", {count: home / f"cohort-{count}" for count in volumes}
    fit(normal=make_volumes(home / "normal", 8, COHORT_SHAPE, seed=10**6), **OPTIONS).save(detector)
    rows = []
    for number, (count, folder) in enumerate(folders.items()):
        make_volumes(folder, count, COHORT_SHAPE)
        for repeat in range(repeats if number == 0 else 1):
            for many in workers:
                out = home / f"out-{count}-{many}-{repeat}"
                rows.append({"volumes": count, "workers": many, **run(detector, folder, out, many)})
    return rows


def run(detector: Path, folder: Path, out: Path, workers: int) -> dict[str, Any]:
    """Run a cohort; return the seconds of a scan, what other jobs took, and the peaks of driver and workers."""
    command = [sys.executable, "-m", "medclipad", "cohort", str(detector), str(folder), "--out", str(out)]
    command += ["--layout", "flat", "--workers", str(workers)]
    busy, start = _Used(), time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
    watched = _Watched(process.pid, out)
    while process.poll() is None:
        watched.look()
        time.sleep(_LOOK)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed.")
    finished = sorted(file.stat().st_mtime for file in (out / "journal").glob("[!.]*.json"))
    scans = len(finished) - 1
    driver, worker = watched.per_scan()
    row = {
        "seconds_per_scan": round((finished[-1] - finished[0]) / scans, 4),
        "seconds": round(time.monotonic() - start, 1),
        "driver_per_scan": round(driver, 5),
        "driver_mb": round(watched.driver_mb),
        "worker_mb": round(watched.worker_mb),
        "worker_cpu_per_scan": round(worker, 4),
        "machine_busy_cores": round(busy.cores(), 2),
    }
    print({"volumes": len(finished), "workers": workers, **row}, file=sys.stderr)
    return row


class _Watched:
    """Peaks and processor time of the processes of a run."""

    def __init__(self, pid: int, out: Path) -> None:
        self._driver, self._journal = psutil.Process(pid), out / "journal"
        self._workers: list[psutil.Process] = []
        self._seen: list[tuple[int, float, float]] = []  # finished scans, processor seconds of driver and workers
        self.driver_mb = self.worker_mb = 0.0

    def look(self) -> None:
        """Look at all processes once; one that ends meanwhile is left as it was."""
        try:
            scans = sum(1 for _ in self._journal.glob("[!.]*.json"))
            self.driver_mb = max(self.driver_mb, _peak_mb(self._driver.pid))
            if not scans:
                return
            if not self._workers:
                children = self._driver.children(recursive=True)
                self._workers = [one for one in children if " ".join(one.cmdline()).startswith("ray::Worker")]
            self.worker_mb = max([self.worker_mb, *(_peak_mb(one.pid) for one in self._workers)])
            worker = sum(map(_processor_seconds, self._workers))
            self._seen.append((scans, _processor_seconds(self._driver), worker))
        except (psutil.Error, OSError):
            return

    def per_scan(self) -> tuple[float, float]:
        """Return the processor seconds of driver and workers for a scan, without what comes before and after them."""
        during = [seen for seen in self._seen if seen[0] < self._seen[-1][0]]
        (first, *start), (last, *end) = during[0], during[-1]
        driver, worker = ((after - before) / (last - first) for before, after in zip(start, end, strict=True))
        return driver, worker


class _Used:
    """Cores of the machine that were busy since this was made, with ours and others' jobs."""

    def __init__(self) -> None:
        self._before, self._start = psutil.cpu_times(), time.monotonic()

    def cores(self) -> float:
        """Return how many cores were busy on average."""
        now = psutil.cpu_times()
        busy = sum(now) - sum(self._before) - (now.idle - self._before.idle) - (now.iowait - self._before.iowait)
        return busy / (time.monotonic() - self._start)


def _processor_seconds(process: psutil.Process) -> float:
    """Return the processor time of a process and of the reader processes that it started."""
    times = process.cpu_times()
    readers = [one.cpu_times() for one in process.children() if "reader_child" in " ".join(one.cmdline())]
    return times.user + times.system + sum(each.user + each.system for each in readers)


def _peak_mb(pid: int) -> float:
    """Return the most memory that a process has held, in MB; 0 of one that has ended."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next((int(line.split()[1]) / 1e3 for line in lines if line.startswith("VmHWM:")), 0.0)


def report(figures: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    parts = []
    if "fits" in figures:
        cells = [
            [str(row["volumes"]), row["given"], str(row["peak_mb"]), f"{row['seconds']:.0f}"]
            for row in figures["fits"]["rows"]
        ]
        parts += [_where("Fits", figures["fits"])]
        parts += [markdown_table(["volumes", "given as", "peak of the process (MB)", "seconds"], cells)]
    if "runs" in figures:
        parts += [_where("Runs", figures["runs"]), markdown_table(RUN_HEADINGS, _run_rows(figures["runs"]["rows"]))]
    if "stages" in figures:
        titles = {"small": "64 x 64 x 24, one plane, 64 pixels", "full": "192 x 224 x 160, three planes, 320 pixels"}
        cells = []
        for size, title in titles.items():
            found = figures["stages"][size]
            seconds = [f"{mean(found[name]):.3f}" for name in STAGES]
            cells.append([title, *seconds, *(f"{found[name] / 1e6:.2f}" for name in BYTES)])
        parts += [_where("Processor seconds of a scan, in one process with one thread, means", figures["stages"])]
        parts += [markdown_table(["volume", "read (s)", "detect (s)", "write (s)", "read (MB)", "written (MB)"], cells)]
    return "\n\n".join(parts)


def _where(what: str, part: dict[str, Any]) -> str:
    about = part["machine"]
    return f"{what}: {about['date']}, {about['cores']} cores of {about['processor']}, other jobs beside it."


RUN_HEADINGS = (
    *("volumes", "workers", "runs", "seconds a scan", "scans an hour", "times one worker"),
    *("CPU seconds a scan", "driver, peak (MB)", "worker, peak (MB)", "busy cores of the machine"),
)


def _run_rows(runs: Sequence[dict[str, Any]]) -> list[list[str]]:
    """Return a row for each kind of run: medians, and the median of the ratios within each round of runs."""
    rows = []
    kinds = list(dict.fromkeys((run["volumes"], run["workers"]) for run in runs))
    alone = {
        count: [run["seconds_per_scan"] for run in runs if (run["volumes"], run["workers"]) == (count, 1)]
        for count, _ in kinds
    }
    for count, workers in kinds:
        own = [run for run in runs if (run["volumes"], run["workers"]) == (count, workers)]
        ratios = [one / run["seconds_per_scan"] for one, run in zip(alone[count], own, strict=False)]
        middle = {name: median(run[name] for run in own) for name in own[0]}
        rows.append(
            [
                *(str(count), str(workers), str(len(own)), f"{middle['seconds_per_scan']:.3f}"),
                *(f"{3600 / middle['seconds_per_scan']:.0f}", f"{median(ratios):.2f}" if ratios else "–"),
                *(f"{middle['worker_cpu_per_scan']:.3f}", f"{middle['driver_mb']:.0f}", f"{middle['worker_mb']:.0f}"),
                f"{middle['machine_busy_cores']:.1f}",
            ]
        )
    return rows


if __name__ == "__main__":
    typer.run(main)
