"""The simulation of a cohort: it agrees with what was measured, exceeds no limit, and names what limits."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from benchmarks.cohort_simulation import FIGURES, Simulation, Site, Times, bound, check, main

TOLERANCE = 0.25  # of the measured seconds of a scan: other jobs ran beside the measurement
TIMES = Times(read=[0.5], encode=[10.0], write=[0.3], bytes_in=8e6, bytes_out=2e6, driver=0.004)


def test_one_and_two_workers_agree_with_the_measurement():
    rows = check(json.loads(FIGURES.read_text(encoding="utf-8")))
    assert [row[0] for row in rows] == ["1", "2"]
    for workers, _, measured, simulated, _ in rows:
        assert float(simulated) == pytest.approx(float(measured), rel=TOLERANCE), f"{workers} workers"


@pytest.mark.parametrize("gpu_speed", [None, 20.0, 1e9])
@pytest.mark.parametrize("workers", [1, 4, 64])
@pytest.mark.parametrize("network", [1e6, 1250e6])
def test_no_limit_is_exceeded_and_a_saturated_one_is_nearly_reached(workers, gpu_speed, network):
    site = Site(workers, gpu_speed=gpu_speed, network=network)
    found, most = Simulation(TIMES, site).run(), bound(TIMES, site)
    assert most <= network / 10e6 and (gpu_speed or most <= workers / 10), "bytes, and time on the workers"
    assert 0.8 * most < found.rate <= most * (1 + 1e-9)
    assert all(share <= 1 + 1e-9 for share in found.busy.values())


@pytest.mark.parametrize(
    ("change", "site", "limit"),
    [
        ({}, Site(4), "workers"),
        ({}, Site(64, network=10e6), "network"),
        ({}, Site(64, storage=10e6), "storage"),
        ({"driver": 1.0}, Site(64), "driver"),
        ({}, Site(4, gpu_speed=20), "GPUs"),
        ({}, Site(4, cores=1, gpu_speed=1e6), "cores"),
        ({}, Site(256, gpu_speed=200), "network"),
    ],
)
def test_what_limits_is_named(change, site, limit):
    slower = replace(site, network=500e6) if site.workers == 256 else site
    assert Simulation(replace(TIMES, **change), slower).run().limit.startswith(limit)


def test_workers_that_share_two_cores_gain_no_more_than_these():
    rates = [Simulation(TIMES, Site(workers, cores=2, together=True)).run(400).rate for workers in (1, 2, 8)]
    assert rates[1] == pytest.approx(2 * rates[0], rel=0.1)
    assert rates[2] == pytest.approx(2 / 10.8, rel=0.02)


def test_the_same_seed_gives_the_same_run():
    times = replace(TIMES, encode=[5.0, 10.0, 20.0])
    first, again, other = (Simulation(times, Site(4), seed).run().rate for seed in (1, 1, 2))
    assert first == again != other


def test_the_page_says_what_was_assumed(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- tables of benchmarks.cohort_simulation -->\n<!-- end of the simulation -->\nafter\n")
    main(FIGURES, gpu_speed=7, cores=2, network=100, storage=50, page=page)
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("after\n")
    assert "assumed 7 times one core" in text and "network 100 MB/s and storage 50 MB/s" in text
    assert text.count("| 256 |") == 2
