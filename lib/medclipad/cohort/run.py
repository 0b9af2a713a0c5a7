"""Run a cohort on Ray: hand scans to workers, survive their deaths, and go on where an earlier run ended."""

from __future__ import annotations

import json
import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ray
from filelock import FileLock, Timeout
from ray.exceptions import RayActorError, RayTaskError

from medclipad import files
from medclipad.cohort.listing import Scan
from medclipad.cohort.table import JOURNAL, Journal, Row
from medclipad.cohort.worker import AT_ONCE, Worker, WorkerSettings
from medclipad.detection.storage import read_info
from medclipad.errors import MedCLIPADError
from medclipad.export.result_files import write_json
from medclipad.volume.progress import Progress, no_progress

SETTINGS, LOCK = "cohort.json", ".lock"
TRIES = 5  # of a scan whose worker died with it, the later ones alone; and of a worker that dies while it starts
OBJECT_STORE = 80 * 2**20  # bytes, about Ray's least: scans are read where they are analysed, and nothing is shared
_LOCAL = "127.0.0.1"  # a machine of its own listens to nobody else


@dataclass(frozen=True)
class Cluster:
    """Where workers run.

    Attributes
    ----------
    address
        Of a Ray cluster to join, whose machines see the files under the same paths; None starts Ray here.
    workers
        Number of workers; None takes one for each GPU or, without any, one for each machine.
    """

    address: str | None = None
    workers: int | None = None


@dataclass
class Outcome:
    """What a run did.

    Attributes
    ----------
    rows
        A row for each scan.
    kept
        How many of them earlier runs had finished.
    """

    rows: list[Row] = field(default_factory=list)
    kept: int = 0


def run_cohort(
    scans: Sequence[Scan],
    settings: WorkerSettings,
    cluster: Cluster | None = None,
    retry: bool = False,
    progress: Progress = no_progress,
) -> Outcome:
    """Analyse all scans that no earlier run has finished, and return the rows of all.

    A scan is finished when its row is in the journal, which is the last file written of it. So whatever ends a run,
    the next one keeps what was finished and does the rest.

    Parameters
    ----------
    scans
        The scans, of different names.
    settings
        How they are analysed.
    cluster
        Where; by default on this machine.
    retry
        Whether to analyse those again that failed.
    progress
        Called as progress("cohort", finished, scans, {"note": rate and time left}).

    Raises
    ------
    MedCLIPADError
        If another run works in the same folder, an earlier one had other settings, results cannot be written, or
        workers die as soon as they start.
    """
    out = settings.out
    with _own(out):
        _require_same(out, settings)
        for folder in {path.parent for path in out.rglob(".part-*")}:
            files.remove_leftovers(folder)
        journal = Journal(out)
        rows: dict[str, Row] = {}
        for scan in scans:
            row = journal.read(scan)
            if row and retry and row.status == "failed":
                journal.remove(row)
            elif row:
                rows[scan.name] = row
        left = [scan for scan in scans if scan.name not in rows]
        outcome = Outcome(kept=len(rows))
        report = _Rate(progress, len(scans), len(rows))
        if left:
            with _ray(cluster or Cluster()) as workers:
                for row in _Dispatch(workers, settings, journal).rows(left):
                    rows[row.name] = row
                    report.finished(row)
        outcome.rows = [rows[scan.name] for scan in scans]
        return outcome


@contextmanager
def _own(out: Path) -> Iterator[None]:
    """Make the folder of the results and hold it for this run; the system lets it go when the process ends."""
    lock = FileLock(out / LOCK, timeout=0)
    try:
        (out / JOURNAL).mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise MedCLIPADError(f"Another run works in {out}: wait for it, or choose another folder.") from error
    except OSError as error:
        raise MedCLIPADError(f"{out} cannot be written ({error.strerror}): choose another folder.") from error
    try:
        yield
    finally:
        lock.release()


def _require_same(out: Path, settings: WorkerSettings) -> None:
    """Raise MedCLIPADError if results of other settings are in a folder."""
    reading = settings.reading
    same = {
        "detectors": [read_info(path).weights_sha256 for path in settings.detectors],
        "layout": settings.layout,
        "plane": settings.plane,
        "false_regions_per_scan": settings.rate,
        "force_modality": settings.force_modality,
        "component": reading.component,
        "tilt": reading.tilt,
        "precision": settings.precision,
    }
    file = out / SETTINGS
    if not file.exists():
        write_json(file, same)
        return
    try:
        earlier = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MedCLIPADError(f"{file} cannot be read: choose another folder, or restore a copy.") from error
    other = sorted(key for key in same if earlier.get(key) != same[key])
    if other:
        raise MedCLIPADError(
            f"{out} holds results of a run with other settings ({', '.join(other)}): choose another folder."
        )


