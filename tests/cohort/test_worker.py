"""A worker in this process: rows, files, refusals, memory."""

from __future__ import annotations

import threading
from dataclasses import replace

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from filelock import FileLock

from medclipad.cohort.listing import Scan, list_scans
from medclipad.cohort.outputs import Layout
from medclipad.cohort.report import write_page
from medclipad.cohort.run import run_cohort
from medclipad.cohort.table import Journal, write_table
from medclipad.cohort.worker import MemoryGate, Worker, WorkerSettings
from medclipad.detection.detector import load_detector
from medclipad.detection.storage import read_info
from medclipad.errors import MedCLIPADError
from medclipad.volume import read_volume, write_volume


@pytest.fixture(scope="module")
def scans(cohort) -> dict[str, Scan]:
    return {scan.name: scan for scan in list_scans(str(cohort))}


def test_a_row_says_what_the_detector_says(worker, scans, detector):
    scan = scans["head8"]
    row = worker.analyse(scan)
    expected = load_detector(detector).detect(read_volume(scan.source))
    assert row.status == "done" and row.error == ""
    assert (row.volume_score, row.p_value) == (expected.volume_score, expected.p_value)
    assert row.regions == [region.to_dict() for region in expected.regions()]
    np.testing.assert_array_equal(np.array(row.slice_scores, float), expected.slice_scores)
    assert row.weights == read_info(detector).weights_sha256 and row.versions["medclipad"]


def test_a_file_that_cannot_be_read_is_a_row(worker, scans):
    row = worker.analyse(scans["broken"])
    assert row.status == "failed" and row.volume_score is None and row.files == []
    assert row.error.startswith("broken.nii.gz") and row.error.endswith(".")


def test_a_mask_is_measured(worker, scans, lesion, tmp_path):
    write_volume(lesion, tmp_path / "mask.nii.gz")
    row = worker.analyse(replace(scans["head8"], name="with_mask", mask=str(tmp_path / "mask.nii.gz")))
    assert row.abnormal is True and 0 < row.average_precision <= 1 and 0 < row.best_dice <= 1
    other = worker.analyse(replace(scans["head7"], name="other_mask", mask=scans["broken"].source))
    assert other.status == "failed"


def test_a_scan_without_memory_is_tried_alone_and_then_refused(worker, tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_shape((20000, 20000, 2000))
    header.set_data_dtype(np.float64)
    header["vox_offset"], header["magic"] = 352, b"n+1"
    file = tmp_path / "huge.nii"
    with file.open("wb") as stream:
        stream.write(header.binaryblock + bytes(4))
        stream.truncate(352 + 8 * 20000 * 20000 * 2000)  # a file with a hole: it takes no space
    scan = Scan("huge", str(file))
    assert worker.analyse(scan) is None
    row = worker.analyse(scan, alone=True)
    assert row.status == "failed" and "memory" in row.error


def test_a_full_disk_stops_the_run_and_leaves_no_row(scans, detector, tmp_path):
    (tmp_path / "head1_anomaly.nii.gz").mkdir()
    (tmp_path / "head1_anomaly.nii.gz" / "in the way").touch()
    with pytest.raises(MedCLIPADError, match="cannot be written"):
        Worker(WorkerSettings((detector,), tmp_path, Layout.FLAT)).analyse(scans["head1"])
    assert Journal(tmp_path).read(scans["head1"]) is None


def test_the_gate_lets_in_what_fits():
    free, entered = [100.0], threading.Event()
    gate = MemoryGate(lambda: free[0])

    def second() -> None:
        with gate.one():
            entered.set()

    with gate.one() as need:  # nothing is known yet: the second waits, whatever is free
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.2)
        need.bytes = 40.0
    assert entered.wait(5)
    thread.join()
    entered.clear()
    with gate.one():  # 2 × 40 fit into 100
        second()
    assert entered.is_set()
    entered.clear()
    free[0] = 79.0
    with gate.one():
        thread = threading.Thread(target=second)
        thread.start()
        assert not entered.wait(0.2)
    assert entered.wait(5), "alone, it is let in"
    thread.join()


def test_the_page_shows_worklist_findings_and_failures(worker, scans, detector):
    settings = worker.settings
    chosen = [scans[name] for name in ("head1", "head8", "broken")]
    rows = [worker.analyse(scan) for scan in chosen]
    write_table(settings.out, rows)
    table = pq.read_table(settings.out / "cohort.parquet").to_pylist()
    assert [row["name"] for row in table][:1] == ["head8"] and table[-1]["status"] == "failed"
    page = write_page(chosen, rows, settings, [read_info(detector)], "A note.").read_text()
    assert page.count("<figure>") == 2 and page.count("data:image/png") == 2 and "data:image/svg+xml" in page
    assert page.index("head8") < page.index("head1") and "A note." in page
    assert "Failures" in page and rows[2].error.split(":")[0] in page
    assert "<script" not in page and "http" not in page.replace("http://www.w3.org", "")


def test_another_run_and_other_settings_are_refused(scans, detector, head, tmp_path):
    settings = WorkerSettings((detector,), tmp_path / "out", Layout.FLAT)
    assert run_cohort([], settings).rows == []
    with pytest.raises(MedCLIPADError, match=r"other settings \(layout\)"):
        run_cohort([], replace(settings, layout=Layout.BIDS))
    with FileLock(tmp_path / "out" / ".lock"), pytest.raises(MedCLIPADError, match="Another run works"):
        run_cohort([], settings)


def test_leftovers_of_killed_writers_are_removed(detector, tmp_path):
    settings = WorkerSettings((detector,), tmp_path / "out")
    folder = tmp_path / "out" / "sub-1" / "anat"
    folder.mkdir(parents=True)
    (folder / ".part-1-x.nii.gz").touch()
    run_cohort([], settings)
    assert list(folder.iterdir()) == []
