"""A cohort on more machines than there are: a simulation of discrete events, fed with measured times.

    python -m benchmarks.cohort_simulation [FIGURES] [--gpu-speed 20] [--network 1250] [--storage 1000] [--page FILE]

FIGURES is what `benchmarks.cohort_scale --json` wrote; by default those of the documentation. What is simulated is what
`medclipad cohort` does: a driver hands out scans one by one; a worker holds three of them; one is read and one is
written while another one is on its device; reading and writing take a core, and so does detecting without a GPU. Files
come from one storage over one network, each of which moves one file at a time at its full rate. Each
scan takes one of the times that were measured, with one thread, all of them as often.

**Measured**: seconds to read, detect and write, bytes, the driver's time for a scan. **Assumed**, each an option: the
rates of network and storage, the cores for each worker, and what a GPU makes of detecting: no GPU was measured.
"""

from __future__ import annotations

import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, median
from typing import Annotated, Any, Literal

import numpy as np
import simpy
import typer

from benchmarks.cohort_scale import BYTES, STAGES
from benchmarks.pages import markdown_table, replace_between
from medclipad.cohort.worker import AT_ONCE

MARKS = ("<!-- tables of benchmarks.cohort_simulation -->", "<!-- end of the simulation -->")
FIGURES = Path(__file__).with_name("cohort_scale.json")
"""What was measured for the documentation."""
WORKERS = (1, 4, 16, 64, 256)
SCANS_EACH = 60  # for each worker: starting and ending then take little of the time
SATURATED = 0.9  # share of the time that a part is busy, from which it is said to be what limits


@dataclass(frozen=True)
class Times:
    """What a scan takes, as measured.

    Attributes
    ----------
    read, encode, write
        Seconds of some scans, on one core.
    bytes_in, bytes_out
        Read and written for a scan.
    driver
        Seconds of the driver for a scan.
    """

    read: Sequence[float]
    encode: Sequence[float]
    write: Sequence[float]
    bytes_in: float
    bytes_out: float
    driver: float

    @classmethod
    def of(cls, figures: dict[str, Any], size: Literal["small", "full"]) -> Times:
        """Return the times of small or full-size volumes in what `benchmarks.cohort_scale` wrote."""
        found = figures["stages"][size]
        driver = median(run["driver_per_scan"] for run in figures["runs"]["rows"])
        return cls(**{name: found[name] for name in (*STAGES, *BYTES)}, driver=driver)


@dataclass(frozen=True)
class Site:
    """Where workers run.

    Attributes
    ----------
    workers
        Number of workers.
    cores
        Cores for each worker, or for all of them together.
    gpu_speed
        How many times as fast as one core a GPU detects; None: workers have none.
    network, storage
        Bytes a second that all of them share.
    together
        Whether they share the cores of one machine.
    """

    workers: int
    cores: int = 2
    gpu_speed: float | None = None
    network: float = 1250e6
    storage: float = 1000e6
    together: bool = False

    @property
    def all_cores(self) -> int:
        """Number of cores of all workers."""
        return self.cores if self.together else self.cores * self.workers


@dataclass(frozen=True)
class Outcome:
    """What a simulation found.

    Attributes
    ----------
    rate
        Scans a second.
    busy
        Share of the time that each part is busy, by its name.
    """

    rate: float
    busy: dict[str, float]

    @property
    def limit(self) -> str:
        """The part that limits, or the busiest one, with how busy it is."""
        name, share = max(self.busy.items(), key=lambda part: part[1])
        return f"{name} ({share:.0%})" if share >= SATURATED else f"none; {name} most ({share:.0%})"


class Simulation:
    """One run of a cohort.

    Parameters
    ----------
    times
        What a scan takes.
    site
        Where it runs.
    seed
        Of the times that are drawn.
    """

    def __init__(self, times: Times, site: Site, seed: int = 0) -> None:
        self._times, self._site = times, site
        self._order, self._drawn = np.random.default_rng(seed), dict[str, list[float]]()
        self._world = simpy.Environment()
        self._parts = {name: simpy.Resource(self._world) for name in ("driver", "network", "storage")}
        machines = [simpy.Resource(self._world, site.cores) for _ in range(1 if site.together else site.workers)]
        self._cores = machines * site.workers if site.together else machines
        self._devices = [simpy.Resource(self._world) for _ in range(site.workers)]
        self._used = dict.fromkeys((*self._parts, "cores", "GPUs" if site.gpu_speed else "devices"), 0.0)
        self._left = 0

    def run(self, scans: int | None = None) -> Outcome:
        """Return rate and use of all parts for so many scans, by default 60 for each worker."""
        scans = self._left = scans or SCANS_EACH * self._site.workers
        for worker in range(self._site.workers):
            for _ in range(AT_ONCE):
                self._world.process(self._slot(worker))
        self._world.run()
        seconds, workers = self._world.now, self._site.workers
        many = {"cores": self._site.all_cores, "GPUs": workers, "devices": workers}
        busy = {name: used / seconds / many.get(name, 1) for name, used in self._used.items()}
        if "devices" in busy:
            busy["workers"] = busy.pop("devices")  # without a GPU it is the one process that detects
        return Outcome(scans / seconds, busy)

    def _slot(self, worker: int) -> Generator[simpy.Event, Any, None]:
        """Take scans until none is left: what one of a worker's three threads does."""
        times, site = self._times, self._site
        while self._left:
            self._left -= 1
            yield from self._take("driver", self._parts["driver"], times.driver)
            yield from self._move(times.bytes_in)
            yield from self._take("cores", self._cores[worker], self._seconds("read"))
            with self._devices[worker].request() as device:
                yield device
                seconds = self._seconds("encode")
                if site.gpu_speed:
                    yield from self._take("GPUs", None, seconds / site.gpu_speed)
                else:
                    start = self._world.now
                    yield from self._take("cores", self._cores[worker], seconds)
                    self._used["devices"] += self._world.now - start
            yield from self._take("cores", self._cores[worker], self._seconds("write"))
            yield from self._move(times.bytes_out)

    def _move(self, size: float) -> Generator[simpy.Event, Any, None]:
        yield from self._take("storage", self._parts["storage"], size / self._site.storage)
        yield from self._take("network", self._parts["network"], size / self._site.network)

    def _take(self, name: str, part: simpy.Resource | None, seconds: float) -> Generator[simpy.Event, Any, None]:
        """Wait for a part and use it for some time; None is a part that is held already."""
        if part is None:
            yield self._world.timeout(seconds)
        else:
            with part.request() as turn:
                yield turn
                yield self._world.timeout(seconds)
        self._used[name] += seconds

    def _seconds(self, stage: str) -> float:
        """Return a measured time of a stage: all of them in some order, then all again in another."""
        left = self._drawn.setdefault(stage, [])
        if not left:
            left += self._order.permutation(getattr(self._times, stage)).tolist()
        return left.pop()


