"""What PythonQt exposes of Slicer's and CTK's widget classes, and the keys that Slicer's own views use.

`pythonqt_api.json` holds it as data, read from the headers with

    python -m tests.slicer.harness.pythonqt_api SLICER=CTK [SLICER=CTK ...]

where SLICER and CTK are checkouts of one version of Slicer and of the CTK that its SuperBuild names. Python sees a
class's properties, signals, public slots, Q_INVOKABLE methods, registered enumerations, and what decorators add to it;
any other public C++ method does not exist for it. Kept is what all given versions have.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).with_name("pythonqt_api.json")
# The classes that the harness stands in for, and those whose exposed part the module uses; bases come with them.
CLASSES = (
    "ctkCheckBox", "ctkCheckablePushButton", "ctkCollapsibleButton", "ctkCollapsibleGroupBox",
    "ctkColorPickerButton", "ctkComboBox", "ctkDirectoryButton", "ctkDoubleSpinBox", "ctkMessageBox",
    "ctkPathLineEdit", "ctkRangeWidget", "ctkSearchBox", "ctkSliderWidget", "qMRMLNodeComboBox", "qMRMLPlotView",
    "qMRMLPlotWidget", "qMRMLSegmentEditorWidget", "qMRMLSliceControllerWidget", "qMRMLSliceView",
    "qMRMLSliceWidget", "qMRMLSliderWidget", "qMRMLTableWidget", "qMRMLThreeDView", "qMRMLThreeDWidget",
    "qMRMLWidget", "qSlicerApplication", "qSlicerIOManager", "qSlicerLayoutManager", "qSlicerLoadableModule",
    "qSlicerMainWindow", "qSlicerModuleFactoryManager", "qSlicerModuleManager", "qSlicerModuleSelectorToolBar",
    "qSlicerScriptedLoadableModule", "qSlicerScriptedLoadableModuleWidget", "qSlicerSubjectHierarchyPluginHandler",
    "qSlicerSubjectHierarchyScriptedPlugin", "qSlicerWidget",
)  # fmt: skip
_SECTION = re.compile(r"^\s*(public|protected|private)?\s*(slots|Q_SLOTS|signals|Q_SIGNALS)?\s*:\s*$")
# Python names of the harness whose C++ class has another one.
_STANDS_FOR = {
    "IOManager": ("qSlicerIOManager",),
    "MainWindow": ("qSlicerMainWindow",),
    "ModuleManager": ("qSlicerModuleManager", "qSlicerModuleFactoryManager"),
    "ModuleSelector": ("qSlicerModuleSelectorToolBar",),
    "qSlicerModule": ("qSlicerLoadableModule",),
}
_NAME = re.compile(r"([A-Za-z_]\w*)\s*\(")
_KEYS = re.compile(r'Set(?:Keyboard)?EventTranslation\(.*?"(\w+)", ')
_KEY_FILES = (
    "Libs/MRML/DisplayableManager/vtkMRMLSliceIntersectionWidget.cxx",
    "Libs/MRML/DisplayableManager/vtkMRMLCameraWidget.cxx",
    "Modules/Loadable/Markups/VTKWidgets/vtkSlicerMarkupsWidget.cxx",
)
_PLOT_KEYS = "Libs/MRML/Widgets/qMRMLPlotView.cxx"


@cache
def known() -> dict[str, Any]:
    """Return the data."""
    return json.loads(DATA.read_text(encoding="utf-8"))


@cache
def exposed(class_name: str) -> frozenset[str]:
    """Return the names that Python sees on objects of a class of Slicer or CTK, with those of all its bases.

    PythonQt exposes all public names of Qt's own classes. KeyError if the class is not listed.
    """
    classes = known()["classes"]
    entry = classes[class_name]
    base = entry["base"]
    return frozenset(entry["names"]) | (exposed(base) if base in classes else _of_qt(base))


def _of_qt(class_name: str) -> frozenset[str]:
    from PySide6 import QtCore, QtWidgets

    cls = getattr(QtWidgets, class_name, None) or getattr(QtCore, class_name, QtCore.QObject)
    meta = cls.staticMetaObject
    return frozenset(dir(cls)) | {meta.property(index).name() for index in range(meta.propertyCount())}


@cache
def hidden(cls: type, name: str) -> bool:
    """Return whether PythonQt hides a name of a stand-in, which then only the harness itself may use.

    A stand-in's `for_tests` names what tests may use beside: they look at what a reader sees, and act as one.
    """
    stand_ins = [base for base in cls.__mro__ if base.__module__.startswith(f"{__package__}.")]
    if not any(name in vars(base) for base in stand_ins):
        return False
    if any(name in vars(base).get("for_tests", ()) for base in stand_ins):
        return False
    names = [real for base in stand_ins for real in _STANDS_FOR.get(base.__name__, (base.__name__,))]
    listed = [real for real in names if real in known()["classes"]]
    return bool(listed) and not any(name in exposed(real) for real in listed)


class Checkout:
    """One version of Slicer and of CTK."""

    def __init__(self, slicer: Path, ctk: Path) -> None:
        self.slicer = slicer
        self.headers = {
            path.stem: path for root in (slicer, ctk) for path in root.rglob("*.h") if "Testing" not in str(path)
        }
        self.decorators: dict[str, set[str]] = {}
        for name, path in self.headers.items():
            if name.endswith("PythonQtDecorators"):
                for class_name, method in _decorated(path.read_text("utf-8", "replace")):
                    self.decorators.setdefault(class_name, set()).add(method)

    def classes(self, wanted: list[str]) -> dict[str, tuple[str, set[str]]]:
        """Return {class: (base, names)} of the wanted classes and their bases."""
        found: dict[str, tuple[str, set[str]]] = {}
        queue = list(wanted)
        while queue:
            name = queue.pop()
            if name in found or name not in self.headers:
                continue
            text = _without_comments(self.headers[name].read_text("utf-8", "replace"))
            base, names = _declared(name, text)
            found[name] = base, names | self.decorators.get(name, set())
            queue.append(base)
        return found

    def keys(self) -> set[str]:
        """Return the keys of the slice, 3D and plot views, and of markups, as VTK and Qt name them."""
        text = "".join((self.slicer / file).read_text("utf-8", "replace") for file in _KEY_FILES)
        plot = (self.slicer / _PLOT_KEYS).read_text("utf-8", "replace")
        return {*_KEYS.findall(text), *(key.lower() for key in re.findall(r"Qt::Key_(\w)\b", plot))}


def _without_comments(text: str) -> str:
    return re.sub(r"/\*.*?\*/|//[^\n]*", "", text, flags=re.DOTALL)


def _decorated(text: str) -> Iterator[tuple[str, str]]:
    """Yield (class, method) of a header of decorators, whose first argument is the object."""
    for method, class_name in re.findall(r"(\w+)\(\s*(\w+)\s*\*\s*\w+", _without_comments(text)):
        if not method.startswith(("new_", "delete_", "static_")):
            yield class_name, method
    for method in re.findall(r"\bstatic_(\w+)\(", text):
        class_name, _, name = method.partition("_")
        yield class_name, name


def _declared(name: str, text: str) -> tuple[str, set[str]]:
    """Return the base of a class, and the names that its declaration exposes."""
    start = re.search(rf"class\s+(?:\w+\s+)?{name}\s*(?:final\s*)?:\s*public\s+(\w+)", text)
    if start is None:
        raise ValueError(f"no declaration of {name}")
    body = text[start.end() :]
    end = re.search(r"\n};", body)
    body = body[: end.start()] if end else body
    names = set(re.findall(r"Q_PROPERTY\(\s*[\w:<>*]+\s+(\w+)", body))
    enumerations = re.findall(r"Q_(?:ENUM|FLAG|ENUMS|FLAGS)\(([\w\s]+)\)", body)
    for enumeration in (word for words in enumerations for word in words.split()):
        flag = re.search(rf"Q_DECLARE_FLAGS\(\s*{enumeration}\s*,\s*(\w+)\s*\)", body)
        kind = flag.group(1) if flag else enumeration
        members = re.search(rf"enum\s+(?:class\s+)?{kind}\b[^{{]*{{([^}}]*)}}", body)
        names |= (
            {enumeration, *re.findall(r"(\w+)\s*(?:=[^,]*)?(?:,|$)", members.group(1))} if members else {enumeration}
        )
    section = ""
    for statement in re.split(r"[;{}]\s*\n|(?<=:)\n", body):
        for line in statement.splitlines():
            if _SECTION.match(line):
                section = line.strip(" \t:")
        called = _NAME.search(re.sub(r"Q_INVOKABLE|Q_PROPERTY\(.*?\)|Q_ENUMS?\(.*?\)", "", statement))
        visible = section in ("signals", "Q_SIGNALS", "public slots", "public Q_SLOTS") or "Q_INVOKABLE" in statement
        if visible and called and not section.startswith(("protected", "private")):
            names.add(called.group(1))
    return start.group(1), names - {name, "qWarning"}


def main(arguments: list[str]) -> None:
    """Read the headers of all given versions, and write what they have in common."""
    versions = [Checkout(*map(Path, pair.split("="))) for pair in arguments]
    read = [version.classes(list(CLASSES)) for version in versions]
    common = sorted(set.intersection(*(set(found) for found in read)))
    missing = sorted(set(CLASSES) - set(common))
    if missing:
        raise SystemExit(f"no header of {', '.join(missing)}")
    classes = {
        name: {
            "base": read[-1][name][0],
            "header": versions[-1].headers[name].name,
            "names": sorted(set.intersection(*(found[name][1] for found in read))),
        }
        for name in common
    }
    keys = sorted(set.union(*(version.keys() for version in versions)))
    lines = [f"  {json.dumps(name)}: {json.dumps(entry)}" for name, entry in classes.items()]
    sources = [_described(*pair.split("=")) for pair in arguments]
    DATA.write_text(
        '{\n "sources": '
        + json.dumps(sources, indent=2)
        + ',\n "keys": '
        + json.dumps(keys)
        + ',\n "classes": {\n'
        + ",\n".join(lines)
        + "\n }\n}\n",
        encoding="utf-8",
    )
    print(f"{DATA.name}: {len(classes)} classes, {sum(len(entry['names']) for entry in classes.values())} names")


def _described(slicer: str, ctk: str) -> str:
    """Return a version in words."""
    from .slicer_source import version_of

    pinned = re.search(r'"([0-9a-f]{40})"', (Path(slicer) / "SuperBuild" / "External_CTK.cmake").read_text("utf-8"))
    return f"Slicer {version_of(Path(slicer))} with CTK {pinned.group(1)[:10] if pinned else Path(ctk).name}"


if __name__ == "__main__":
    main(sys.argv[1:])
