"""Every text that the panel shows goes through `_`, so that Slicer's language packs can translate it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hands import AFFINE, detect
from served import MODULE, add_volume, head

FILES = sorted(
    path for path in MODULE.parent.rglob("*.py") if path.name != "selftest.py" and "Testing" not in path.parts
)
# What is called with, and set to, texts that are shown.
CALLED = {
    "say",
    "fail",
    "failed",
    "report",
    "ModuleError",
    "ServerError",
    "_wait",
    "_show_state",
    "say_why",
    "_idle",
    "_over",
    "_stopped",
    "_set_chart",
}
ASSIGNED = {"text", "toolTip", "title", "placeholderText", "specialValueText"}
SERVERS = {"verdictTextLabel"}  # labels with nothing but the server's own sentences
# Literals with a space that nobody sees as text of the panel.
NOT_SHOWN = re.compile(
    r"MedCLIPAD (anomaly|training loss.*|temporary|progress|contributors|)|slice scores.*| anomaly \(|"  # of nodes
    r"Next volume|Test connection|Select version|Delete version|Stop training|"  # jobs
    r"(Current|Limit) [XY]|"  # columns of the plot's lines
    r"Volume \(ml\)|Extent \(mm\)|First slice|Last slice|Peak slice|"  # columns of the regions' table node: its format
    r"unknown host|not medclipad|Not Found|MedCLIPAD: .*|The self test of MedCLIPAD passed\.|"  # causes, log, self test
    r"import sys; .*|"  # programs
    r"(Segmentation category and type - |~Anatomic codes - )DICOM master list.*|"  # a terminology
    r"MedCLIPAD, not for diagnosis|"  # description of a DICOM series
    r"ready at .*|color: .*|Bearer |form-data; .*|multipart/.*|Content-.*|.*(Content-Disposition|filename=).*|"
    r"(type|dimension|space|sizes|space directions|kinds|endian|encoding|space origin): .*|\{\"learning_rate\".*"
)


def outside(tree: ast.AST) -> Iterator[ast.Constant]:
    """Yield the string literals that are not inside `_(...)`, and are neither docstrings nor keys."""
    if isinstance(tree, (ast.Subscript, ast.Compare)):
        return
    if isinstance(tree, ast.Call) and getattr(tree.func, "id", getattr(tree.func, "attr", "")) in (
        "_",
        "translate",
        "get",
        "put",
    ):
        return
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        yield from outside(child)
    if isinstance(tree, ast.Constant) and isinstance(tree.value, str):
        yield tree


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_sentences_are_marked_for_translation(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = [text for text in outside(tree) if re.search(r"\w ", text.value)]
    for node in ast.walk(tree):
        shown: list[ast.AST] = []
        if isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            shown = node.args[:1] if name in CALLED else []
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Attribute):
            shown = [node.value] if node.targets[0].attr in ASSIGNED else []
        found += [text for part in shown for text in outside(part) if re.search(r"[A-Za-z]{3}", text.value)]
    assert not [f"line {text.lineno}: {text.value}" for text in found if not NOT_SHOWN.fullmatch(text.value)]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_translated_texts_are_literals_with_names_in_braces(file: Path) -> None:
    """Slicer's tools read the literals from the source, and `tr` refuses a translation with other braces."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    imported = any(isinstance(node, ast.ImportFrom) and any(a.asname == "_" for a in node.names) for node in tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
            assert imported, "`_` is not imported"
            assert len(node.args) == 1 and isinstance(node.args[0], ast.Constant), f"line {node.lineno}"
            braces = re.findall(r"\{.*?\}", node.args[0].value)
            assert all(re.fullmatch(r"\{[a-z]+\}", part) for part in braces), braces
        if imported:
            taken = isinstance(node, ast.Name) and node.id == "_" and not isinstance(node.ctx, ast.Load)
            assert not taken and not (isinstance(node, ast.arg) and node.arg == "_"), f"`_` has another meaning: {node}"


@pytest.fixture
def contexts(slicer_app: Any) -> Iterator[set[str]]:
    """A language that puts each text in quotes; the contexts that were requested."""
    from PySide6.QtCore import QCoreApplication, QTranslator

    asked = set()

    class Quotes(QTranslator):
        def isEmpty(self) -> bool:
            return False

        def translate(self, context: str, text: str, _comment: str | None = None, _n: int = -1) -> str:
            asked.add(context)
            return f"«{text}»"

    translator = Quotes()
    assert QCoreApplication.installTranslator(translator)
    yield asked
    QCoreApplication.removeTranslator(translator)


def untranslated(text: str) -> bool:
    """Return whether letters remain when everything in quotes is removed."""
    while re.search("«[^«»]*»", text):
        text = re.sub("«[^«»]*»", "", text)
    return bool(re.search(r"[A-Za-z]", text))


def texts(panel: Any) -> dict[str, str]:
    """Return the texts of labels, buttons, tool tips and table headers by the widgets' names."""
    import qt

    found = {}
    for name, widget in vars(panel.ui).items():
        if isinstance(widget, (qt.QLabel, qt.QAbstractButton)) and name not in SERVERS:
            found[name] = widget.text
        if hasattr(widget, "toolTip"):
            found[f"{name}'s tool tip"] = widget.toolTip
        if isinstance(widget, qt.QTableWidget):
            for column in range(widget.columnCount):
                found[f"{name}'s column {column}"] = widget.horizontalHeaderItem(column).text()
    return found


def test_another_language_changes_every_text_of_the_panel(contexts: set[str], panel: Any) -> None:
    from harness import user

    ui = panel.ui
    assert ui.connectButton.text == "«Disconnect»" and ui.connectionLabel.text.startswith("«Connected to http://")
    detect(panel, add_volume("Patient", head(AFFINE, seed=71)[0], AFFINE))
    user.wait_until(lambda: ui.regionsTable.rowCount > 0, 20, "regions")
    assert ui.intensityComboBox.itemText(0) == "«Automatic»"
    assert re.fullmatch(r"«Done (in [\d.]+ s|\(stored result\))\.»", ui.detectLabel.text)
    ui.reviewCollapsibleButton.collapsed = False
    user.click(ui.markNormalButton)
    assert re.search("«Marks: «axial slice «\\d+ normal»»\\.»", ui.marksLabel.text)
    panel.training.show_outcome({"outcome": {"version": "new", "old": {"dice": 0.5}, "new": {"dice": 0.6}}})
    assert ui.outcomeTable.item(0, 0).text() == "«Slice AUROC»"
    assert ui.messageLabel.text == "«Training finished: «The new version new is ready.»»"
    assert not {name: text for name, text in texts(panel).items() if untranslated(text)}

    user.click(ui.connectButton)
    user.write(ui.urlLineEdit, "nonsense")
    user.click(ui.connectButton)
    user.wait_until(lambda: "nonsense" in ui.messageLabel.text, 10)
    assert re.fullmatch("«'nonsense' is not a server address: .*»", ui.messageLabel.text), "raised in a thread"
    assert {"MedCLIPAD", "MedCLIPADLib.transport", "panels.detect"} <= contexts
