"""The command on Ray: results of a cohort, and that kills at any time change nothing in them."""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import psutil
import pyarrow.parquet as pq
import pytest

from medclipad.volume import read_volume, write_volume

COMMAND = Path(sys.executable).with_name("medclipad")
VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")
OWN = {"seconds"}  # columns that differ between two runs


class Run:
    """The command in a process of its own, with all that it starts."""

    def __init__(self, detector: Path, source: Path, out: Path, *options: str) -> None:
        self.out = out
        command = [COMMAND, "cohort", detector, source, "--out", out, *options]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            [str(part) for part in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            env=environment, start_new_session=True,
        )  # fmt: skip

    @property
    def rows(self) -> dict[str, bytes]:
        """The journal, by file."""
        return {file.name: file.read_bytes() for file in (self.out / "journal").glob("[!.]*.json")}

    def wait(self, timeout: float = 300) -> str:
        """Return what it printed; it must succeed."""
        text, _ = self.process.communicate(timeout=timeout)
        assert self.process.returncode == 0, text
        return text

    def wait_for_rows(self, count: int, timeout: float = 200) -> bool:
        """Wait until so many scans are finished; return whether it still runs then."""
        deadline = time.monotonic() + timeout
        while len(self.rows) < count and self.process.poll() is None:
            assert time.monotonic() < deadline, "no progress"
            time.sleep(0.02)
        return self.process.poll() is None

    def kill(self, what: str) -> None:
        """Kill -9 a worker, the driver, or everything, as a power cut does."""
        driver = psutil.Process(self.process.pid)
        if what == "worker":
            deadline = time.monotonic() + 120
            while not (workers := [one for one in driver.children(recursive=True) if _is_worker(one)]):
                assert self.process.poll() is None and time.monotonic() < deadline, "no worker to kill"
                time.sleep(0.05)  # it is being started again
            workers[0].kill()
            return
        for one in [driver, *(driver.children(recursive=True) if what == "machine" else [])]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        self.process.communicate(timeout=60)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return " ".join(process.cmdline()).startswith("ray::Worker")
    except psutil.Error:
        return False


def results(out: Path) -> dict[str, bytes]:
    """All files but those that tell of a run: journal, table, page."""
    return {
        file.relative_to(out).as_posix(): file.read_bytes()
        for file in sorted(out.rglob("*"))
        if file.is_file() and file.parent.name != "journal" and file.name not in ("cohort.parquet", ".lock")
    }


def table(out: Path) -> list[dict]:
    """The rows without what differs between two runs."""
    rows = pq.read_table(out / "cohort.parquet").to_pylist()
    return [{key: value for key, value in row.items() if key not in OWN} for row in rows]


@pytest.fixture(scope="module")
def unbroken(cohort, detector, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("unbroken") / "out"
    text = Run(detector, cohort, out).wait()
    assert "8 of 9 scans analysed, 1 failed" in text and "9/9" in text and "a minute" in text
    return out


def test_a_cohort_has_maps_a_table_and_a_page(unbroken, cohort):
    rows = table(unbroken)
    assert [row["rank"] for row in rows] == list(range(1, 10))
    assert {row["name"] for row in rows[:2]} == {"head7", "head8"}, "those with a blob come first"
    assert rows[-1]["name"] == "broken" and rows[-1]["error"].endswith(".")
    anomaly = nibabel.load(unbroken / "sub-head8" / "anat" / "sub-head8_desc-anomaly_probseg.nii.gz")
    mask = nibabel.load(unbroken / "sub-head8" / "anat" / "sub-head8_desc-anomaly_mask.nii.gz")
    assert (anomaly.affine == read_volume(cohort / "head8.nii.gz").affine).all()
    assert anomaly.get_fdata().max() <= 1 and set(mask.get_fdata().flat) <= {0, 1}
    sidecar = json.loads((unbroken / "sub-head8" / "anat" / "sub-head8_desc-anomaly_probseg.json").read_text())
    assert sidecar["volume_score"] == rows[[row["name"] for row in rows].index("head8")]["volume_score"]
    assert "Top findings" in (unbroken / "cohort.html").read_text()


def test_the_official_validator_accepts_the_derivatives(unbroken):
    done = subprocess.run(
        [str(VALIDATOR), "--format", "json", str(unbroken)], capture_output=True, text=True, timeout=200
    )
    issues = json.loads(done.stdout)["issues"]["issues"]
    assert [issue for issue in issues if issue.get("severity") == "error"] == [] and done.returncode == 0


def test_a_second_run_keeps_everything(unbroken, cohort, detector):
    before = {file: file.stat().st_mtime_ns for file in (unbroken / "journal").iterdir()}
    text = Run(detector, cohort, unbroken).wait()
    assert "9 of them in earlier runs" in text
    assert {file: file.stat().st_mtime_ns for file in (unbroken / "journal").iterdir()} == before


def kill_at_random(kinds: list[str], seed: int, source: Path, detector: Path, out: Path, *options: str) -> None:
    """Run a cohort to its end, with kills at random times; every finished scan must be kept as it was."""
    draw = random.Random(seed)
    finished: dict[str, bytes] = {}
    run = Run(detector, source, out, *options)
    for what in kinds:
        if not run.wait_for_rows(len(run.rows) + draw.randint(0, 2)):
            run.wait()
            run = Run(detector, source, out, *options)
            run.wait_for_rows(len(finished))
        time.sleep(draw.random() * 0.5)
        finished |= run.rows
        run.kill(what)
        if what != "worker":
            run = Run(detector, source, out, *options)
    run.wait()
    assert finished, "the kills came before anything was finished"
    assert {name: run.rows[name] for name in finished} == finished, "a finished scan was done again"


def test_kills_change_nothing(unbroken, cohort, detector, tmp_path):
    kill_at_random(["worker", "driver", "machine"], 0, cohort, detector, tmp_path / "out")
    assert results(tmp_path / "out") == results(unbroken)
    assert table(tmp_path / "out") == table(unbroken)


@pytest.mark.long
def test_twenty_kills_change_nothing(head, detector, tmp_path):
    (tmp_path / "heads").mkdir()
    for seed in range(60):
        write_volume(head(seed, seed % 5 == 0), tmp_path / "heads" / f"head{seed}.nii.gz")
    Run(detector, tmp_path / "heads", tmp_path / "unbroken").wait(1200)
    kinds = random.Random(1).choices(["worker", "driver", "machine"], k=20)
    kill_at_random(kinds, 2, tmp_path / "heads", detector, tmp_path / "out", "--workers", "2")
    assert results(tmp_path / "out") == results(tmp_path / "unbroken")
    assert table(tmp_path / "out") == table(tmp_path / "unbroken")
