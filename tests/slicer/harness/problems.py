"""Errors that Slicer would only print: in slots, VTK observers and threads, from Qt and from VTK."""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import vtk
from PySide6.QtCore import QtMsgType, qInstallMessageHandler

# What Qt says of this machine (no session bus, no fonts of a desktop), not of the module.
_OF_THE_MACHINE = ("QStandardPaths:", "qt.qpa.", "This plugin does not support", "QFontDatabase", "libEGL", "MESA")


class Problems:
    """Collects what went wrong without an exception reaching the caller."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self._expected: list[str] = []
        self._forgiving = False

    def install(self) -> None:
        self._hook_exceptions()
        qInstallMessageHandler(self._qt)
        window = vtk.vtkOutputWindow.GetInstance()
        window.AddObserver(vtk.vtkCommand.ErrorEvent, self._vtk)
        self._window = window

    def _hook_exceptions(self) -> None:
        sys.excepthook = self._exception
        threading.excepthook = lambda args: self._exception(args.exc_type, args.exc_value, args.exc_traceback)

    def _exception(self, kind: type[BaseException], value: BaseException, trace: Any) -> None:
        self.found.append("".join(traceback.format_exception(kind, value, trace)))
        sys.__excepthook__(kind, value, trace)

    def _qt(self, kind: QtMsgType, _context: Any, message: str) -> None:
        if kind != QtMsgType.QtDebugMsg and not message.startswith(_OF_THE_MACHINE):
            self.found.append(f"Qt: {message}")

    def _vtk(self, _window: vtk.vtkOutputWindow, _event: str, message: str = "") -> None:
        self.found.append(f"VTK: {message.strip()}")

    _vtk.CallDataType = vtk.VTK_STRING  # type: ignore[attr-defined]

    def expect(self, part: str) -> None:
        """Expect a problem whose text contains `part`: it must occur, and is not an error."""
        self._expected.append(part)

    def forgive(self) -> None:
        """Ignore all problems of this test, which breaks things on purpose."""
        self._forgiving = True

    @contextmanager
    def watched(self) -> Iterator[Problems]:
        """Raise AssertionError at the end if a problem was not expected, or an expected one did not occur."""
        self._hook_exceptions()  # Typer, which other tests call, puts its own hook in the place of ours
        self.found.clear()
        self._expected.clear()
        self._forgiving = False
        yield self
        missing = [part for part in self._expected if not any(part in found for found in self.found)]
        unexpected = [found for found in self.found if not any(part in found for part in self._expected)]
        self.found.clear()
        if self._forgiving:
            return
        assert not unexpected, "went wrong out of the test's sight:\n" + "\n".join(unexpected)
        assert not missing, f"expected, and did not come: {missing}"


problems = Problems()
