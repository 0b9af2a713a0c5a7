"""What `make release` puts together; the wheels' own tests are in tests/client."""

from __future__ import annotations

import importlib.util
import re
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

from medclipad.errors import MedCLIPADError

ROOT = Path(__file__).parents[2]
CHANGELOG = """# Changelog

## [Unreleased]

## [0.2.0] - 2027-01-31
### Added
- One.

## [0.1.0] - 2026-12-01
- Zero.
"""


@pytest.fixture(scope="module")
def release() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release", ROOT / "packaging" / "release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_notes_are_those_of_the_version(release: ModuleType) -> None:
    assert release.notes_of("0.2.0", CHANGELOG) == "### Added\n- One.\n"
    assert release.notes_of("0.1.0", CHANGELOG) == "- Zero.\n"


@pytest.mark.parametrize("version", ["0.3.0", "0.2", "Unreleased"])
def test_a_version_without_notes_is_no_release(release: ModuleType, version: str) -> None:
    with pytest.raises(MedCLIPADError, match=f"says nothing of {re.escape(version)}"):
        release.notes_of(version, CHANGELOG)


def test_the_extension_archive_holds_what_cmake_installs(release: ModuleType, tmp_path: Path) -> None:
    release.extension_archive(ROOT, tmp_path / "extension.zip")
    names = zipfile.ZipFile(tmp_path / "extension.zip").namelist()
    module = (ROOT / "MedCLIPAD" / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", "MedCLIPAD")
    installed = re.findall(r"^  ((?:MedCLIPAD|Resources)\S*\.\w+)$", module, re.MULTILINE)
    assert len(installed) > 50
    assert {f"SlicerMedCLIPAD/MedCLIPAD/{name}" for name in installed} <= {*names}
    assert "SlicerMedCLIPAD/CMakeLists.txt" in names and not [name for name in names if "__pycache__" in name]
