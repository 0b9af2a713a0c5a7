"""Options that commands share: several values, files by glob and CSV, the log, the version, tables, progress."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import typer

from medclipad.cli.main import app
from medclipad.cli.terminal import print_table, progress_bar
from medclipad.detection.storage import read_info
from medclipad.methods import get_method, method_names
from medclipad.volume import write_volume
from tests.volume.volume_cases import series

PROGRAM = [sys.executable, "-m", "medclipad"]


def run(*arguments, columns: int = 80, cwd: Path | None = None) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": str(columns)}
    return subprocess.run(
        [*PROGRAM, *map(str, arguments)], capture_output=True, text=True, timeout=200, env=environment, cwd=cwd
    )


@pytest.fixture(scope="module")
def study(head, lesion, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "normals").mkdir()
    for seed in (1, 2, 3):
        write_volume(head(seed), folder / "normals" / f"healthy{seed}.nii.gz")
    write_volume(head(5, True), folder / "sick.nii.gz")
    write_volume(lesion, folder / "truth.nii.gz")
    (folder / "cases.csv").write_text("image,mask\nsick.nii.gz,truth.nii.gz\n")
    return folder


QUICK = ("--image-size", "64", "--shots", "6", "--max-steps", "1", "--memory-size", "50")


@pytest.mark.parametrize("normal", [
    ["normals/healthy1.nii.gz", "normals/healthy2.nii.gz", "normals/healthy3.nii.gz"],  # as a shell spells a glob out
    ["normals/*.nii.gz"], ["normals"],
])  # fmt: skip
def test_fit_takes_several_values_globs_and_folders(study, tmp_path, normal):
    done = run("fit", "--normal", *normal, *QUICK, "--out", tmp_path / "model", cwd=study)
    assert done.returncode == 0, done.stderr
    used = [record["volume"] for record in read_info(tmp_path / "model").training_slices]
    assert used == ["healthy1", "healthy2", "healthy3"]


def test_fit_evaluate_and_detect_take_csv(study, tmp_path):
    done = run("fit", "--method", "mvfa", "--normal", "normals", "--abnormal", "cases.csv", "--image-size", 64,
               "--shots", 2, "--max-samples", 8, "--memory-tokens", "all", "--class-name", "Head",
               "--out", tmp_path / "model", cwd=study)  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = read_info(tmp_path / "model").config
    assert config.options["memory_tokens"] == "all" and config.options["class_name"] == "Head"
    done = run("evaluate", tmp_path / "model", "--case", "cases.csv", "--json", tmp_path / "out.json", cwd=study)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["cases"][0]["name"] == "sick"
    done = run("detect", tmp_path / "model", "normals/healthy*.nii.gz", "--out", tmp_path / "out", cwd=study)
    assert done.returncode == 0 and len(list((tmp_path / "out").glob("*_anomaly.nii.gz"))) == 3, done.stderr


def test_version():
    assert re.fullmatch(r"medclipad \d+\.\d+\.\d+\S*\n", run("--version").stdout)


def test_methods_are_listed_with_a_line_each():
    lines = run("methods").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(method_names())
    assert sum("(default)" in line for line in lines) == 1
    assert all(get_method(line.split()[0]).summary in line for line in lines[1:])


def test_log(tmp_path):
    done = run("-v", "--log-file", tmp_path / "log.txt", "models", "list", tmp_path)
    assert done.returncode == 1 and "medclipad: medclipad " in done.stderr, "-v says what runs"
    assert "Traceback" not in done.stderr
    log = (tmp_path / "log.txt").read_text()
    assert "INFO medclipad" in log and "Traceback" in log and "There is no detector" in log
    assert "Traceback" in run("-vv", "models", "list", tmp_path).stderr
    assert "medclipad: medclipad " not in run("models", "list", tmp_path).stderr
    refused = run("--log-file", tmp_path / "no" / "log.txt", "models", "list", tmp_path)
    assert refused.returncode == 1 and "cannot be written" in refused.stderr and "Traceback" not in refused.stderr


def commands() -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []

    def walk(command, path: tuple[str, ...]) -> None:
        found.append(path)
        for name, inner in getattr(command, "commands", {}).items():
            walk(inner, (*path, name))

    walk(typer.main.get_command(app), ())
    return found


@pytest.mark.parametrize("command", [path for path in commands() if path not in (("models",), ("versions",))])
def test_help_ends_with_an_example(command):
    text = run(*command, "--help").stdout
    assert "\nExample:\n" in text or "\n  Example:\n" in text, text
    assert text.rstrip().splitlines()[-1].strip().startswith(" ".join(["medclipad", *command])), text


def test_shell_completion_is_offered():
    assert "--install-completion" in run("--help").stdout


ROWS = [("a-rather-long-name-of-a-case-that-nobody-would-want-cut.nii.gz", "ViT-L-14-336/openai", "0.123 / 0.456")]


def test_a_piped_table_has_whole_names_on_one_line(capsys):
    print_table(("case", "encoder", "AUROC"), ROWS, "caption")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and all(cell in lines[1] for cell in ROWS[0]) and lines[2] == "caption"
    assert lines[0].index("encoder") == lines[1].index("ViT")


def on_terminal(code: str, columns: int) -> str:
    """Run code on a pseudo-terminal of a width; return what it printed."""
    primary, secondary = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=secondary, stderr=secondary,
        env={**os.environ, "COLUMNS": str(columns), "TERM": "xterm"},
    )  # fmt: skip
    os.close(secondary)
    text = b""
    while select.select([primary], [], [], 60)[0]:
        try:
            block = os.read(primary, 4096)
        except OSError:
            break
        if not block:
            break
        text += block
    process.wait(60)
    return text.decode().replace("\r\n", "\n")


def test_a_table_on_a_narrow_terminal_becomes_blocks():
    code = f"from medclipad.cli.terminal import print_table; print_table(('case', 'encoder', 'AUROC'), {ROWS!r})"
    assert on_terminal(code, 80).splitlines() == [
        ROWS[0][0], "    encoder: ViT-L-14-336/openai", "    AUROC: 0.123 / 0.456"
    ]  # fmt: skip
    assert len(on_terminal(code, 200).splitlines()) == 2


def test_progress_is_lines_when_piped_and_bars_on_a_terminal(capsys):
    with progress_bar("case") as progress:
        for done in range(101):
            progress("train", done, 100, {"loss": 0.5})
        progress("memory", 0, 1, {})
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["case train 0/100 loss 0.500", "case train 100/100 loss 0.500", "case memory 0/1"]
    code = (
        "from medclipad.cli.terminal import progress_bar\n"
        "with progress_bar('case') as progress: progress('train', 1, 2, {})"
    )
    assert "━" in on_terminal(code, 100)


def test_series_are_numbered_and_chosen_by_number(study, tmp_path):
    for value, heights in ((1, range(0, 24, 2)), (2, range(0, 36, 3))):
        series(tmp_path / "dicom" / str(value), list(heights), SeriesInstanceUID=f"1.2.3.{value}",
               SeriesDescription=f"scan {value}", Rows=40, Columns=40,
               each=lambda n: {"PixelData": np.full((40, 40), 100 + n, np.uint16).tobytes()})  # fmt: skip
    lines = run("series", tmp_path / "dicom").stdout.splitlines()
    assert re.match(r"\s*modality +description +images +volume +UID$", lines[0])
    assert lines[1].startswith("1 ") and "scan 1" in lines[1] and lines[2].endswith("1.2.3.2")
    done = run("fit", "--normal", tmp_path / "dicom", "--series", 2, *QUICK, "--intensity", "raw",
               "--out", tmp_path / "model")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "has no series 7" in run("fit", "--normal", tmp_path / "dicom", "--series", 7, "--out", "x").stderr