@contextmanager
def _ray(cluster: Cluster) -> Iterator[_Pool]:
    """Start Ray here or join a cluster, and yield where to start workers."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing about patients' machines is sent anywhere
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if cluster.address is None:
        options |= {"address": "local", "include_dashboard": False, "object_store_memory": OBJECT_STORE}
        options["_node_ip_address"] = _LOCAL
    else:
        options["address"] = cluster.address
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises plain ones too, as on a machine too busy to start it in 30 s
        where = f"The Ray cluster {cluster.address} does not answer" if cluster.address else "Ray does not start here"
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise MedCLIPADError(f"{where} ({reason}): check it, or close other programs, and try again.") from error
    try:
        yield _Pool.planned(cluster.workers)
    finally:
        ray.shutdown()


@dataclass(frozen=True)
class _Pool:
    """How many workers there are, and what each may use."""

    workers: int
    cpus: float
    gpus: float

    @classmethod
    def planned(cls, wanted: int | None) -> _Pool:
        """Share what Ray has among the workers that are wanted, or one for each GPU, or one for each machine."""
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        workers = wanted or gpus or len(nodes)
        here = -(-workers // len(nodes))  # on the busiest machine
        cpus = min(int(node.get("CPU", 1)) for node in nodes)
        on_a_gpu = -(-workers // gpus) if gpus else 0
        return cls(workers, cpus // here if cpus >= here else _share(cpus / here), _share(1 / on_a_gpu) if gpus else 0)

    def start(self, settings: WorkerSettings) -> Any:
        """Return a worker that has loaded its detectors; raise MedCLIPADError if it cannot."""
        failure = ""
        for _ in range(TRIES):
            options = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_concurrency": AT_ONCE}
            worker = ray.remote(Worker).options(**options).remote(settings)
            try:
                ray.get(worker.load.remote())
                return worker
            except RayTaskError as error:
                raise _cause(error) from error
            except RayActorError as error:
                failure = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise MedCLIPADError(f"Workers die while they start ({failure}): free some memory, or give fewer --workers.")


def _share(part: float) -> float:
    """Return a part of a core or GPU, rounded down to what Ray tells apart."""
    return int(part * 10_000) / 10_000


def _cause(error: RayTaskError) -> Exception:
    """Return what a worker raised, if it is a sentence for the user."""
    return error.cause if isinstance(error.cause, MedCLIPADError) else error


class _Dispatch:
    """Give scans to workers, those again whose worker died."""

    def __init__(self, pool: _Pool, settings: WorkerSettings, journal: Journal) -> None:
        self._pool, self._settings, self._journal = pool, settings, journal
        self._workers: list[Any] = []
        self._flying: dict[Any, tuple[Scan, int]] = {}  # by what Ray promises
        self._alone: deque[Scan] = deque()  # to be tried when nothing else is in work
        self._deaths: Counter[str] = Counter()  # of workers, by the scans that were in them

    def rows(self, scans: Sequence[Scan]) -> Iterator[Row]:
        """Yield the rows of scans as they are finished."""
        queue = deque(scans)
        with ThreadPoolExecutor() as starting:  # each waits until its detectors are loaded
            many = min(self._pool.workers, len(scans))
            self._workers = list(starting.map(self._pool.start, [self._settings] * many))
        while queue or self._flying or self._alone:
            self._fill(queue)
            for promise in ray.wait(list(self._flying), num_returns=1)[0]:
                yield from self._landed(promise)

    def _fill(self, queue: deque[Scan]) -> None:
        for number in range(len(self._workers)):
            while queue and sum(at == number for _, at in self._flying.values()) < AT_ONCE:
                self._give(queue.popleft(), number)
        if not self._flying and self._alone:
            self._give(self._alone.popleft(), 0, alone=True)

    def _give(self, scan: Scan, number: int, alone: bool = False) -> None:
        self._flying[self._workers[number].analyse.remote(scan, alone)] = scan, number

    def _landed(self, promise: Any) -> list[Row]:
        """Return the row of what was promised; none if the scan is to be tried alone, several if a worker has died."""
        scan, number = self._flying.pop(promise)
        try:
            found: Row | None = ray.get(promise)
        except RayActorError:
            lost = [scan, *(other for other, at in self._flying.values() if at == number)]
            self._flying = {promise: entry for promise, entry in self._flying.items() if entry[1] != number}
            self._workers[number] = self._pool.start(self._settings)
            return [row for each in lost if (row := self._lost(each))]
        except RayTaskError as error:
            raise _cause(error) from error
        if found is None:
            self._alone.append(scan)
            return []
        return [found]

    def _lost(self, scan: Scan) -> Row | None:
        """Return the row of a scan whose worker died: what it wrote, or that it failed, or none to try it alone."""
        if row := self._journal.read(scan):
            return row
        self._deaths[scan.name] += 1
        if self._deaths[scan.name] < TRIES:
            self._alone.append(scan)
            return None
        error = (
            f"{scan.name}: the program that analysed it ended {TRIES} times, as when memory is full; use a machine "
            "with more memory, or crop it."
        )
        row = Row.of(scan).model_copy(update={"status": "failed", "error": error})
        self._journal.write(row)
        return row


class _Rate:
    """Say how many scans are finished, how fast, and how long the rest takes."""

    def __init__(self, progress: Progress, total: int, kept: int) -> None:
        self._progress, self._total, self._kept = progress, total, kept
        self._start, self._new, self._failed = time.monotonic(), 0, 0
        progress("cohort", kept, total, {"note": f"{kept} kept" if kept else ""})

    def finished(self, row: Row) -> None:
        """Count a row."""
        self._new += 1
        self._failed += row.status == "failed"
        rate = self._new / max(time.monotonic() - self._start, 1e-3)
        left = (self._total - self._kept - self._new) / rate
        failed = f", {self._failed} failed" if self._failed else ""
        note = f"{60 * rate:.1f} a minute, {left / 60:.0f} min left{failed}"
        self._progress("cohort", self._kept + self._new, self._total, {"note": note})
