"""A `medclipad serve` on this computer, started and stopped from the panel."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any, Callable

import qt
import slicer
from slicer.i18n import tr as _

_READY = re.compile(r"ready at (https?://\S+)")
_PATIENCE = 4000  # ms that the server has to stop by itself


class LocalServer:
    """A QProcess and its log. Callbacks: ready(url), line(text), stopped(sentence, or "" if it was told to stop)."""

    def __init__(
        self, ready: Callable[[str], None], line: Callable[[str], None], stopped: Callable[[str], None]
    ) -> None:
        self._ready, self._line, self._stopped = ready, line, stopped
        self._process: Any = None
        self._ended: Any = None  # kept: a QProcess must not be deleted while it tells of its end
        self._impatience = qt.QTimer()
        self._impatience.setSingleShot(True)
        self._impatience.setInterval(_PATIENCE)
        self._impatience.connect("timeout()", self._kill)
        self._asked = False  # whether the user asked it to stop
        self._tail: list[str] = []

    @property
    def running(self) -> bool:
        return self._process is not None

    def start(self, executable: str, studies: str) -> None:
        """Start it for a folder of studies, on a port that is free."""
        self._asked, self._tail = False, []
        process = qt.QProcess()
        process.setProcessChannelMode(qt.QProcess.MergedChannels)
        process.setProcessEnvironment(_environment())
        process.connect("readyReadStandardOutput()", self._read)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        self._process = process
        process.start(executable, ["serve", "--studies", studies, "--port", "0"])

    def stop(self) -> None:
        """Ask it to stop; it is killed if it does not."""
        if self._process is None:
            return
        self._asked = True
        self._process.terminate()
        if os.name == "nt":
            self._process.kill()  # there, a console program does not hear terminate()
        self._impatience.start()

    def stop_now(self) -> None:
        """Stop it and wait for that: when Slicer quits."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        if os.name == "nt" or not process.waitForFinished(_PATIENCE):
            process.kill()
            process.waitForFinished(_PATIENCE)

    def _kill(self) -> None:
        if self._process is not None and self._asked:
            self._process.kill()

    def _read(self) -> None:
        if self._process is None:
            return
        raw = self._process.readAllStandardOutput().data()  # str or bytes, as the PythonQt version has it
        text = raw if isinstance(raw, str) else bytes(raw).decode("utf-8", "replace")
        for line in text.splitlines():
            self._tail = [*self._tail[-20:], line]
            self._line(line)
            found = _READY.search(line)
            if found:
                self._ready(found.group(1))

    def _finished(self, code: int, status: Any = None) -> None:
        if self._process is None:
            return
        self._read()
        self._process, self._ended = None, self._process
        last = next((line.strip() for line in reversed(self._tail) if line.strip()), _("it said nothing"))
        sentence = _("The local server stopped by itself (exit code {code}): {last}").format(code=code, last=last)
        self._stopped("" if self._asked else sentence)

    def _failed(self, error: Any) -> None:
        if self._process is not None and error == qt.QProcess.FailedToStart:
            self._process, self._ended = None, self._process
            self._stopped(_("The local server could not be started: choose another medclipad program."))


def find_executable(chosen: str = "") -> str | None:
    """The medclipad program: the one chosen before, one on the PATH, or one in a usual place; None if there is none."""
    if chosen and Path(chosen).is_file():
        return chosen
    name = "medclipad.exe" if sys.platform == "win32" else "medclipad"
    path = slicer.util.startupEnvironment().get("PATH") or os.environ.get("PATH", "")
    home = Path.home()
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    usual = [home / folder / scripts for folder in (".local", "medclipad", ".venv", "venv", "MedCLIPAD/.venv")]
    usual.append(Path(__file__).resolve().parents[2] / ".venv" / scripts)  # a checkout of the repository
    found = shutil.which(name, path=os.pathsep.join([path, *map(str, usual)]))
    return found


def _environment() -> Any:
    """The environment that Slicer was started with: its own would make another Python load Slicer's libraries."""
    environment = qt.QProcessEnvironment()
    for name, value in slicer.util.startupEnvironment().items():
        environment.insert(name, value)
    environment.insert("PYTHONUNBUFFERED", "1")
    for name in ("PYTHONHOME", "PYTHONPATH"):
        environment.remove(name)
    return environment
