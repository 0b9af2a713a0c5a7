"""What all sections share."""

from __future__ import annotations

from typing import Any, Callable

import qt
from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError
from MedCLIPADLib.results import Result

_OWN_TOOL_TIP = "MedCLIPADToolTip"  # dynamic property that keeps a widget's own tool tip


class Panel:
    """A section of the panel.

    Parameters
    ----------
    module : MedCLIPADWidget
        The module's widget.

    Attributes
    ----------
    module, ui, logic, session
        The module's widget, its child widgets by name, its logic, and the logic's session.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.ui = module.ui
        self.logic = module.logic
        self.session = module.logic.session

    @property
    def parameters(self) -> Any:
        """The module's parameter node."""
        return self.module.parameters

    @property
    def result(self) -> Result | None:
        """The selected map."""
        return Result.of(self.parameters.result)

    def require_result(self) -> Result:
        """Return the selected map; ModuleError if there is none."""
        if self.result is None:
            raise ModuleError(_("There is no map yet: choose a volume and press Detect."))
        return self.result

    def say(self, sentence: str) -> None:
        """Show a sentence at the top of the panel."""
        self.module.say(sentence)

    def fail(self, sentence: str) -> None:
        """Show an error at the top of the panel."""
        self.module.say(sentence, bad=True)

    def fail_and_update(self, sentence: str) -> None:
        """Show an error and update all sections: the callback of a failed job."""
        self.fail(sentence)
        self.module.update()

    def on_click(self, button: Any, action: Callable[[], Any]) -> None:
        """Call `action` when a button is pressed.

        The last message goes, as it belongs to what was done before; a ModuleError becomes a sentence in the panel.
        """

        def pressed(_checked: bool = False) -> None:
            self.say("")
            self.guarded(action)

        button.connect("clicked(bool)", pressed)

    def guarded(self, action: Callable[[], Any]) -> None:
        """Call `action`; a ModuleError becomes a sentence in the panel."""
        try:
            action()
        except ModuleError as error:
            self.fail(str(error))

    # --- called by the module's widget ---
    def update(self) -> None:
        """Show the state of the parameter node and the session."""

    def forget(self) -> None:
        """Forget what belongs to the scene that was closed, or the server that was left."""

    def tick(self) -> None:
        """Show the progress of jobs; called regularly while there are any."""


def say_why(widget: Any, reason: str = "") -> None:
    """Enable a widget, or disable it with a tool tip that says why.

    Parameters
    ----------
    widget : QWidget
        The widget; its own tool tip returns when it is enabled.
    reason : str
        A sentence that says what to do first, or "" to enable the widget.
    """
    own = widget.property(_OWN_TOOL_TIP)
    if own is None:
        own = widget.toolTip
        widget.setProperty(_OWN_TOOL_TIP, own)
    widget.enabled = not reason
    widget.toolTip = reason or own


def chosen_path(answer: Any) -> str:
    """Return the path that a QFileDialog gave, or ""; Slicer's Python gives it alone, others with the chosen filter."""
    return (answer[0] if isinstance(answer, tuple) else answer) or ""


def fill_table(table: Any, titles: list[str], rows: list[tuple]) -> None:
    """Show rows of values as text in a QTableWidget."""
    table.clearContents()
    table.columnCount, table.rowCount = len(titles), len(rows)
    table.setHorizontalHeaderLabels(titles)
    table.verticalHeader().setVisible(False)
    for row, values in enumerate(rows):
        for column, value in enumerate(values):
            item = qt.QTableWidgetItem(str(value))
            item.setToolTip(str(value))  # a narrow panel clips the last column
            table.setItem(row, column, item)
    table.horizontalHeader().setStretchLastSection(False)  # otherwise the last column keeps its previous width
    table.resizeColumnsToContents()
    table.horizontalHeader().setStretchLastSection(True)


def version_entries(versions: list[dict], current: str) -> list[tuple[str, str]]:
    """Return (text, name) of versions; the text says which one is in use."""
    in_use = _("{name} (in use)")
    names = [version["name"] for version in versions]
    return [(in_use.format(name=name) if name == current else name, name) for name in names]


def fill_combo(combo: Any, entries: list[tuple[str, str]], chosen: str) -> str:
    """Fill a QComboBox and select an entry.

    Parameters
    ----------
    combo : QComboBox
        The combo box; its signals are blocked meanwhile.
    entries : list
        (text, value) pairs.
    chosen : str
        The value to select; the first one is selected if it is not there.

    Returns
    -------
    str
        The selected value; "" if there are no entries.
    """
    was = combo.blockSignals(True)
    if [(combo.itemText(row), combo.itemData(row)) for row in range(combo.count)] != entries:
        combo.clear()
        for text, value in entries:
            combo.addItem(text, value)
    values = [value for _text, value in entries]
    combo.currentIndex = values.index(chosen) if chosen in values else (0 if values else -1)
    combo.blockSignals(was)
    return values[combo.currentIndex] if values else ""
