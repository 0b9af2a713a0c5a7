"""Programs that the panel runs: the server on this computer, and its installation."""

from __future__ import annotations

import os
from typing import Any, Callable

import qt
import slicer

_STOP_TIMEOUT = 4000  # ms that a program may take to stop before it is killed
_TAIL = 20  # lines of the output that are kept for an error message


class Process:
    """One run of a program, in the environment that Slicer was started with.

    Parameters
    ----------
    line : callable
        Called with each line of the output.
    ended : callable
        Called once with the exit code when the program has ended; None if it could not be started.

    Attributes
    ----------
    tail : list of str
        The last lines of the output.
    """

    def __init__(self, line: Callable[[str], None], ended: Callable[[int | None], None]) -> None:
        self._line, self._ended = line, ended
        self._process: Any = None
        self._over: Any = None  # kept, because a QProcess must not be deleted while it emits its last signal
        self.tail: list[str] = []
        self._kill_timer = qt.QTimer()
        self._kill_timer.setSingleShot(True)
        self._kill_timer.setInterval(_STOP_TIMEOUT)
        self._kill_timer.connect("timeout()", self._kill)

    @property
    def running(self) -> bool:
        """Whether the program is running, or starting."""
        return self._process is not None

    def start(self, program: str, arguments: list[str]) -> None:
        """Start the program."""
        self.tail = []
        process = qt.QProcess()
        process.setProcessChannelMode(qt.QProcess.MergedChannels)
        process.setProcessEnvironment(_environment())
        process.connect("readyReadStandardOutput()", self._read)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        self._process = process
        process.start(program, arguments)

    def stop(self) -> None:
        """Stop the program; it is killed if it does not stop in time."""
        if self._process is None:
            return
        self._process.terminate()
        if os.name == "nt":
            self._process.kill()  # on Windows, a console program ignores terminate()
        self._kill_timer.start()

    def stop_now(self) -> None:
        """Stop the program and wait until it has stopped, as needed when Slicer quits."""
        if self._process is None:
            return
        process, self._process = self._process, None
        process.terminate()
        if os.name == "nt" or not process.waitForFinished(_STOP_TIMEOUT):
            process.kill()
            process.waitForFinished(_STOP_TIMEOUT)

    def last_line(self, default: str) -> str:
        """Return the last line of the output that is not empty, or `default`."""
        return next((line.strip() for line in reversed(self.tail) if line.strip()), default)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()

    def _read(self) -> None:
        if self._process is None:
            return
        raw = self._process.readAllStandardOutput().data()  # str or bytes, depending on the version of PythonQt
        text = raw if isinstance(raw, str) else bytes(raw).decode("utf-8", "replace")
        for line in text.splitlines():
            self.tail = [*self.tail[-_TAIL:], line]
            self._line(line)

    def _finished(self, code: int, _status: Any = None) -> None:
        if self._process is None:
            return
        self._read()
        self._kill_timer.stop()
        self._process, self._over = None, self._process
        self._ended(code)

    def _failed(self, error: Any) -> None:
        if self._process is not None and error == qt.QProcess.FailedToStart:
            self._process, self._over = None, self._process
            self._ended(None)


def startup_path() -> str:
    """Return the PATH that Slicer was started with."""
    return slicer.util.startupEnvironment().get("PATH") or os.environ.get("PATH", "")


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
