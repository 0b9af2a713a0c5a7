"""A form of Qt widgets for the fields of a JSON schema."""

from __future__ import annotations

import json
from typing import Any

import ctk
import qt
from slicer.i18n import tr as _

from MedCLIPADLib.schema import Field, default_text, fields, parsed

_MAX_INTEGER = 2**31 - 1
_MAX_NUMBER = 1e9


class Form:
    """A form with one row for each field; the advanced ones are in a collapsed group.

    Parameters
    ----------
    widget : QWidget
        An empty widget, which the form fills.
    """

    def __init__(self, widget: Any) -> None:
        self._layout = qt.QFormLayout(widget)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._schema = ""
        self._rows: list[_Row] = []

    def show(self, schema: dict) -> None:
        """Show the fields of a JSON schema.

        What the reader entered is kept if the schema has not changed.
        """
        text = json.dumps(schema, sort_keys=True)
        if text == self._schema:
            return
        self._schema = text
        while self._layout.rowCount():
            self._layout.removeRow(0)
        self._rows = [_Row(field) for field in fields(schema)]
        advanced = [row for row in self._rows if row.field.advanced]
        for row in self._rows:
            if not row.field.advanced:
                row.add_to(self._layout)
        if advanced:
            group = ctk.ctkCollapsibleGroupBox()
            group.title = _("Advanced")
            group.toolTip = _("Parameters that most trainings leave at their defaults.")
            group.setObjectName("advancedGroupBox")
            layout = qt.QFormLayout(group)
            for row in advanced:
                row.add_to(layout)
            self._layout.addRow(group)
            group.collapsed = True

    def widget(self, name: str) -> Any:
        """Return the widget of a field."""
        return next(row.widget for row in self._rows if row.field.name == name)

    def values(self) -> dict:
        """Return the fields that differ from their defaults, as JSON values.

        Raises
        ------
        ModuleError
            If a field's text is not what it should be.
        """
        values = {row.field.name: row.value() for row in self._rows if row.changed()}
        return {name: value for name, value in values.items() if value is not None}


class _Row:
    """The widget of a field and its label."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self._options: list[Any] = []  # values of a combo box
        self.widget = self._build()
        self.widget.toolTip = field.help or field.title
        self.widget.setObjectName(f"train_{field.name}")
        self._initial = self._state()

    def add_to(self, layout: Any) -> None:
        """Add the row to a form layout."""
        label = qt.QLabel(self.field.title)
        label.toolTip = self.widget.toolTip
        layout.addRow(label, self.widget)

    def changed(self) -> bool:
        """Return whether the field must be sent."""
        return self.field.required or self._state() != self._initial

    def value(self) -> Any:
        """Return the field as a JSON value; None to leave it out."""
        state, field = self._state(), self.field
        if field.kind in ("integer", "number"):
            special = self.widget.specialValueText and state == self.widget.minimum
            return (None if field.optional else field.constants[0]) if special else state
        return state if field.kind in ("choice", "boolean") else parsed(field, state)

    def _state(self) -> Any:
        """Return what the widget holds."""
        if self.field.kind == "choice":
            return self._options[self.widget.currentIndex]
        if self.field.kind == "boolean":
            return self.widget.checked
        return self.widget.value if self.field.kind in ("integer", "number") else self.widget.text

    def _build(self) -> Any:
        field = self.field
        if field.kind == "choice":
            return self._combo_box()
        if field.kind == "boolean":
            widget = qt.QCheckBox()
            widget.checked = bool(field.default)
        elif field.kind == "integer":
            widget = qt.QSpinBox()
            self._set_up_spin_box(widget, _MAX_INTEGER, int)
        elif field.kind == "number":
            widget = qt.QDoubleSpinBox()
            widget.decimals = _decimals(field)
            widget.singleStep = 0.05 if widget.decimals <= 4 else 1e-4
            self._set_up_spin_box(widget, _MAX_NUMBER, float)
        else:
            widget = qt.QLineEdit()
            widget.text = default_text(field)
            if field.optional:
                widget.placeholderText = _("default")
        return widget

    def _combo_box(self) -> Any:
        field, widget = self.field, qt.QComboBox()
        self._options = [*([None] if field.optional else []), *field.choices]
        for option in self._options:
            if option is None:
                widget.addItem(_("default"))
            elif isinstance(option, bool):
                widget.addItem(_("yes") if option else _("no"))
            else:
                widget.addItem(str(option))
        widget.currentIndex = self._options.index(field.default) if field.default in self._options else 0
        return widget

    def _set_up_spin_box(self, widget: Any, limit: float, number: type) -> None:
        """Set range and value.

        The lowest value stands for null or a word, if the field allows one.
        """
        field = self.field
        low = max(-limit + 1 if field.low is None else field.low, -limit + 1)
        high = min(limit if field.high is None else field.high, limit)
        special = _("default") if field.optional else str(field.constants[0]) if field.constants else ""
        if special:
            low -= widget.singleStep
            widget.specialValueText = special
        widget.setRange(number(low), number(high))
        is_number = isinstance(field.default, (int, float))
        widget.value = number(field.default) if is_number else widget.minimum if special else number(max(low, 0))


def _decimals(field: Field) -> int:
    """Return how many decimals the number of a field needs."""
    if not isinstance(field.default, (int, float)):
        return 6
    return next((decimals for decimals in range(4, 12) if round(field.default, decimals) == field.default), 12)
