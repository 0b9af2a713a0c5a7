"""What all sections share."""

from __future__ import annotations

from typing import Any, Callable

import qt
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.results import Result


class Panel:
    """A section. `module` is the module's widget: ui, logic, parameters, say()."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.ui = module.ui
        self.logic = module.logic
        self.session = module.logic.session

    @property
    def parameters(self) -> Any:
        return self.module.parameters

    @property
    def result(self) -> Result | None:
        """The map that is looked at."""
        return Result.of(self.parameters.result)

    def need_result(self) -> Result:
        if self.result is None:
            raise ModuleError(_("There is no map yet: choose a volume and press Detect."))
        return self.result

    def say(self, sentence: str) -> None:
        self.module.say(sentence)

    def fail(self, sentence: str) -> None:
        self.module.say(sentence, bad=True)

    def on_click(self, button: Any, action: Callable[[], None]) -> None:
        """Run `action` when a button is pressed; a ModuleError becomes a sentence in the panel."""
        button.connect("clicked(bool)", lambda _checked=False: self.guarded(action))

    def guarded(self, action: Callable[[], Any]) -> None:
        try:
            action()
        except ModuleError as error:
            self.fail(str(error))

    # --- what the module's widget calls ---
    def update(self) -> None:
        """Show what the parameter node and the session say now."""

    def tick(self) -> None:
        """While jobs are under way."""


def fill_table(table: Any, titles: list[str], rows: list[tuple]) -> None:
    """Show rows of texts."""
    table.clearContents()
    table.columnCount, table.rowCount = len(titles), len(rows)
    table.setHorizontalHeaderLabels(titles)
    table.verticalHeader().setVisible(False)
    for row, texts in enumerate(rows):
        for column, text in enumerate(texts):
            table.setItem(row, column, qt.QTableWidgetItem(str(text)))
    table.horizontalHeader().setStretchLastSection(False)  # or the last column would keep the width of its contents
    table.resizeColumnsToContents()
    table.horizontalHeader().setStretchLastSection(True)


def version_entries(versions: list[dict], current: str) -> list[tuple[str, str]]:
    """(text, name) of versions of a detector; the text says which one serves."""
    serving = _("{name} (serving)")
    names = [version["name"] for version in versions]
    return [(serving.format(name=name) if name == current else name, name) for name in names]


def fill_combo(combo: Any, entries: list[tuple[str, str]], chosen: str) -> str:
    """Offer (text, value) pairs and choose a value, or the first; returns the value that is chosen, "" without any."""
    was = combo.blockSignals(True)
    if [(combo.itemText(row), combo.itemData(row)) for row in range(combo.count)] != entries:
        combo.clear()
        for text, value in entries:
            combo.addItem(text, value)
    values = [value for _text, value in entries]
    combo.currentIndex = values.index(chosen) if chosen in values else (0 if values else -1)
    combo.blockSignals(was)
    return values[combo.currentIndex] if values else ""
