"""The extension's CMake files list all files, and what they install passes its self test through ctest."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STUB = Path(__file__).parent / "cmake"

pytestmark = [
    pytest.mark.skipif(shutil.which("cmake") is None, reason="needs the Debian package cmake: make system"),
    pytest.mark.skipif(not (ROOT / "CMakeLists.txt").exists(), reason="the extension has no CMakeLists.txt"),
]


@pytest.fixture
def extension(tmp_path: Path) -> Path:
    """A copy of the extension's files, for tests to break."""
    copy = tmp_path / "extension"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "MedCLIPAD", copy / "MedCLIPAD", ignore=ignored)
    shutil.copytree(ROOT / "docs" / "images", copy / "docs" / "images")
    shutil.copy(ROOT / "CMakeLists.txt", copy)
    return copy


def configure(source: Path) -> tuple[bool, str]:
    """Return (whether it passed, what CMake printed)."""
    command = [
        "cmake",
        "-S",
        source,
        "-B",
        source.parent / "build",
        f"-DSlicer_DIR={STUB}",
        f"-DSLICER_PYTHON={sys.executable}",
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode == 0, " ".join((done.stdout + done.stderr).split())


def test_the_extension_configures(extension):
    passed, said = configure(extension)
    assert passed, said


def test_a_listed_file_that_is_missing_is_refused(extension):
    (extension / "MedCLIPAD" / "Resources" / "UI" / "Detect.ui").unlink()
    passed, said = configure(extension)
    assert not passed
    assert "Resources/UI/Detect.ui is listed but does not exist" in said


@pytest.mark.parametrize("name", ["Resources/UI/New.ui", "Resources/Icons/new.png", "MedCLIPADLib/new.py"])
def test_a_file_that_is_not_listed_is_refused(extension, name):
    (extension / "MedCLIPAD" / name).write_text("")
    passed, said = configure(extension)
    assert not passed
    assert f"{name} exists but is not listed" in said


def test_a_description_that_is_missing_is_refused(extension):
    lists = extension / "CMakeLists.txt"
    lists.write_text("\n".join(line for line in lists.read_text().splitlines() if "EXTENSION_HOMEPAGE" not in line))
    passed, said = configure(extension)
    assert not passed
    assert "EXTENSION_HOMEPAGE is not set" in said


def ctest(extension: Path) -> subprocess.CompletedProcess:
    command = ["ctest", "--test-dir", extension.parent / "build", "--output-on-failure", "--no-tests=error"]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


needs_slicer = pytest.mark.skipif(
    importlib.util.find_spec("slicer") is None, reason="needs slicer-core: pip install -e .[dev]"
)


@needs_slicer
@pytest.mark.long
def test_ctest_passes(extension):
    assert configure(extension)[0]
    done = ctest(extension)
    assert done.returncode == 0, done.stdout
    assert "py_MedCLIPADModuleTest" in done.stdout
    assert "qSlicerMedCLIPADModuleGenericTest" in done.stdout


@needs_slicer
@pytest.mark.long
def test_ctest_fails_if_a_used_resource_is_not_listed(extension):
    """Only what is listed reaches the build tree. (The file goes too, or CMake would say that it is not listed.)"""
    lists = extension / "MedCLIPAD" / "CMakeLists.txt"
    lists.write_text(lists.read_text().replace("  Resources/UI/Results.ui\n", ""))
    (extension / "MedCLIPAD" / "Resources" / "UI" / "Results.ui").unlink()
    assert configure(extension)[0]
    assert ctest(extension).returncode != 0


def test_the_extensions_index_accepts_the_repository() -> None:
    """Its rules: the repository's name begins with "Slicer", a category of its list, the extension's name as file."""
    entry = json.loads((ROOT / "MedCLIPAD.json").read_text(encoding="utf-8"))
    lists = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    address = entry["scm_url"].removesuffix(".git")
    assert address.rpartition("/")[2].startswith("Slicer")
    assert entry["category"] == "Active Learning" and "project(MedCLIPAD)" in lists
    for line in ("EXTENSION_HOMEPAGE", "EXTENSION_ICONURL", "EXTENSION_SCREENSHOTURLS"):
        url = re.search(rf'set\({line} "([^"]+)"\)', lists)
        assert url is not None and "/medclipad/" + address.rpartition("/")[2] in url.group(1), line
    sample = (ROOT / "MedCLIPAD" / "MedCLIPADLib" / "sampledata.py").read_text(encoding="utf-8")
    assert f"/medclipad/{address.rpartition('/')[2]}/" in sample
