"""Scans chosen from the table of a run, and detectors fit on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medclipad.cohort.listing import list_scans
from medclipad.cohort.outputs import Layout
from medclipad.cohort.selection import select_scans
from medclipad.cohort.table import write_table
from medclipad.cohort.worker import Worker, WorkerSettings
from medclipad.detection.fit import fit
from medclipad.detection.storage import read_info
from medclipad.errors import MedCLIPADError
from medclipad.volume import read_volume, write_volume

COMMAND = str(Path(sys.executable).with_name("medclipad"))
SMALL = {"planes": "axial", "shots": 8, "image_size": 64}


@pytest.fixture(scope="module")
def table(cohort, detector, lesion, tmp_path_factory) -> Path:
    """The table of a run over nine files, one broken: four controls, one of them with a lesion, and four patients."""
    folder = tmp_path_factory.mktemp("chosen")
    mask, none = folder / "mask.nii.gz", folder / "none.nii.gz"
    write_volume(lesion, mask)
    write_volume(lesion.with_array(lesion.array * 0), none)
    lines = ["image,group,mask", f"{cohort}/broken.nii.gz,control,"]
    masks = {1: none, 2: mask}
    for seed in range(1, 9):
        lines.append(f"{cohort}/head{seed}.nii.gz,{'control' if seed < 5 else 'patient'},{masks.get(seed, '')}")
    (folder / "cases.csv").write_text("\n".join(lines))
    worker = Worker(WorkerSettings((detector,), folder / "out", Layout.FLAT))
    return write_table(folder / "out", [worker.analyse(scan) for scan in list_scans(str(folder / "cases.csv"))])


def names(table: Path, where: str) -> list[str]:
    return [scan.name for scan in select_scans(table, where).scans]


def test_scans_are_chosen_by_columns(table):
    p = {row["name"]: row["p_value"] for row in pq.read_table(table, columns=["name", "p_value"]).to_pylist()}
    assert names(table, "group == 'patient'") == ["head5", "head6", "head7", "head8"]
    assert names(table, "p_value > 0.2") == sorted(
        name for name, value in p.items() if value is not None and value > 0.2 and name != "head2"
    )
    assert names(table, "p_value > 0.2 and group == 'patient'") == ["head5", "head6"], "unknown for blobs"
    assert names(table, "group == 'patient' and volume_score > 0.3") == ["head7", "head8"]
    assert names(table, "group in ['patient', 'x'] and not name == 'head5'") == ["head6", "head7", "head8"]
    assert names(table, "abnormal == False") == ["head1"], "nothing is known of the others"
    assert names(table, "not abnormal") == ["head1"]
    assert names(table, "volume_score * 2 >= 2 * volume_score and (plane == 'axial')  # all")[0] == "head1"


def test_what_failed_and_what_has_a_lesion_is_not_used(table):
    chosen = select_scans(table, "group == 'control'")
    assert [scan.name for scan in chosen.scans] == ["head1", "head3", "head4"]
    assert (chosen.failed, chosen.lesioned) == (1, 1)
    assert chosen.note == "3 scans chosen, without 1 that could not be analysed and 1 whose masks show a lesion."
    with pytest.raises(MedCLIPADError, match=r"None of the 9 scans .* 0 scans chosen, without 1 that could not"):
        select_scans(table, "status == 'failed'")


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("p_value >", "not complete"),
        ("", "not complete"),
        ("p > 0.2", "no column p among rank, name"),
        ("p_value", "neither yes nor no"),
        ("3 > 2", "neither yes nor no"),
        ("p_value > 'high'", "Invalid comparison"),
        ("name.str.startswith('head')", "may compare columns"),
        ("__import__('os').system('false')", "may compare columns"),
        ("name.to_csv('x') == 1", "may compare columns"),
        ("@pd.io == 1", "not complete"),
        ("slice_scores == 1", "no column slice_scores"),
    ],
)
def test_bad_conditions_are_refused_in_a_sentence(table, where, reason):
    with pytest.raises(MedCLIPADError, match="is no condition on a cohort's table") as caught:
        select_scans(table, where)
    assert reason in str(caught.value) and str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_tables_that_are_none_are_refused(cohort, tmp_path):
    pq.write_table(pa.table({"name": ["x"]}), tmp_path / "other.parquet")
    (tmp_path / "text.parquet").write_text("x")
    for name in ("other", "text", "missing"):
        with pytest.raises(MedCLIPADError, match=r"(is no table|cannot be read as).*\.$"):
            select_scans(tmp_path / f"{name}.parquet", "p_value > 0")


def test_scans_that_have_changed_are_refused(head, detector, tmp_path):
    for seed in (1, 2):
        write_volume(head(seed), tmp_path / f"head{seed}.nii.gz")
    worker = Worker(WorkerSettings((detector,), tmp_path / "out", Layout.FLAT))
    table = write_table(tmp_path / "out", [worker.analyse(scan) for scan in list_scans(str(tmp_path))])
    write_volume(head(3), tmp_path / "head1.nii.gz")
    with pytest.raises(MedCLIPADError, match=r"1 of 2 scans are missing or have changed .*head1\.nii\.gz"):
        select_scans(table, "volume_score >= 0")
    assert names(table, "name == 'head2'") == ["head2"]
    (tmp_path / "head2.nii.gz").unlink()
    with pytest.raises(MedCLIPADError, match="missing or have changed"):
        select_scans(table, "name == 'head2'")


def test_python_fits_on_what_was_chosen(table, cohort):
    chosen = select_scans(table, "group == 'control'")
    ours = fit(normal=chosen.scans, **SMALL)
    expected = fit(normal=[read_volume(cohort / f"head{seed}.nii.gz") for seed in (1, 3, 4)], **SMALL)
    assert ours.info.training_slices == expected.info.training_slices
    assert ours.info.calibration == expected.info.calibration


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [COMMAND, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)


def test_the_command_fits_and_calibrates_on_what_was_chosen(table, cohort, tmp_path):
    options = ["--planes", "axial", "--shots", 8, "--image-size", 64, "--out", tmp_path / "found"]
    done = run(
        "fit", "--normal", table, cohort / "head6.nii.gz", "--where", "group == 'control'",
        "--calibrate-on", table, "--calibrate-where", "name in ['head5', 'head7']", *options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "3 scans chosen, without 1 that" in done.stderr and "2 scans chosen." in done.stderr
    info = read_info(tmp_path / "found")
    assert [entry["volume"] for entry in info.training_slices] == ["head1", "head3", "head4", "head6"]
    assert [scan.name for scan in info.calibration.scans] == ["head5", "head7"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--normal", "TABLE"], "say with --where"),
        (["--normal", "x.nii.gz", "--where", "p_value > 0"], "--where chooses from a cohort.parquet"),
        (["--normal", "x.nii.gz", "--calibrate-on", "TABLE", "--where", "p_value > 0"], "--where chooses from"),
        (["--normal", "TABLE", "--where", "p_value > 0 or"], "is no condition"),
    ],
)
def test_the_command_says_what_is_missing(table, tmp_path, arguments, sentence):
    given = [str(table) if argument == "TABLE" else argument for argument in arguments]
    done = run("fit", *given, "--out", tmp_path / "none")
    assert done.returncode == 1 and sentence in done.stderr and not (tmp_path / "none").exists()