def bound(times: Times, site: Site) -> float:
    """Return the scans a second that no order of work can exceed: the least of what each part alone allows."""
    detecting = mean(times.encode) / (site.gpu_speed or 1)
    on_cores = mean(times.read) + mean(times.write) + (0 if site.gpu_speed else mean(times.encode))
    size = times.bytes_in + times.bytes_out
    return min(
        1 / times.driver,
        *(rate / size for rate in (site.network, site.storage)),
        site.workers / detecting,
        site.all_cores / on_cores,
    )


def main(
    figures: Annotated[Path, typer.Argument(help="What `benchmarks.cohort_scale --json` wrote.")] = FIGURES,
    gpu_speed: Annotated[float, typer.Option(help="Assumed: a GPU detects so many times as fast as one core.")] = 20,
    cores: Annotated[int, typer.Option(help="Assumed: cores for each worker.")] = 2,
    network: Annotated[float, typer.Option(help="Assumed: MB a second of the network, shared.")] = 1250,
    storage: Annotated[float, typer.Option(help="Assumed: MB a second of the storage, shared.")] = 1000,
    page: Annotated[Path | None, typer.Option(help="Markdown page whose tables to replace.")] = None,
) -> None:
    """Simulate cohorts on 1 to 256 workers, with and without GPUs, and print tables."""
    found = json.loads(figures.read_text(encoding="utf-8"))
    site = Site(1, cores, None, network * 1e6, storage * 1e6)
    parts = ["On the machine that was measured, as a check:", markdown_table(CHECK_HEADINGS, check(found))]
    times = Times.of(found, "full")
    for speed, title in ((None, "Without GPU"), (gpu_speed, f"With a GPU each, assumed {gpu_speed:g} times one core")):
        rows = []
        for workers in WORKERS:
            own = replace(site, workers=workers, gpu_speed=speed)
            outcome = Simulation(times, own).run()
            rows.append([str(workers), f"{3600 * outcome.rate:.0f}", f"{3600 * bound(times, own):.0f}", outcome.limit])
        parts += [f"{title}, volumes of 192 x 224 x 160 voxels:", markdown_table(HEADINGS, rows)]
    parts.append(
        f"Assumed: network {network:g} MB/s and storage {storage:g} MB/s for all, {cores} cores for each worker. "
        f"Measured: a scan is read in {mean(times.read):.2f} s, detected in {mean(times.encode):.1f} s and written in "
        f"{mean(times.write):.2f} s, moves {(times.bytes_in + times.bytes_out) / 1e6:.1f} MB, and takes the driver "
        f"{1000 * times.driver:.1f} ms."
    )
    text = "\n\n".join(parts)
    print(text)
    if page:
        replace_between(page, MARKS, f"\n{text}")


HEADINGS = ("workers", "scans an hour", "most that is possible", "what limits")
CHECK_HEADINGS = ("workers", "runs", "measured, quickest run (s a scan)", "simulated (s a scan)", "apart")


def check(figures: dict[str, Any]) -> list[list[str]]:
    """Return a row for each number of workers that was measured: the run that other jobs slowed least, simulated."""
    rows = figures["runs"]["rows"]
    cells = []
    for workers in sorted({run["workers"] for run in rows}):
        own = [run for run in rows if run["workers"] == workers]
        measured, simulated = min(run["seconds_per_scan"] for run in own), simulated_here(figures, workers)
        apart = f"{simulated / measured - 1:+.0%}"
        cells.append([str(workers), str(len(own)), f"{measured:.3f}", f"{simulated:.3f}", apart])
    return cells


def simulated_here(figures: dict[str, Any], workers: int) -> float:
    """Return the simulated seconds of a scan on the machine that was measured, whose workers share its cores."""
    cores = figures["runs"]["machine"]["cores"]
    local = Site(workers, cores, network=1e12, storage=1e12, together=True)  # files in the system's cache
    return 1 / Simulation(Times.of(figures, "small"), local).run(1000).rate


if __name__ == "__main__":
    typer.run(main)
