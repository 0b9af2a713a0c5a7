"""3D Slicer's Python environment without the application, to test a scripted module.

Real: MRML, logics, slice pipeline, displayable managers, storage, layouts and `slicer.util` (all from the package
`slicer-core`), Qt itself (PySide6), VTK's rendering (off screen).
Stand-ins: the bindings' manners (`pythonqt`), the few CTK and qMRML widgets, `slicer.app`, and, unless
MEDCLIPAD_SLICER_SOURCE names a checkout of Slicer (`slicer_source`), the scripted module's base classes, the parameter
node wrapper, i18n and SampleData's registration.

`start` works in any process and only once; it changes PySide6's QObject for the whole process, so nothing else in that
process may use PySide6 with its usual manners. Nothing happens at import.
"""

from __future__ import annotations

import ctypes
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

__all__ = ["load", "start", "unload", "without_main_window"]


def start() -> Any:
    """Start the harness and return its `slicer.app`; then `import slicer, qt, ctk` work as in Slicer."""
    if "qt" in sys.modules:
        import slicer

        return slicer.app
    if sys.platform == "linux" and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    _keep_constants_alive()
    from . import ctk, pythonqt

    _, application = pythonqt.install()
    ctk.install()
    import slicer

    from . import application as stand_ins
    from . import messages, qmrml, slicer_source, subject_hierarchy
    from .problems import problems

    source = slicer_source.folder()

    problems.install()
    qmrml.install()
    subject_hierarchy.install()
    slicer.modules = sys.modules["slicer.modules"] = types.ModuleType("slicer.modules")
    slicer.selfTests = {}
    version = slicer_source.version_of(source) if source else slicer_source.STAND_IN_VERSION
    slicer.app = stand_ins.qSlicerApplication(application, version)
    for name in ("qSlicerScriptedLoadableModule", "qSlicerScriptedLoadableModuleWidget", "qSlicerApplication"):
        setattr(slicer, name, getattr(stand_ins, name))
    slicer.app._start()
    if source is None:
        _load_stand_ins()
    else:
        slicer_source.load(source)
    messages.install(slicer.app)
    if problems.found:
        raise RuntimeError("the harness did not start:\n" + "\n".join(problems.found))
    return slicer.app


def _load_stand_ins() -> None:
    """Load the stand-ins for Slicer's own Python files."""
    import slicer

    from .application import load_file

    here = Path(__file__).parent
    for name, file in (
        ("slicer.i18n", "i18n.py"),
        ("slicer.ScriptedLoadableModule", "scripted.py"),
        ("slicer.parameterNodeWrapper", "parameter_node.py"),
        ("SampleData", "sample_data.py"),
    ):
        module = load_file(name, here / file)
        if name.startswith("slicer."):
            setattr(slicer, name.removeprefix("slicer."), module)


def _keep_constants_alive() -> None:
    """PySide6 6.12 returns None, True and False without taking a reference.

    They are immortal from Python 3.12 on, but on 3.11 the interpreter stops with "deallocating None" after some ten
    thousand calls. So they get references to spare.
    """
    if sys.version_info < (3, 12):
        for constant in (None, True, False):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40


def load(path: Path) -> tuple[types.ModuleType, Any]:
    """Import a scripted module, set it up and enter it; return (Python module, widget)."""
    import slicer

    from .application import import_scripted_module, make_widget

    module = import_scripted_module(Path(path))
    slicer.app.startupCompleted.emit()
    widget = make_widget(module)
    window = slicer.util.mainWindow()
    try:
        widget.setup()
        if window is not None:
            window.panel().takeWidget()
            window.panel().setWidget(widget.parent)
            slicer.util.selectModule(widget.moduleName)
        slicer.app.processEvents()
    except BaseException:
        unload(widget)
        raise
    return module, widget


@contextmanager
def without_main_window() -> Iterator[None]:
    """Run as Slicer does with --no-main-window, as in its generic tests of modules: no window, no layout manager."""
    import slicer

    window = slicer.util.mainWindow()
    window.objectName, slicer.app._windowless = "", True
    try:
        yield
    finally:
        window.objectName, slicer.app._windowless = "qSlicerMainWindow", False


def unload(widget: Any) -> None:
    """Leave a module, and destroy its widget and all its observers."""
    import slicer

    try:
        if widget.parent.isEntered:
            widget.parent.exit()
        widget.cleanup()
    finally:
        getattr(widget, "removeObservers", lambda: None)()
        if slicer.util.mainWindow() is not None:
            slicer.util.mainWindow().panel().takeWidget()
        widget.parent.deleteLater()
        slicer.app.processEvents()
