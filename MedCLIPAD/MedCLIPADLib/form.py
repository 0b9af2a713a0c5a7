"""Parameters of a JSON schema as a form of Qt widgets."""

from __future__ import annotations

import json
from typing import Any

import qt

from MedCLIPADLib.training import Field, fields, parsed, shown

_WHOLE = 2**31 - 1


class Form:
    """Fills a widget with one labelled row for each parameter; `show` keeps what the user typed if nothing changed."""

    def __init__(self, widget: Any) -> None:
        self._widget = widget
        self._layout = qt.QFormLayout(widget)
        self._layout.setContentsMargins(0, 0, 0, 0)
        self._schema = ""
        self._fields: list[tuple[Field, Any]] = []

    def show(self, schema: dict) -> None:
        text = json.dumps(schema, sort_keys=True)
        if text == self._schema:
            return
        self._schema = text
        while self._layout.rowCount():
            self._layout.removeRow(0)
        self._fields = [(field, _widget(field)) for field in fields(schema)]
        for field, widget in self._fields:
            widget.toolTip = field.help or field.title
            widget.setObjectName(f"train_{field.name}")
            label = qt.QLabel(field.title)
            label.toolTip = widget.toolTip
            self._layout.addRow(label, widget)

    def widget(self, name: str) -> Any:
        """The widget of a parameter."""
        return next(widget for field, widget in self._fields if field.name == name)

    def values(self) -> dict:
        """What is filled in, as JSON values; ModuleError if a text is not what it should be."""
        return {field.name: parsed(field, _value(field, widget)) for field, widget in self._fields}


def _widget(field: Field) -> Any:
    if field.kind == "choice":
        widget = qt.QComboBox()
        for choice in field.choices:
            widget.addItem(str(choice), choice)
        widget.currentIndex = list(field.choices).index(field.default) if field.default in field.choices else 0
        return widget
    if field.kind == "boolean":
        widget = qt.QCheckBox()
        widget.checked = bool(field.default)
        return widget
    if field.kind == "integer":
        widget = qt.QSpinBox()
        low, high = (-_WHOLE if field.low is None else field.low), (_WHOLE if field.high is None else field.high)
        widget.setRange(int(max(low, -_WHOLE)), int(min(high, _WHOLE)))
        widget.value = int(field.default or 0)
        return widget
    if field.kind == "number":
        widget = qt.QDoubleSpinBox()
        widget.decimals = 4
        widget.setRange(-1e9 if field.low is None else field.low, 1e9 if field.high is None else field.high)
        widget.singleStep = 0.05
        widget.value = float(field.default or 0)
        return widget
    widget = qt.QLineEdit()
    widget.text = shown(field)
    return widget


def _value(field: Field, widget: Any) -> Any:
    if field.kind == "choice":
        return widget.currentData
    if field.kind == "boolean":
        return widget.checked
    return widget.value if field.kind in ("integer", "number") else widget.text
