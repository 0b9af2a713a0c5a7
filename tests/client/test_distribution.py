"""The client's own wheel: the same files as in the package's wheel, and usable without torch."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from collections.abc import Iterator
from email.parser import Parser
from importlib.metadata import distribution
from pathlib import Path

import pytest
from bindings import TOKEN
from live_server import Server, head

from medclipad.volume import read_volume, write_volume

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIRED = ["requests", "urllib3", "idna", "certifi", "charset-normalizer"]  # requests, and what it requires
SMOKE = """
import sys
from pathlib import Path
from medclipad.client import Client, ServerError

url, token, volume, folder = sys.argv[1:]
client = Client(url, token)
assert "normal_1" in client.images()
path, scores = client.infer("mediclip", "mine", {"result": "map"}, folder=folder, file=volume)
assert path.stat().st_size and scores["slice_scores"]
try:
    Client(url, "wrong").info()
except ServerError as error:
    assert error.cause == "token"
loaded = [name for name in ("torch", "numpy", "nibabel", "pydantic") if name in sys.modules]
assert not loaded, loaded
print(path)
"""


def build(project: Path, folder: Path) -> Path:
    """Build a project's wheel in a copy of the repository, without access to a package index."""
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*command, "--wheel-dir", str(folder), str(project)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what the wheels are built from: setuptools writes beside its sources."""
    copy = tmp_path_factory.mktemp("repository")
    ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "model", "logs", "bin")
    for name in ("lib", "monailabel_app", "packaging"):
        shutil.copytree(ROOT / name, copy / name, ignore=ignore)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    return copy


@pytest.fixture(scope="module")
def client_wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(repository / "packaging" / "client", tmp_path_factory.mktemp("client_wheel"))


@pytest.fixture(scope="module")
def main_wheel(repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(repository, tmp_path_factory.mktemp("main_wheel"))


def contents(wheel: Path) -> dict[str, bytes]:
    """Return the files of a wheel by name, without its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}


@pytest.fixture(scope="module")
def python(client_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Python of an environment with the client's wheel and requests, and nothing else."""
    folder = tmp_path_factory.mktemp("empty") / "venv"
    venv.create(folder, with_pip=False)
    windows = sys.platform == "win32"
    executable = folder / ("Scripts/python.exe" if windows else "bin/python")
    ask = [str(executable), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip())
    for name in REQUIRED:  # copied, as no package index is needed for it
        for file in distribution(name).files or []:
            if ".." not in file.parts and "__pycache__" not in file.parts:
                (packages / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(str(file.locate()), packages / file)
    command = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(executable),
        "install",
        "--quiet",
        "--no-deps",
        "--no-index",
    ]
    done = subprocess.run([*command, str(client_wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    yield executable


def test_both_wheels_hold_the_same_client(client_wheel: Path, main_wheel: Path) -> None:
    client, main = contents(client_wheel), contents(main_wheel)
    assert {"medclipad/__init__.py", "medclipad/client/__init__.py", "medclipad/py.typed"} <= set(client)
    assert {name: main.get(name) for name in client} == client
    assert not any("__pycache__" in name for name in client)


def test_the_package_wheel_is_complete(main_wheel: Path) -> None:
    """All sources, the methods' pages and the starter detector are inside."""
    names = contents(main_wheel)
    sources = [*(ROOT / "lib").rglob("*.py"), *(ROOT / "lib").rglob("*.md")]
    missing = [file for file in sources if file.relative_to(ROOT / "lib").as_posix() not in names]
    assert not missing and any(name.startswith("monailabel_app/starter/") for name in names)


def test_the_client_requires_requests_alone(client_wheel: Path) -> None:
    with zipfile.ZipFile(client_wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        about = Parser().parsestr(archive.read(name).decode())
    assert about["Name"] == "medclipad-client" and about["Version"] == PROJECT["version"]
    assert about["Requires-Python"] == ">=3.9"
    requests = next(line for line in PROJECT["dependencies"] if line.startswith("requests"))
    assert about.get_all("Requires-Dist") == [requests]


def test_it_works_with_a_real_server(python: Path, server: Server, tmp_path: Path) -> None:
    write_volume(head(21)[0], tmp_path / "mine.nii.gz")
    arguments = [server.url, TOKEN, str(tmp_path / "mine.nii.gz"), str(tmp_path / "out")]
    done = subprocess.run([str(python), "-I", "-c", SMOKE, *arguments], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert read_volume(done.stdout.strip()).shape == head(21)[0].shape


@pytest.mark.parametrize("use", ["import medclipad; medclipad.fit", "from medclipad import read_volume"])
def test_the_rest_of_the_package_is_named(python: Path, use: str) -> None:
    done = subprocess.run([str(python), "-I", "-c", use], capture_output=True, text=True)
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ") and "install the package medclipad" in last
