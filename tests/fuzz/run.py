"""Mutate small real files: each mutant must be refused in one sentence, or read as a second reader reads it.

    python -m tests.fuzz.run --mutants 100000 --seed 0

A worker process reads them with 2 GB of memory and 10 s each; if that is not enough, it is killed and restarted.
A mutant depends only on the seed and its number: `--first N --mutants 1` makes a single one again.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.fuzz.worker import FINE

LIMIT = 10.0
"""Seconds of processor time for one mutant."""

START = 60.0
"""Seconds of processor time for the imports of a worker."""


@dataclass
class Report:
    """Outcomes of mutants.

    Attributes
    ----------
    outcomes : Counter
        Number of mutants by (kind, outcome).
    faults : list of dict
        Mutants with an outcome that must not be, each with its number `n`, `kind`, `outcome` and `text`.
    seconds : float
        Longest processor time to read one.
    memory : float
        Most memory in MB to read one.
    """

    outcomes: Counter = field(default_factory=Counter)
    faults: list[dict] = field(default_factory=list)
    seconds: float = 0
    memory: float = 0

    def add(self, result: dict) -> None:
        """Count the result of one mutant."""
        self.outcomes[result["kind"], result["outcome"]] += 1
        if result["outcome"] not in FINE:
            self.faults.append(result)
        self.seconds = max(self.seconds, result.get("seconds", 0))
        self.memory = max(self.memory, result.get("memory", 0))

    def __str__(self) -> str:
        """Return the lines of a Markdown table, and the faults."""
        names = [*FINE, *sorted({outcome for _, outcome in self.outcomes} - set(FINE))]
        kinds = sorted({kind for kind, _ in self.outcomes})
        rows = [[kind, *(str(self.outcomes[kind, name]) for name in names)] for kind in kinds]
        total = ["all", *(str(sum(self.outcomes[kind, name] for kind in kinds)) for name in names)]
        table = [["mutants of", *names], ["---"] * (len(names) + 1), *rows, total]
        lines = ["| " + " | ".join(row) + " |" for row in table]
        lines += [f"{f['n']} {f['kind']}: {f['outcome']}: {f['text'][:200]}" for f in self.faults]
        count = sum(self.outcomes.values())
        lines.append(
            f"\n{count} mutants, {len(self.faults)} faults; at most {self.seconds:.1f} s and {self.memory:.0f} MB each."
        )
        return "\n".join(lines)


def run(
    mutants: int,
    seed: int = 0,
    first: int = 0,
    keep: Path | None = None,
    kinds: tuple[str, ...] = (),
    seconds: float = float("inf"),
) -> Report:
    """Read mutants and report their outcomes.

    Parameters
    ----------
    mutants
        How many to read.
    seed
        Seed of all of them.
    first
        Number of the first one.
    keep
        Folder to which the files of faults are copied.
    kinds
        Kinds of files to mutate; all if empty.
    seconds
        No mutant is begun after this time.
    """
    report = Report()
    until = time.monotonic() + seconds
    with tempfile.TemporaryDirectory(prefix="medclipad-fuzz-") as home:
        at, last = first, first + mutants
        while at < last and time.monotonic() < until:
            for result in _work(Path(home), seed, at, last, kinds):
                at = result["n"] + 1
                report.add(result)
                if result["outcome"] not in FINE and keep is not None:
                    kept = Path(home) / "kept" / str(result["n"])
                    folder = keep / f"{seed}-{result['n']}-{result['kind']}"
                    _keep(kept if kept.is_dir() else Path(home) / "in", folder, result)
                if time.monotonic() > until:
                    break
    return report


def _work(home: Path, seed: int, first: int, last: int, kinds: tuple[str, ...]):
    """Yield the results of one worker process, until it is done or dies."""
    command = [sys.executable, "-m", "tests.fuzz.worker", str(home), str(seed), str(first), str(last), *kinds]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(home)}
    with open(home / "stderr.txt", "wb") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment)
    assert process.stdout is not None
    now, text = None, b""
    try:
        while True:
            if not _reports(process, START if now is None else LIMIT):  # the first message comes after the imports
                if now is None:
                    raise RuntimeError("the worker does not start")
                hung = "hang" if now["stage"] == "read" else "read by us alone"  # the second reader may hang
                yield {**now, "outcome": hung, "text": f"over {LIMIT:g} s"}
                return
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                break
            *lines, text = (text + data).split(b"\n")
            for line in lines:
                message = json.loads(line)
                if message["stage"] == "done":
                    yield message
                    now = {**message, "stage": "between"}
                else:
                    now = message
    finally:
        process.kill()
        process.wait()
    if process.returncode and now is None:
        raise RuntimeError((home / "stderr.txt").read_text()[-2000:])
    if now is not None and now["stage"] in ("read", "compare"):
        name = signal.Signals(-process.returncode).name if process.returncode < 0 else str(process.returncode)
        crashed = "crash" if now["stage"] == "read" else "read by us alone"
        yield {**now, "outcome": crashed, "text": name + (home / "stderr.txt").read_text(errors="replace")[-300:]}


def _reports(process: subprocess.Popen, limit: float) -> bool:
    """Return whether the worker reports within `limit` seconds of its processor time, or 60 times that of ours."""
    worker = psutil.Process(process.pid)
    start, began = sum(worker.cpu_times()[:2]), time.monotonic()
    assert process.stdout is not None
    while not select.select([process.stdout], [], [], limit / 4)[0]:
        if sum(worker.cpu_times()[:2]) - start > limit or time.monotonic() - began > 60 * limit:
            return False
    return True


def _keep(source: Path, folder: Path, result: dict) -> None:
    """Copy the files of a fault, with its outcome."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(source, folder)
    (folder / "outcome.json").write_text(json.dumps(result, indent=1))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutants", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutant")
    parser.add_argument("--keep", type=Path, help="folder for the files of faults")
    parser.add_argument("--kind", action="append", default=[], help="only this kind of file; repeat for more")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no mutant after this time")
    chosen = parser.parse_args()
    began = time.monotonic()
    report = run(chosen.mutants, chosen.seed, chosen.first, chosen.keep, tuple(chosen.kind), chosen.minutes * 60)
    print(report)
    print(f"In {time.monotonic() - began:.0f} s.")
    sys.exit(1 if report.faults else 0)


if __name__ == "__main__":
    main()
