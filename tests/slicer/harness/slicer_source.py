"""Slicer's own Python files, from a checkout that MEDCLIPAD_SLICER_SOURCE names, in place of the harness's stand-ins.

They are loaded at run time and never copied: `slicer.util`, `slicer.i18n`, `slicer.ScriptedLoadableModule`,
`slicer.parameterNodeWrapper`, `SampleData`, and `slicer.packaging` where that version has it. Two adapters are needed:
guiConnectors names widget classes that the harness lacks, and PythonQt takes a tuple for a QStringList.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
import types
from pathlib import Path
from typing import Any

VARIABLE = "MEDCLIPAD_SLICER_SOURCE"
STAND_IN_VERSION = "5.8.1"  # the oldest that is supported, whose manners the stand-ins have
VERSION_FILE = Path("CMakeLists.txt")
PYTHON = Path("Base") / "Python" / "slicer"
FILES = {
    "slicer.i18n": PYTHON / "i18n.py",
    "slicer.util": PYTHON / "util.py",
    "slicer.ScriptedLoadableModule": PYTHON / "ScriptedLoadableModule.py",
    "slicer.parameterNodeWrapper": PYTHON / "parameterNodeWrapper" / "__init__.py",
    "SampleData": Path("Modules") / "Scripted" / "SampleData" / "SampleData.py",
}
OPTIONAL = {"slicer.packaging": PYTHON / "packaging.py"}  # from 5.12 on


def folder() -> Path | None:
    """Return the checkout that the environment names, or None; RuntimeError if it is not one."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    root = Path(named)
    missing = [str(file) for file in (VERSION_FILE, *FILES.values()) if not (root / file).is_file()]
    if missing:
        raise RuntimeError(f"{VARIABLE}={named} is not a checkout of Slicer: it has no {', '.join(missing)}")
    return root


def version_of(root: Path) -> str:
    """Return the version in a checkout's CMakeLists.txt, such as "5.8.1"."""
    text = (root / VERSION_FILE).read_text(encoding="utf-8")
    parts = [re.search(rf'set\(Slicer_VERSION_{part} "(\d+)"\)', text) for part in ("MAJOR", "MINOR", "PATCH")]
    if None in parts:
        raise RuntimeError(f"{root / VERSION_FILE} names no version of Slicer")
    return ".".join(part.group(1) for part in parts if part)


def header() -> str:
    """Return the line for pytest's header: which source was loaded, and its version."""
    root = folder()
    if root is None:
        return f"Slicer source: none, the harness's stand-ins (set {VARIABLE} to a checkout of Slicer)"
    return f"Slicer source: {root} {version_of(root)}"


def load(root: Path) -> None:
    """Load Slicer's own files; needs a running harness."""
    import slicer

    _add_widget_classes((root / PYTHON / "parameterNodeWrapper" / "guiConnectors.py").read_text(encoding="utf-8"))
    present = {name: file for name, file in OPTIONAL.items() if (root / file).is_file()}
    for name, file in {**FILES, **present}.items():
        module = _module(name, root / file)
        if name.startswith("slicer."):
            setattr(slicer, name.removeprefix("slicer."), module)
    connectors = sys.modules["slicer.parameterNodeWrapper.guiConnectors"]
    node_types: Any = connectors.getNodeTypes  # type: ignore[attr-defined]
    connectors.getNodeTypes = lambda datatype: list(node_types(datatype))  # type: ignore[attr-defined]


def _module(name: str, path: Path) -> types.ModuleType:
    locations = [str(path.parent)] if path.name == "__init__.py" else None
    spec: Any = importlib.util.spec_from_file_location(name, path, submodule_search_locations=locations)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _add_widget_classes(text: str) -> None:
    """Add an empty class for each widget class that a source names and the harness lacks."""
    import ctk
    import qt
    import slicer
    from PySide6.QtWidgets import QWidget

    for owner in (ctk, qt, slicer):
        for name in set(re.findall(rf"\b{owner.__name__}\.([cqQ]\w+)", text)):
            if not hasattr(owner, name):
                setattr(owner, name, type(name, (QWidget,), {"__module__": owner.__name__}))  # no stand-in
