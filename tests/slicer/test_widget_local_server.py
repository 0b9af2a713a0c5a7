"""A server on this computer: installed into an environment of its own, if the reader agrees."""

from __future__ import annotations

import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest


def wait(condition: Any, seconds: float = 30, what: str = "") -> None:
    from harness import user

    user.wait_until(condition, seconds, what)


def wheel(folder: Path) -> Path:
    """Write a package with a program `medclipad` that does what `medclipad serve` prints, and return its path."""
    path, info = folder / "medclipad-0.1-py3-none-any.whl", "medclipad-0.1.dist-info"
    script = "import sys, time\n\ndef main():\n    print('program', *sys.argv[1:], flush=True)\n"
    files = {
        "medclipad_test.py": script,
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: medclipad\nVersion: 0.1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": "[console_scripts]\nmedclipad = medclipad_test:main\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


class Ended(list):
    def __call__(self, sentence: str) -> None:
        self.append(sentence)


@pytest.fixture
def installer(slicer_app: Any, tmp_path: Path) -> Any:
    from MedCLIPADLib.installer import Installer

    lines, ended = [], Ended()
    made = Installer(tmp_path / "settings" / "server", lines.append, ended)
    made.lines, made.ended = lines, ended
    yield made
    made.stop_now()


def test_the_server_is_installed_into_an_environment_of_its_own(installer: Any, tmp_path: Path) -> None:
    """A real venv and a real pip, with a small package in the place of the server's three gigabytes."""
    from MedCLIPADLib.localserver import find_executable

    before = sorted(Path(sys.prefix).rglob("medclipad*"))
    installer.start([["--no-index", str(wheel(tmp_path))]])
    assert installer.running
    wait(lambda: installer.ended, 240, str(installer.lines))
    assert installer.ended == [""] and installer.installed and not installer.running
    found = find_executable("", installer.folder)
    assert found is not None and (installer.folder / "bin" / "medclipad").exists()
    assert any("program --help" in line for line in installer.lines), "it was tried out"
    assert sorted(Path(sys.prefix).rglob("medclipad*")) == before, "nothing in the Python that runs Slicer's code"
    installer.remove()
    assert not installer.folder.exists() and not installer.installed


def test_an_installation_that_fails_says_why_and_leaves_nothing(installer: Any) -> None:
    installer.start([["--no-index", "no-such-package-of-medclipad"]])
    wait(lambda: installer.ended, 240)
    assert (
        installer.ended[0].startswith("The server could not be installed: ") and "no-such-package" in installer.ended[0]
    )
    assert not installer.folder.exists()


def test_an_installation_is_cancelled(installer: Any) -> None:
    installer.start([["--no-index", "nothing"]])
    wait(lambda: any("-m venv" in line for line in installer.lines), 60)
    installer.cancel()
    wait(lambda: installer.ended, 60)
    assert installer.ended == [""] and not installer.installed and not installer.folder.exists()


def test_without_a_suitable_python_the_reader_is_told_where_to_get_one(
    installer: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import slicer
    from MedCLIPADLib.errors import ModuleError

    monkeypatch.setattr(slicer.util, "startupEnvironment", lambda: {"PATH": str(tmp_path)})
    with pytest.raises(ModuleError, match=r"No Python 3\.11 or 3\.12 was found: install one from python\.org"):
        installer.start()
    (tmp_path / "python3").write_text("#!/bin/sh\necho 3.9\n")
    (tmp_path / "python3").chmod(0o755)
    installer.start()
    wait(lambda: installer.ended, 30)
    assert installer.ended[0].startswith("No Python 3.11 or 3.12 was found")


def test_nothing_is_installed_unless_the_reader_agrees(medclipad: Any) -> None:
    import slicer
    from harness import user

    ui = medclipad.ui
    ui.localServerGroupBox.collapsed = False
    slicer.app.answers.append(False)
    user.click(ui.installServerButton)
    (question,) = slicer.app.messages
    assert str(medclipad.connection.installer.folder) in question and "Slicer's own Python is not changed" in question
    time.sleep(0.2)
    assert not medclipad.connection.installer.running and not ui.removeServerButton.enabled
