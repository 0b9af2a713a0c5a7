"""Everything that a release consists of, checked, into dist/: `make release`.

- a source archive, and the wheels of the library and of the client alone, which are installed with pip and with uv into
  empty environments, where the library learns and detects, and the client says that no server is running;
- the documentation site, built without a warning, and the extension for 3D Slicer, each as a zip archive;
- the release notes: what CHANGELOG.md says of this version;
- SHA256SUMS.

The version stands in pyproject.toml alone. Nothing is uploaded.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from medclipad.errors import MedCLIPADError
from medclipad.files import sha256_of_file

ROOT = Path(__file__).parents[1]
EXTENSION = ("MedCLIPAD", "CMakeLists.txt", "MedCLIPAD.json", "LICENSE", "README.md")
LIBRARY_SMOKE = """
import numpy as np, medclipad as mc
from importlib.metadata import version
values = np.random.default_rng(0).uniform(50, 100, (24, 24, 24)).astype("float32")
values[:4], values[-4:] = 0, 0
volume = mc.Volume(values, np.diag([4.0, 4, 4, 1]), name="noise")
detector = mc.fit(method="memory", normal=[volume], planes="axial", image_size=64, shots=4)
assert detector.detect(volume).anomaly_map.array.shape == values.shape
print("fit and detect:", version("medclipad"))
"""
CLIENT_SMOKE = """
import sys
from medclipad.client import Client, ServerError
try:
    Client("http://127.0.0.1:9").info()
except ServerError as error:
    print("client:", error)
assert "torch" not in sys.modules
"""


def main() -> None:
    """Build and check a release; end with one sentence where something is missing."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    notes = notes_of(version, (ROOT / "CHANGELOG.md").read_text("utf-8"))
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    dist.mkdir()
    (dist / "release-notes.md").write_text(notes, encoding="utf-8")
    # The client's wheel takes its files from the library's folder: it has no source archive of its own.
    client = ROOT / "packaging" / "client"
    for project, parts, smoke in ((ROOT, (), LIBRARY_SMOKE), (client, ("--wheel",), CLIENT_SMOKE)):
        wheel = build(project, dist, version, *parts)
        for tool in ("pip", "uv"):
            install_and_try(wheel, tool, smoke, dist / "environment")
    run("-m", "twine", "check", "--strict", *sorted(map(str, [*dist.glob("*.whl"), *dist.glob("*.tar.gz")])))
    run(str(ROOT / "docs" / "tools" / "generate.py"))
    run("-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(dist / "site"))
    shutil.make_archive(str(dist / f"medclipad-{version}-docs"), "zip", dist / "site")
    shutil.rmtree(dist / "site")
    extension_archive(ROOT, dist / f"SlicerMedCLIPAD-{version}.zip")
    sums = [f"{sha256_of_file(file)}  {file.name}\n" for file in sorted(dist.iterdir())]
    (dist / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
    print("".join(sums), end="")


def notes_of(version: str, changelog: str) -> str:
    """Return what a changelog says of a version.

    Raises
    ------
    MedCLIPADError
        If it has no section of this version, or an empty one.
    """
    section = re.search(rf"^## \[{re.escape(version)}\].*?\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if section is None or not section[1].strip():
        raise MedCLIPADError(
            f'CHANGELOG.md says nothing of {version}, the version in pyproject.toml: give "Unreleased" this name '
            f'and a date, as in "## [{version}] - YYYY-MM-DD".'
        )
    return section[1].strip() + "\n"


def build(project: Path, dist: Path, version: str, *options: str) -> Path:
    """Build a project's wheel and, unless the options say otherwise, source archive; return the wheel."""
    before = {*dist.glob("*.whl")}
    run("-m", "build", *options, "--outdir", str(dist), str(project))
    (wheel,) = {*dist.glob("*.whl")} - before
    if f"-{version}-" not in wheel.name:
        raise MedCLIPADError(f"{wheel.name} has another version than pyproject.toml says: look at its build settings.")
    return wheel


def install_and_try(wheel: Path, tool: str, smoke: str, environment: Path) -> None:
    """Install a wheel into an empty environment and run a smoke test there, outside of the repository."""
    constraints = str(ROOT / "constraints.txt")
    shutil.rmtree(environment, ignore_errors=True)
    python = str(environment / "bin" / "python")
    if tool == "uv":
        run("-m", "uv", "venv", "--quiet", "--python", sys.executable, str(environment))
        run("-m", "uv", "pip", "install", "--quiet", "--python", python, "-c", constraints, str(wheel))
    else:
        run("-m", "venv", str(environment))
        subprocess.run([python, "-m", "pip", "install", "--quiet", "-c", constraints, str(wheel)], check=True)
    subprocess.run([python, "-c", smoke], cwd=environment, check=True)
    shutil.rmtree(environment)


def extension_archive(root: Path, archive: Path) -> None:
    """Write the files of the Slicer extension, those that git knows, into a zip archive."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--", *EXTENSION], cwd=root, check=True, capture_output=True, text=True
    ).stdout
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as content:
        for name in filter(None, listed.split("\0")):
            content.write(root / name, f"SlicerMedCLIPAD/{name}")


def run(*arguments: str) -> None:
    """Run this Python with arguments in the repository; a failure ends the release."""
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True)


if __name__ == "__main__":
    try:
        main()
    except (MedCLIPADError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
