"""The files to run a server with: backup and restore, and configurations that the server takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from medclipad.cli.main import app

FILES = Path(__file__).parents[2] / "packaging" / "server"


def run(script: str, *arguments: Path, code: int = 0) -> str:
    """Return what a script prints; it must end with the given code."""
    command = ["sh", str(FILES / script), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout + done.stderr


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def site(tmp_path: Path) -> tuple[Path, Path]:
    """The folders of a server: studies and models."""
    studies, models = tmp_path / "studies", tmp_path / "models"
    made = {
        studies / "case.nii.gz": b"image",
        studies / "datastore_v2.json": b"{}",
        studies / "labels" / "final" / "case.nii.gz": b"label",
        studies / "labels" / "final" / ".part-1-x.nii.gz": b"half",
        models / "mediclip" / "v1" / "detector.json": b"detector",
        models / "mediclip" / "current": b"v1",
        models / "dicomweb" / "a" / "notes.json": b"notes",
        models / "dicomweb" / "a" / "series" / "1" / "0.dcm": b"patient",
        models / "results" / "x" / "map.nii.gz": b"computed",
    }
    for path, content in made.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return studies, models


def test_what_readers_made_comes_back(site: tuple[Path, Path], tmp_path: Path) -> None:
    studies, models = site
    kept = [*files(studies / "labels")]
    run("backup.sh", studies, models, tmp_path / "backup")
    assert all(not path.stat().st_mode & 0o077 for path in [tmp_path / "backup", *(tmp_path / "backup").iterdir()])
    assert "exists already" in run("backup.sh", studies, models, tmp_path / "backup", code=1)
    shutil.rmtree(studies / "labels")
    shutil.rmtree(models)
    (studies / "datastore_v2.json").write_bytes(b"damaged")
    run("restore.sh", tmp_path / "backup", studies, models)
    assert files(studies)["datastore_v2.json"] == b"{}" and "final/case.nii.gz" in kept
    assert files(studies)["labels/final/case.nii.gz"] == b"label" and files(studies)["case.nii.gz"] == b"image"
    assert files(models) == {
        "mediclip/v1/detector.json": b"detector", "mediclip/current": b"v1", "dicomweb/a/notes.json": b"notes",
    }  # fmt: skip


def test_a_damaged_backup_changes_nothing(site: tuple[Path, Path], tmp_path: Path) -> None:
    studies, models = site
    run("backup.sh", studies, models, tmp_path / "backup")
    (tmp_path / "backup" / "models.tar.gz").write_bytes(b"damaged")
    before = files(studies), files(models)
    run("restore.sh", tmp_path / "backup", studies, models, code=1)
    assert (files(studies), files(models)) == before


@pytest.mark.skipif(shutil.which("flock") is None, reason="flock is not installed")
def test_nothing_is_restored_under_a_running_server(site: tuple[Path, Path], tmp_path: Path) -> None:
    studies, models = site
    run("backup.sh", studies, models, tmp_path / "backup")
    code = "import sys, pathlib; from medclipad.server.process_lifetime import hold_folder;"
    code += "hold_folder(pathlib.Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(studies)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        assert "stop it first" in run("restore.sh", tmp_path / "backup", studies, models, code=1)
        holder.communicate("")
    run("restore.sh", tmp_path / "backup", studies, models)


def options() -> dict[str, Any]:
    """Return the parameters of `medclipad serve` by name."""
    commands: dict[str, Any] = getattr(typer.main.get_command(app), "commands")  # noqa: B009  of a class without types
    return {parameter.name: parameter for parameter in commands["serve"].params}


def test_the_configuration_names_options_that_there_are() -> None:
    for text in ((FILES / "medclipad.toml").read_text(), *toml_of_the_guide()):
        given = tomllib.loads(text)
        given.pop("environment", None)
        assert given and {name.replace("-", "_") for name in given} <= set(options())


def toml_of_the_guide() -> list[str]:
    guide = FILES.parents[1] / "docs" / "how-to" / "hospital-server.md"
    return re.findall(r"```toml\n(.*?)```", guide.read_text(encoding="utf-8"), re.DOTALL)


def test_containers_set_variables_that_there_are() -> None:
    known = {str(parameter.envvar) for parameter in options().values()}
    known |= {f"MEDCLIPAD_PACS_{name}" for name in ("USER", "PASSWORD")}
    for name in ("Dockerfile", "compose.yaml"):
        used = set(re.findall(r"MEDCLIPAD_[A-Z_]+", (FILES / name).read_text()))
        assert used and used <= known, used - known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    text = (FILES / "medclipad.service").read_text().replace("/opt/medclipad/bin/medclipad", sys.executable)
    unit = tmp_path / "medclipad.service"
    unit.write_text(text.replace("User=medclipad", f"User={os.environ.get('USER') or 'root'}"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and str(unit.name) not in done.stderr, done.stderr
