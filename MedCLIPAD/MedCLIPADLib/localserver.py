"""A MedCLIPAD server on this computer, started and stopped from the panel."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from pathlib import Path
from typing import Callable

from slicer.i18n import tr as _

from MedCLIPADLib.process import Process, startup_path

_READY = re.compile(r"ready at (https?://\S+)")
SCRIPTS = "Scripts" if sys.platform == "win32" else "bin"  # folder of a virtual environment
PROGRAM = "medclipad.exe" if sys.platform == "win32" else "medclipad"


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
        self._process = Process(self._read, self._ended)
        self._stopping = False

    @property
    def running(self) -> bool:
        """Whether the server is running, or starting."""
        return self._process.running

    def start(self, executable: str, studies: str, port: int = 0) -> None:
        """Start the server for a folder of studies.

        Parameters
        ----------
        executable, studies : str
            Paths of the program and the folder.
        port : int
            The port of the last time: labels that wait for the server are sent to its address only. If it is not free,
            or 0, the server chooses one.
        """
        self._stopping = False
        arguments = ["serve", "--studies", studies, "--port", str(port if _is_free(port) else 0)]
        self._process.start(executable, arguments)

    def stop(self) -> None:
        """Stop the server; it is killed if it does not stop in time."""
        self._stopping = True
        self._process.stop()

    def stop_now(self) -> None:
        """Stop the server and wait until it has stopped, as needed when Slicer quits."""
        self._process.stop_now()

    def _read(self, line: str) -> None:
        self._line(line)
        found = _READY.search(line)
        if found:
            self._ready(found.group(1))

    def _ended(self, code: int | None) -> None:
        if code is None:
            self._stopped(_("The local server could not be started: choose another medclipad program."))
            return
        last = self._process.last_line(_("its log is empty"))
        sentence = _("The local server stopped unexpectedly (exit code {code}): {last}").format(code=code, last=last)
        self._stopped("" if self._stopping else sentence)


def find_executable(chosen: str = "", installed: Path | None = None) -> str | None:
    """Return the path of the medclipad program, or None if it was not found.

    Parameters
    ----------
    chosen : str
        A path to try first; then the PATH is searched, and common places of virtual environments.
    installed : Path, optional
        Folder of the environment that the panel installs the server into.
    """
    if chosen and Path(chosen).is_file():
        return chosen
    home = Path.home()
    folders = [installed / SCRIPTS] if installed is not None else []
    folders += [home / folder / SCRIPTS for folder in (".local", "medclipad", ".venv", "venv", "MedCLIPAD/.venv")]
    folders.append(Path(__file__).resolve().parents[2] / ".venv" / SCRIPTS)  # a checkout of the repository
    return shutil.which(PROGRAM, path=os.pathsep.join([startup_path(), *map(str, folders)]))


def _is_free(port: int) -> bool:
    """Return whether a server can listen on a port of this computer."""
    if port <= 0:
        return False
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
