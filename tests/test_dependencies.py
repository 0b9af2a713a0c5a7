"""pyproject.toml declares what the code imports, and nothing that it does not."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LIBRARY = ROOT / "lib" / "medclipad"
SERVER, COHORT = LIBRARY / "server", LIBRARY / "cohort"
EXTRAS = {name: LIBRARY / "export" / f"{name}.py" for name in ("anomalib", "onnx")}  # of one module each
OWN = {"medclipad", "monailabel_app", "sample_data", "benchmarks"}
PLUGINS = {"pylibjpeg", "pylibjpeg-openjpeg", "pyjpegls"}  # pydicom loads them by name
EXPORTER = {"onnx", "onnxscript"}  # torch's exporter loads them
DATA = {"nilearn"}  # its template is read as a file
BESIDE = {"monailabel"}  # installed by a command of its own, see pyproject.toml
PARTS = {"itk": "itk-core"}  # the part of a distribution that is enough


def canonical(name: str) -> str:
    """Return a distribution's name as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def declared(*tables: str) -> set[str]:
    """Return the distributions in the base table, or in the named extras."""
    lists = [PROJECT["optional-dependencies"][table] for table in tables] or [PROJECT["dependencies"]]
    return {canonical(Requirement(line).name) for lines in lists for line in lines}


def imported_modules(files: Iterable[Path]) -> set[str]:
    """Return the top-level modules that files import and the standard library does not have."""
    names = set()
    for file in files:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{file}: relative import"
                names.add(node.module)
    return {name.partition(".")[0] for name in names} - sys.stdlib_module_names - OWN


def imported(files: Iterable[Path]) -> set[str]:
    """Return the distributions that files import."""
    homes = packages_distributions()
    return {canonical(homes.get(module, [module])[0]) for module in imported_modules(files)}


def required(distribution: str) -> set[str]:
    """Return what an installed distribution requires, and what those extras require that it asks for."""
    found = set()
    for requirement in map(Requirement, requires(distribution) or []):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            found.add(canonical(requirement.name))
            for extra in requirement.extras:
                found |= extra_requires(requirement.name, extra)
    return found


def extra_requires(distribution: str, extra: str) -> set[str]:
    """Return what one extra of an installed distribution requires."""
    try:
        lines = requires(distribution) or []
    except PackageNotFoundError:
        return set()
    return {
        canonical(requirement.name)
        for requirement in map(Requirement, lines)
        if requirement.marker and "extra" in str(requirement.marker) and requirement.marker.evaluate({"extra": extra})
    }


def library_files() -> list[Path]:
    apart = {SERVER, COHORT, *EXTRAS.values()}
    return [file for file in LIBRARY.rglob("*.py") if not apart & {file, *file.parents}]


def server_files() -> list[Path]:
    return [*SERVER.rglob("*.py"), *(ROOT / "monailabel_app").rglob("*.py")]


def test_the_library_declares_what_it_imports_and_nothing_else() -> None:
    found = imported(library_files())
    assert found - declared() == set(), "imported but not declared"
    assert declared() - found - PLUGINS == set(), "declared but not imported"


def test_the_server_declares_what_it_imports() -> None:
    assert imported(server_files()) - declared() - declared("server") - BESIDE == set()


def test_the_cohort_declares_what_it_imports_and_nothing_else() -> None:
    found = imported(COHORT.rglob("*.py")) - declared()
    assert found <= declared("cohort")
    assert declared("cohort") - found == {"dicomweb-client"}  # by the server's archive, which it reads


@pytest.mark.parametrize("extra", EXTRAS)
def test_a_module_with_an_extra_declares_what_it_imports_and_nothing_else(extra: str) -> None:
    assert imported([EXTRAS[extra]]) - declared() == declared(extra) - EXPORTER


def test_the_server_declares_nothing_that_neither_it_nor_monai_label_needs() -> None:
    pytest.importorskip("monailabel", reason="needs monailabel: make setup")
    monai_label = required("monailabel") | required("pydicom-seg")
    needed = imported(server_files()) | {PARTS.get(name, name) for name in monai_label}
    assert declared("server") - needed == set()


def test_no_extra_repeats_a_base_dependency() -> None:
    assert declared() & declared("server", "sample", "cohort", "onnx", "bundle", "dev") == set()


@pytest.mark.parametrize(
    ("folder", "extras"), [("sample_data", ["server", "sample"]), ("benchmarks", ["server", "sample", "cohort", "dev"])]
)
def test_scripts_import_what_their_extras_declare(folder: str, extras: list[str]) -> None:
    assert imported((ROOT / folder).rglob("*.py")) - declared() - declared(*extras) == set()
    assert declared("sample") >= DATA


def test_every_declared_distribution_has_a_pinned_version() -> None:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {canonical(Requirement(line).name) for line in lines if line and not line.startswith("#")}
    assert declared() | declared("server", "sample", "cohort", "onnx", "bundle", "dev") <= pinned
