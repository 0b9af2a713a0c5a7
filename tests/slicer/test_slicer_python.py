"""The module runs on Slicer's oldest Python and imports only what Slicer ships."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

MODULE = Path(__file__).parents[2] / "MedCLIPAD"
OWN = {"MedCLIPADLib", "MedCLIPAD"}
SLOW = {"requests", "SimpleITK", "scipy", "pydicom", "SampleData"}  # those take too long for Slicer's start
AT_FILE_SCOPE = OWN | {"slicer", "vtk", "qt", "ctk", "numpy"}
SHIPPED = AT_FILE_SCOPE | SLOW
FILES = sorted(MODULE.rglob("*.py"))


def test_syntax_and_library_are_those_of_python_39() -> None:
    pytest.importorskip("vermin", reason="pip install vermin")
    command = [str(Path(sys.executable).with_name("vermin")), "-t=3.9-", "--no-tips", "--violations", str(MODULE)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_lint_for_python_39() -> None:
    command = [sys.executable, "-m", "ruff", "check", "--quiet", str(MODULE)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout
    assert 'target-version = "py39"' in (MODULE / "ruff.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_imports_are_what_slicer_ships(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"), feature_version=(3, 9))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module]
        else:
            continue
        allowed = AT_FILE_SCOPE if node in tree.body else SHIPPED
        for name in names:
            top = name.partition(".")[0]
            assert top in sys.stdlib_module_names or top in allowed, f"{file.name} line {node.lineno}: {name}"


def test_no_method_and_no_encoder_is_special() -> None:
    """The module knows methods and encoders only from the server. Prose may name them in their own spelling."""
    resources = sorted((MODULE / "Resources" / "UI").glob("*.ui"))
    for file in [*FILES, *resources]:
        found = re.findall(r"mvfa|mediclip|embedded|open_clip|ViT-", re.sub("MedCLIPAD", "", file.read_text("utf-8")))
        assert not found, f"{file.name}: {found}"


def test_files_are_short() -> None:
    long = [file.name for file in FILES if len(file.read_text(encoding="utf-8").splitlines()) >= 400]
    assert not long
