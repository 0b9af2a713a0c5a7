"""The house stands: imports run one way, without circles, and nobody spells another's name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

from medclipad.encoders import encoder_families
from medclipad.methods import method_names

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "lib" / "medclipad"

STOREYS = (
    {"medclipad.errors", "medclipad.files", "medclipad.compat"},
    {"medclipad.volume"},
    {"medclipad.encoders"},
    {"medclipad.methods"},
    {"medclipad.detection"},
    {"medclipad.evaluation"},
    {"medclipad.export"},
    {"medclipad.active_learning", "medclipad.client"},
    {"medclipad.server"},
    {"medclipad.cohort"},
    {"medclipad.cli", "monailabel_app"},
    {"medclipad", "medclipad.__main__"},  # what `import medclipad` offers
    {"sample_data"},
    {"benchmarks"},
)
"""From the cellar up: a module imports from its own storey, only from its own package there, or from below."""

MAX_ENTRIES = 8

WORDS = {"memory"}
"""Names of methods that are also words: in prose and below the methods they mean something else."""


class Import(NamedTuple):
    """An import statement: who imports what, where, and whether it is for types alone."""

    source: str
    target: str
    line: int
    for_types: bool


def modules(*folders: Path) -> dict[str, Path]:
    """Return the modules below some folders by their dotted names."""
    found = {}
    for folder in folders:
        for file in folder.rglob("*.py"):
            parts = file.relative_to(folder.parent).with_suffix("").parts
            found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = file
    return found


def imports(name: str, text: str, known: set[str]) -> Iterator[Import]:
    """Return all imports of known modules in a module, those inside functions included."""
    tree = ast.parse(text)
    for_types = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in node.body
        for inner in ast.walk(statement)
    }
    for node in ast.walk(tree):
        targets = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}, line {node.lineno}: a relative import"
            base = node.module or ""
            targets = [f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base for alias in node.names]
        for target in targets:
            if target in known:
                yield Import(name, target, node.lineno, id(node) in for_types)


def storey(module: str) -> tuple[int, str]:
    """Return the storey of a module, and the name by which it stands there."""
    parts = module.split(".")
    for length in (2, 1):
        name = ".".join(parts[:length])
        for height, names in enumerate(STOREYS):
            if name in names and (length == len(parts) or name != "medclipad"):
                return height, name
    raise AssertionError(f"{module} stands on no storey: name it in STOREYS")


def upward(found: Iterator[Import]) -> list[str]:
    """Return the imports that run up the house, or across a storey."""
    bad = []
    for statement in found:
        (height, package), (target_height, target) = storey(statement.source), storey(statement.target)
        if target_height > height or (target_height == height and target != package and height > 0):
            bad.append(f"{statement.source}, line {statement.line}: {statement.target}")
    return bad


def circle(found: Iterator[Import]) -> list[str]:
    """Return a circle of imports, [] if there is none; imports for types alone do not count."""
    graph: dict[str, set[str]] = {}
    for statement in found:
        if not statement.for_types and statement.source != statement.target:
            graph.setdefault(statement.source, set()).add(statement.target)
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return []


HOUSE = modules(LIBRARY, ROOT / "monailabel_app", ROOT / "sample_data", ROOT / "benchmarks")
TEXTS = {name: file.read_text(encoding="utf-8") for name, file in HOUSE.items()}


def all_imports() -> Iterator[Import]:
    for name, text in TEXTS.items():
        yield from imports(name, text, set(HOUSE))


def test_imports_run_down_the_house():
    assert not upward(all_imports())


def test_no_circle():
    assert not circle(all_imports())


def test_the_slicer_module_imports_none_of_it():
    own = modules(ROOT / "MedCLIPAD")
    for name, file in own.items():
        if "Testing" in file.parts:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for imported in names:
                assert imported.partition(".")[0] not in ("medclipad", "monailabel_app", "torch"), f"{name}: {imported}"


@pytest.mark.parametrize(
    ("module", "line", "fault"),
    [
        ("medclipad.volume.volume", "from medclipad.detection.fit import fit", upward),
        ("medclipad.methods.base", "def f():\n    from medclipad.server.app import app", upward),
        ("medclipad.methods.base", "if TYPE_CHECKING:\n    from medclipad.detection.fit import fit", upward),
        ("medclipad.server.app", "import monailabel_app.main", upward),
        ("medclipad.volume.progress", "from medclipad.volume.volume import Volume", circle),
        ("medclipad.files", "def f():\n    from medclipad.volume.write import write_volume", circle),
    ],
)
def test_a_violation_is_seen(module, line, fault):
    found = [*all_imports(), *imports(module, line, set(HOUSE))]
    if module == "medclipad.volume.progress":
        found.append(Import("medclipad.volume.volume", "medclipad.volume.progress", 1, False))
    assert fault(iter(found))


def test_the_library_has_few_entries_beside_its_packages():
    entries = [entry.name for entry in LIBRARY.iterdir() if entry.is_file() and not entry.name.startswith(".")]
    assert len(entries) <= MAX_ENTRIES, sorted(entries)


def spelled(text: str, names: set[str]) -> list[str]:
    """Return the names that stand in the string literals of a module, docstrings left out; `WORDS` only alone."""
    tree = ast.parse(text)
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    pattern = re.compile(rf"(?<![\w.-])({'|'.join(sorted(names - WORDS))})(?![\w-])", re.IGNORECASE)
    literals = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in documentation
    ]
    alone = [text for text in literals if text in names & WORDS]
    return alone + [found[1] for text in literals for found in pattern.finditer(text)]


NAMES = {*method_names(), *(family.default_encoder for family in encoder_families() if family.default_encoder)}


@pytest.mark.parametrize("name", sorted(name for name in HOUSE if name.startswith(("medclipad", "monailabel_app"))))
def test_nobody_spells_a_name_outside_its_folder(name):
    own = HOUSE[name].parent.parts
    foreign = {word for word in NAMES if word not in own}
    if storey(name)[0] <= storey("medclipad.methods")[0]:
        foreign -= WORDS  # what a step of a training is called, or what a computer has
    assert not spelled(TEXTS[name], foreign)


def test_the_slicer_module_treats_no_name_in_a_special_way():
    """Its help names the methods in prose; a literal that is a name would be a special case."""
    for file in (ROOT / "MedCLIPAD").rglob("*.py"):
        if "Testing" not in file.parts:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                assert not (isinstance(node, ast.Constant) and node.value in NAMES), f"{file}, line {node.lineno}"


def test_a_spelled_name_is_seen():
    assert spelled('x = "mvfa"', NAMES) and spelled('f"use {x} or mediclip"', NAMES)
    assert not spelled('"""About mvfa."""\nx = "medclipad"', NAMES)
    assert spelled('x = "memory"', NAMES) and not spelled('x = "not enough memory"', NAMES)
