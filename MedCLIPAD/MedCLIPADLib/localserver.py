"""A MedCLIPAD server on this computer, started and stopped from the panel."""

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
_STOP_TIMEOUT = 4000  # ms that the server may take to stop before it is killed
_TAIL = 20  # lines of the log that are kept for an error message


class LocalServer:
    """The process of `medclipad serve`.

    Parameters
    ----------
    ready : callable
        Called with the address once the server is ready.
    line : callable
        Called with each line of the server's log.
    stopped : callable
        Called when the server has stopped: with "" if `stop` was called, else with a sentence that says why.
    """

    def __init__(
        self, ready: Callable[[str], None], line: Callable[[str], None], stopped: Callable[[str], None]
    ) -> None:
        self._ready, self._line, self._stopped = ready, line, stopped
        self._process: Any = None
        self._ended: Any = None  # kept, because a QProcess must not be deleted while it emits its last signal
        self._kill_timer = qt.QTimer()
        self._kill_timer.setSingleShot(True)
        self._kill_timer.setInterval(_STOP_TIMEOUT)
        self._kill_timer.connect("timeout()", self._kill)
        self._stopping = False
        self._tail: list[str] = []

    @property
    def running(self) -> bool:
        """Whether the server is running, or starting."""
        return self._process is not None

    def start(self, executable: str, studies: str) -> None:
        """Start the server for a folder of studies, on a free port."""
        self._stopping, self._tail = False, []
        process = qt.QProcess()
        process.setProcessChannelMode(qt.QProcess.MergedChannels)
        process.setProcessEnvironment(_environment())
        process.connect("readyReadStandardOutput()", self._read)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        self._process = process
        process.start(executable, ["serve", "--studies", studies, "--port", "0"])

    def stop(self) -> None:
        """Stop the server; it is killed if it does not stop in time."""
        if self._process is None:
            return
        self._stopping = True
        self._process.terminate()
        if os.name == "nt":
            self._process.kill()  # on Windows, a console program ignores terminate()
        self._kill_timer.start()

    def stop_now(self) -> None:
        """Stop the server and wait until it has stopped, as needed when Slicer quits."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        if os.name == "nt" or not process.waitForFinished(_STOP_TIMEOUT):
            process.kill()
            process.waitForFinished(_STOP_TIMEOUT)

    def _kill(self) -> None:
        if self._process is not None and self._stopping:
            self._process.kill()

    def _read(self) -> None:
        if self._process is None:
            return
        raw = self._process.readAllStandardOutput().data()  # str or bytes, depending on the version of PythonQt
        text = raw if isinstance(raw, str) else bytes(raw).decode("utf-8", "replace")
        for line in text.splitlines():
            self._tail = [*self._tail[-_TAIL:], line]
            self._line(line)
            found = _READY.search(line)
            if found:
                self._ready(found.group(1))

    def _finished(self, code: int, status: Any = None) -> None:
        if self._process is None:
            return
        self._read()
        self._process, self._ended = None, self._process
        last = next((line.strip() for line in reversed(self._tail) if line.strip()), _("its log is empty"))
        sentence = _("The local server stopped unexpectedly (exit code {code}): {last}").format(code=code, last=last)
        self._stopped("" if self._stopping else sentence)

    def _failed(self, error: Any) -> None:
        if self._process is not None and error == qt.QProcess.FailedToStart:
            self._process, self._ended = None, self._process
            self._stopped(_("The local server could not be started: choose another medclipad program."))


def find_executable(chosen: str = "") -> str | None:
    """Return the path of the medclipad program, or None if it was not found.

    Parameters
    ----------
    chosen : str
        A path to try first; then the PATH is searched, and common places of virtual environments.
    """
    if chosen and Path(chosen).is_file():
        return chosen
    name = "medclipad.exe" if sys.platform == "win32" else "medclipad"
    path = slicer.util.startupEnvironment().get("PATH") or os.environ.get("PATH", "")
    home = Path.home()
    scripts = "Scripts" if sys.platform == "win32" else "bin"
    folders = [home / folder / scripts for folder in (".local", "medclipad", ".venv", "venv", "MedCLIPAD/.venv")]
    folders.append(Path(__file__).resolve().parents[2] / ".venv" / scripts)  # a checkout of the repository
    return shutil.which(name, path=os.pathsep.join([path, *map(str, folders)]))


def _environment() -> Any:
    """Return the environment that Slicer was started with.

    In its own, another Python would load Slicer's libraries.
    """
    environment = qt.QProcessEnvironment()
    for name, value in slicer.util.startupEnvironment().items():
        environment.insert(name, value)
    environment.insert("PYTHONUNBUFFERED", "1")
    for name in ("PYTHONHOME", "PYTHONPATH"):
        environment.remove(name)
    return environment
