"""Unlabelled scans: each is held against the others, and nothing is promised."""

from __future__ import annotations

import pytest

from medclipad.cohort.listing import list_scans
from medclipad.cohort.outputs import Layout
from medclipad.cohort.ranking import FOLDS, fit_folds
from medclipad.cohort.table import ranked
from medclipad.cohort.worker import Worker, WorkerSettings
from medclipad.detection.cases import AS_IS
from medclipad.detection.storage import read_info
from medclipad.errors import MedCLIPADError

SMALL = {"planes": "axial", "image_size": 64, "memory_size": 2000}


def test_scans_are_ranked_by_a_memory_of_the_others(cohort, tmp_path):
    scans, folders = fit_folds(list_scans(str(cohort)), tmp_path, AS_IS, **SMALL)
    learned = [{entry["volume"] for entry in read_info(folder).training_slices} for folder in folders]
    assert len(folders) == FOLDS and all(len(names) >= 2 for names in learned)
    assert all(scan.name not in learned[scan.fold] for scan in scans)
    assert set.union(*learned) == {scan.name for scan in scans} - {"broken"}
    worker = Worker(WorkerSettings(tuple(folders), tmp_path / "out", Layout.FLAT))
    rows = ranked([worker.analyse(scan) for scan in scans])
    assert {row.name for row in rows[:2]} == {"head7", "head8"}, "those with a blob"
    assert all(row.p_value is None and "nothing is promised" in row.verdict for row in rows if row.status == "done")
    before = [folder.stat().st_mtime_ns for folder in folders]
    again, same = fit_folds(list_scans(str(cohort)), tmp_path, AS_IS, **SMALL)
    assert (again, [folder.stat().st_mtime_ns for folder in same]) == (scans, before), "detectors are kept"


def test_too_few_scans_are_refused(cohort, tmp_path):
    scans = [scan for scan in list_scans(str(cohort)) if scan.name in ("broken", "head1")]
    with pytest.raises(MedCLIPADError, match="too few"):
        fit_folds(scans, tmp_path, AS_IS, **SMALL)
