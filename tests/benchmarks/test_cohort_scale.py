"""What the benchmark of cohorts measures, and how its tables are made of it."""

from __future__ import annotations

import json

import numpy as np

from benchmarks.cohort_scale import make_volumes, report, stages
from benchmarks.cohort_simulation import FIGURES
from medclipad.volume import read_volume


def test_stages_are_timed_one_by_one(cohort_detector, tmp_path):
    files = make_volumes(tmp_path / "volumes", 3, (24, 24, 12))
    found = stages(cohort_detector, files, tmp_path / "out")
    assert all(len(found[stage]) == 3 and min(found[stage]) >= 0 for stage in ("read", "encode", "write"))
    assert sum(found["encode"]) > 0, "clocks of processor time tick every 10 ms"
    assert found["bytes_in"] == round(sum(file.stat().st_size for file in files) / 3)
    assert found["bytes_out"] > 0 and len(list((tmp_path / "out").glob("*_anomaly.nii.gz"))) == 3
    arrays = [read_volume(file).array for file in files]
    assert not np.array_equal(arrays[0], arrays[1]), "each volume is its own"


def test_tables_hold_the_median_of_runs_and_of_ratios_within_rounds():
    row = {"seconds": 9, "driver_per_scan": 0.003, "driver_mb": 560, "worker_mb": 500, "machine_busy_cores": 2.0}
    times = [(1, 0.4), (2, 0.1), (1, 0.6), (2, 0.3), (1, 0.5), (2, 0.2)]
    rows = [
        {"volumes": 100, "workers": workers, "seconds_per_scan": seconds, "worker_cpu_per_scan": 0.2, **row}
        for workers, seconds in times
    ]
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    figures["runs"]["rows"] = rows
    text = report(figures)
    assert "| 100 | 1 | 3 | 0.500 | 7200 | 1.00 |" in text
    assert "| 100 | 2 | 3 | 0.200 | 18000 | 2.50 |" in text, "ratios 4, 2 and 2.5"
    assert text.count("| files |") == text.count("| memory |") == 3


def test_the_peak_of_a_fit_on_files_is_flat():
    """In what the documentation shows; tests/detection/test_fit_memory.py measures it anew."""
    rows = json.loads(FIGURES.read_text(encoding="utf-8"))["fits"]["rows"]
    peaks = {(row["given"], row["volumes"]): row["peak_mb"] for row in rows}
    assert peaks["files", 200] < 1.05 * peaks["files", 10]
    assert peaks["memory", 200] > 1.2 * peaks["memory", 10], "volumes in memory are seen"
