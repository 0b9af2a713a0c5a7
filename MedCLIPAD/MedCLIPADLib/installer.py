"""Installation of the server into an environment of its own: never into Slicer's Python.

It is a virtual environment of another Python on this computer, filled by that environment's own pip.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Callable

from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.localserver import PROGRAM, SCRIPTS
from MedCLIPADLib.process import Process, startup_path

PYTHONS = ("python3.12", "python3.11", "python3", "python")  # versions that the server runs on, best first
_VERSION = re.compile(r"^3\.(11|12)$")
_ASK_VERSION = "import sys; print('%d.%d' % sys.version_info[:2])"
_DONE = ".installed"  # file in the environment that says that the installation was complete
_REPOSITORY = Path(__file__).resolve().parents[2]  # a checkout, when the module was added by its path
# MONAI Label itself without what it requires: OpenSlide, MLflow and SAM 2, which this server never loads.
_MONAI_LABEL = ("monailabel", "pydicom-seg")


def requirements() -> list[list[str]]:
    """Return the arguments of the calls of `pip install` that install the server.

    From the checkout that the module belongs to, or else from the package index.
    """
    checkout = (_REPOSITORY / "pyproject.toml").is_file()
    server = f"{_REPOSITORY}[server]" if checkout else "medclipad[server]"
    return [[server], ["--no-deps", *_MONAI_LABEL]]


class Installer:
    """Installs and removes the server; one step after the other, without blocking the interface.

    Parameters
    ----------
    folder : Path
        The environment; also an attribute.
    line : callable
        Called with each line that the installation prints.
    ended : callable
        Called at the end with "" if it succeeded or was cancelled, else with a sentence that says why it failed.
    """

    def __init__(self, folder: Path, line: Callable[[str], None], ended: Callable[[str], None]) -> None:
        self.folder = Path(folder)
        self._line, self._ended_with = line, ended
        self._process = Process(self._read, self._step_ended)
        self._steps: list[tuple[str, list[str]]] = []  # programs and their arguments, still to run
        self._pythons: list[str] = []
        self._requirements: Sequence[Sequence[str]] = ()
        self._cancelled = False

    @property
    def running(self) -> bool:
        """Whether an installation is running."""
        return self._process.running

    @property
    def installed(self) -> bool:
        """Whether the server is installed, in full."""
        return (self.folder / _DONE).is_file()

    def start(self, packages: Sequence[Sequence[str]] | None = None) -> None:
        """Install the server; an incomplete environment is replaced.

        Parameters
        ----------
        packages : sequence, optional
            Arguments of each call of `pip install`; by default those of `requirements`.

        Raises
        ------
        ModuleError
            If there is no Python on this computer's PATH.
        """
        found = [shutil.which(name, path=startup_path()) for name in PYTHONS]
        self._pythons = list(dict.fromkeys(path for path in found if path))
        self._requirements = requirements() if packages is None else packages
        self._cancelled = False
        self._steps = []
        self._try_next_python()

    def cancel(self) -> None:
        """Stop the installation, and remove what it has installed."""
        self._cancelled = True
        self._process.stop()

    def stop_now(self) -> None:
        """Stop the installation and wait until it has stopped, as needed when Slicer quits."""
        if self.running:
            self._process.stop_now()
            self.remove()

    def remove(self) -> None:
        """Remove the environment."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _try_next_python(self) -> None:
        if not self._pythons:
            raise ModuleError(
                _("No Python 3.11 or 3.12 was found: install one from python.org, restart Slicer, then press Install.")
            )
        self._process.start(self._pythons[0], ["-c", _ASK_VERSION])

    def _plan(self, python: str) -> None:
        """Plan the steps that follow once a Python was found."""
        self.remove()
        own = str(self.folder / SCRIPTS / "python")
        self._steps = [(python, ["-m", "venv", str(self.folder)])]
        for packages in self._requirements:
            self._steps.append((own, ["-m", "pip", "install", "--disable-pip-version-check", *packages]))
        self._steps.append((str(self.folder / SCRIPTS / PROGRAM), ["--help"]))

    def _read(self, line: str) -> None:
        if self._steps or not _VERSION.match(line.strip()):
            self._line(line)

    def _step_ended(self, code: int | None) -> None:
        if self._cancelled:
            self.remove()
            self._ended_with("")
        elif not self._steps:
            self._python_answered(code)
        elif code != 0:
            why = self._process.last_line(_("its log is empty"))
            self.remove()
            self._ended_with(_("The server could not be installed: {why}").format(why=why))
        else:
            self._steps.pop(0)
            self._next_step()

    def _python_answered(self, code: int | None) -> None:
        python = self._pythons.pop(0)
        if code == 0 and _VERSION.match(self._process.last_line("")):
            self._plan(python)
            self._next_step()
            return
        try:
            self._try_next_python()
        except ModuleError as error:
            self._ended_with(str(error))

    def _next_step(self) -> None:
        if self._steps:
            program, arguments = self._steps[0]
            self._line("> " + " ".join([program, *arguments]))
            self._process.start(program, arguments)
        else:
            (self.folder / _DONE).touch()
            self._ended_with("")
