"""The examples in the library's docstrings run, in a folder with the files that they name."""

from __future__ import annotations

import doctest
import importlib
from collections.abc import Callable
from pathlib import Path

import pytest

from medclipad.volume import Volume, write_volume

LIBRARY = Path(__file__).parents[1] / "lib"
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def module_name(file: Path) -> str:
    """Return the dotted name of a module of the library."""
    return ".".join(file.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__")


WITH_EXAMPLES = [
    module_name(file) for file in sorted(LIBRARY.rglob("*.py")) if ">>> " in file.read_text(encoding="utf-8")
]


@pytest.fixture
def folder(head: Callable[..., Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with case.nii.gz, and normals/ with two volumes."""
    (tmp_path / "normals").mkdir()
    write_volume(head(0, True), tmp_path / "case.nii.gz")
    for seed in (1, 2):
        write_volume(head(seed), tmp_path / "normals" / f"normal_{seed}.nii.gz")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name: str, folder: Path) -> None:
    result = doctest.testmod(importlib.import_module(name), optionflags=FLAGS)
    assert result.failed == 0, "see the captured output"


def test_the_package_has_examples() -> None:
    assert "medclipad" in WITH_EXAMPLES
