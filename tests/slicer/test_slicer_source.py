"""The layer with Slicer's own Python files, and the list of what PythonQt exposes."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from harness import pythonqt_api, slicer_source

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A folder with the files that a checkout of Slicer has, empty but for the version."""
    for file in slicer_source.FILES.values():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    parts = (("MAJOR", 5), ("MINOR", 8), ("PATCH", 1))
    lines = [f'  set(Slicer_VERSION_{part} "{number}")' for part, number in parts]
    (tmp_path / "CMakeLists.txt").write_text("\n".join(lines))
    return tmp_path


@pytest.mark.parametrize("verbosity", [["-q"], ["-v"], ["-o", "addopts="]])
def test_pytest_says_which_source_was_loaded(checkout: Path, verbosity: list[str]) -> None:
    command = [sys.executable, "-m", "pytest", *verbosity, "--collect-only", "tests/slicer/test_slicer_source.py"]
    environment = os.environ | {slicer_source.VARIABLE: str(checkout)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert f"Slicer source: {checkout} 5.8.1" in done.stdout


def test_a_folder_that_is_no_checkout_is_refused(
    tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is one that does not say its version."""
    monkeypatch.setenv(slicer_source.VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(RuntimeError, match="is not a checkout of Slicer"):
        slicer_source.folder()
    (checkout / "CMakeLists.txt").unlink()
    monkeypatch.setenv(slicer_source.VARIABLE, str(checkout))
    with pytest.raises(RuntimeError, match=r"it has no CMakeLists\.txt"):
        slicer_source.folder()


def test_the_running_python_files_are_those_of_the_source(slicer_app: Any) -> None:
    import slicer

    root = slicer_source.folder()
    for name, file in slicer_source.FILES.items():
        loaded = Path(sys.modules[name].__file__ or "")
        assert (loaded == root / file) if root else (root is None and loaded != file), name
    version = slicer_source.version_of(root) if root else slicer_source.STAND_IN_VERSION
    assert slicer.app.applicationVersion == version


HIDDEN = [
    (lambda app: app.layoutManager().plotWidget(0).plotView(), "mrmlPlotViewNode"),
    (lambda app: app.layoutManager().plotWidget(0).plotView(), "interactor"),
    (lambda app: app.layoutManager().sliceWidget("Red").sliceView(), "sliceLogic"),
    (lambda app: app, "mainWindow"),
]


@pytest.mark.parametrize(("owner", "name"), HIDDEN, ids=[name for _, name in HIDDEN])
def test_what_pythonqt_hides_raises(scene: Any, slicer_app: Any, owner: Any, name: str) -> None:
    """Public C++ methods that are neither slot, property, invokable nor decorated."""
    import slicer

    slicer_app.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView)
    with pytest.raises(AttributeError, match=name):
        getattr(owner(slicer_app), name)
    with pytest.raises(AttributeError):
        setattr(owner(slicer_app), name, None)


def test_every_stand_in_of_a_widget_is_in_the_list(slicer_app: Any) -> None:
    import ctk
    import slicer

    stand_ins = [cls for owner in (ctk, slicer) for cls in vars(owner).values() if isinstance(cls, type)]
    named = {cls.__name__ for cls in stand_ins if cls.__module__.startswith("harness.")}
    assert {"qMRMLPlotView", "qSlicerScriptedLoadableModuleWidget"} & named
    assert sorted(name for name in named if name not in pythonqt_api.known()["classes"]) == []


def test_the_list_names_its_sources() -> None:
    words = " ".join(pythonqt_api.known()["sources"])
    assert all(version in words for version in ("5.8.1", "5.10.0", "5.12.3", "CTK"))


def test_the_list_is_what_the_headers_say(tmp_path: Path) -> None:
    """A property, a signal, a slot, an invokable, an enumeration and a decorated method; nothing else."""
    slicer, ctk = tmp_path / "slicer", tmp_path / "ctk"
    slicer.mkdir()
    ctk.mkdir()
    (slicer / "qMRMLThing.h").write_text(
        """
class QMRML_EXPORT qMRMLThing : public QWidget
{
  Q_OBJECT
  Q_PROPERTY(int size READ size WRITE setSize)
  Q_ENUMS(Kind)
public:
  enum Kind { Small = 0, Large };
  explicit qMRMLThing(QWidget* parent = nullptr);
  int size()const;
  /// not hiddenInComment();
  vtkMRMLNode* hiddenNode()const;
  Q_INVOKABLE vtkMRMLNode* node()const;
public slots:
  void setSize(int size);
signals:
  void sizeChanged(int);
protected slots:
  void onNode();
private:
  int Size;
};
"""
    )
    (slicer / "qMRMLThingPythonQtDecorators.h").write_text(
        "class D : public QObject {\npublic slots:\n  int decorated(qMRMLThing* self, int n) { return n; }\n};\n"
    )
    found = pythonqt_api.Checkout(slicer, ctk).classes(["qMRMLThing"])
    names = {"size", "Kind", "Small", "Large", "node", "setSize", "sizeChanged", "decorated"}
    assert found == {"qMRMLThing": ("QWidget", names)}


def called_methods() -> dict[str, str]:
    """Return the methods of MRML's and VTK's spelling that the module calls, and a file that does."""
    module = ROOT / "MedCLIPAD"
    found: dict[str, str] = {}
    for path in module.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr[:1].isupper():
                found.setdefault(node.func.attr, path.name)
    return found


def test_every_mrml_method_that_the_module_calls_is_in_that_versions_headers() -> None:
    """The tests' C++ is that of slicer-core, which is newer than Slicer 5.8."""
    import SimpleITK
    import vtk

    root = slicer_source.folder()
    if root is None or not (root / "Libs" / "MRML").is_dir():
        pytest.skip(f"needs {slicer_source.VARIABLE} with Slicer's headers")
    headers = [path for part in ("Libs", "Base", "Modules/Loadable") for path in (root / part).rglob("*.h")]
    words = set(re.findall(r"\w+", " ".join(path.read_text("utf-8", "replace") for path in headers)))
    of_vtk = {name for cls in vars(vtk).values() if isinstance(cls, type) for name in dir(cls)}
    python = {"Thread", "TemporaryDirectory", "Session", "MedCLIPADTest"}  # classes of Python's
    missing = {}
    for name, file in called_methods().items():
        by_macro = re.sub(r"^(Get|Set)|(On|Off)$", "", name)  # vtkSetMacro(Name, ...) and its relatives
        elsewhere = name in of_vtk or name in python or name in dir(SimpleITK) or name.startswith("Q")  # Q: of Qt
        if not (name in words or by_macro in words or elsewhere):
            missing[name] = file
    assert missing == {}
