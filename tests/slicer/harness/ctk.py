"""The CTK widgets that scripted modules use, with CTK's own properties and signals, on Qt's widgets."""

from __future__ import annotations

import sys
import types
from typing import Any

from PySide6.QtCore import Property, Qt, Signal
from PySide6.QtGui import QColor
from PySide6.QtWidgets import (
    QCheckBox,
    QComboBox,
    QDoubleSpinBox,
    QGroupBox,
    QHBoxLayout,
    QLineEdit,
    QMessageBox,
    QPushButton,
    QSlider,
    QVBoxLayout,
    QWidget,
)

from .pythonqt import UiLoader


def kept(kind: type | str, name: str, initial: Any, signal: str | None = None) -> Property:
    """Return a Qt property that only keeps its value, and emits `signal` when it changes."""
    key = f"_{name}"

    def read(self: QWidget) -> Any:
        return self.__dict__.get(key, initial)

    def write(self: QWidget, value: Any) -> None:
        if read(self) != value:
            self.__dict__[key] = value
            if signal:
                getattr(self, signal).emit(value)

    return Property(kind, read, write)


def inner(kind: type, *parts: str, name: str) -> Property:
    """Return a Qt property that is the property `name` of the widget's parts."""

    def write(self: QWidget, value: Any) -> None:
        for part in parts:
            setattr(getattr(self, part), name, value)

    return Property(kind, lambda self: getattr(getattr(self, parts[0]), name), write)


def fold(widget: QWidget, away: bool, keep: QWidget | None = None) -> None:
    """Hide all children but `keep`, or show those again that this has hidden."""
    for child in widget.children():
        if child.isWidgetType() and child is not keep and not child.isWindow():
            if away and not child.isHidden():
                child.setProperty("_folded", True)
                child.hide()
            elif not away and child.property("_folded"):
                child.setProperty("_folded", False)
                child.show()


class ctkCollapsibleButton(QWidget):
    """A headline that folds its contents away at a click; as in CTK, folded contents are hidden."""

    contentsCollapsed = Signal(bool)
    toggled = Signal(bool)
    _HEIGHT = 24

    def __init__(self, parent: QWidget | str | None = None) -> None:
        super().__init__(None if isinstance(parent, str) else parent)
        self._collapsed = False
        self._header = QPushButton(self)
        self._header.flat = True
        self._header.setStyleSheet("text-align: left; font-weight: bold; padding-left: 4px")
        self._header.clicked.connect(lambda: self._collapse(not self._collapsed))
        self._set_text(parent if isinstance(parent, str) else "")
        self.setContentsMargins(0, self._HEIGHT, 0, 0)

    def resizeEvent(self, event: Any) -> None:
        self._header.setGeometry(0, 0, event.size().width(), self._HEIGHT)

    def showEvent(self, _event: Any) -> None:
        if self._collapsed:  # children that came while it was collapsed, as from a .ui file
            fold(self, True, keep=self._header)

    def _set_text(self, text: str) -> None:
        self._text = text
        self._header.text = f"{'▸' if self._collapsed else '▾'} {text}"

    def _collapse(self, collapsed: bool) -> None:
        if collapsed == self._collapsed:
            return
        self._collapsed = collapsed
        self._set_text(self._text)
        fold(self, collapsed, keep=self._header)
        self.setMaximumHeight(self._HEIGHT if collapsed else 16777215)
        self.updateGeometry()
        self.contentsCollapsed.emit(collapsed)
        self.toggled.emit(not collapsed)

    text = Property(str, lambda self: self._text, _set_text)
    collapsed = Property(bool, lambda self: self._collapsed, _collapse)
    checked = Property(bool, lambda self: not self._collapsed, lambda self, value: self._collapse(not value))
    checkable = kept(bool, "checkable", True)
    flat = kept(bool, "flat", False)
    collapsedHeight = kept(int, "collapsedHeight", 10)
    contentsFrameShape = kept(int, "contentsFrameShape", 0)


class ctkCollapsibleGroupBox(QGroupBox):
    collapsed = Property(bool, lambda self: not self.checked, lambda self, value: setattr(self, "checked", not value))
    collapsedHeight = kept(int, "collapsedHeight", 14)

    def __init__(self, parent: QWidget | str | None = None) -> None:
        super().__init__(None if isinstance(parent, str) else parent)
        self.title = parent if isinstance(parent, str) else ""
        self.checkable, self.checked = True, True
        self.toggled.connect(lambda _: self._fold())

    def _fold(self) -> None:
        fold(self, not self.checked)
        self.setMaximumHeight(16777215 if self.checked else self.fontMetrics().height() + self.collapsedHeight)

    def showEvent(self, _event: Any) -> None:
        if not self.checked:
            self._fold()


class ctkSliderWidget(QWidget):
    """A slider and a spin box with one value, in the slider's `_STEPS` steps or typed exactly."""

    for_tests = ("spinBox", "slider")
    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    _STEPS = 1000

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider, self._box = QSlider(Qt.Orientation.Horizontal, self), QDoubleSpinBox(self)
        self._slider.maximum, self._box.maximum = self._STEPS, 99.0
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider, 1)
        row.addWidget(self._box)
        self._box.valueChanged.connect(self._changed)
        self._slider.valueChanged.connect(self._dragged)

    def _changed(self, value: float) -> None:
        span = self._box.maximum - self._box.minimum
        self._slider.blockSignals(True)
        self._slider.value = round(self._STEPS * (value - self._box.minimum) / span) if 0 < span < 1e300 else 0
        self._slider.blockSignals(False)
        self.valueChanged.emit(value)
        self.valueIsChanging.emit(value)

    def _dragged(self, step: int) -> None:
        self._box.value = self._box.minimum + (self._box.maximum - self._box.minimum) * step / self._STEPS

    value, minimum, maximum, singleStep = (
        inner(float, "_box", name=name) for name in ("value", "minimum", "maximum", "singleStep")
    )
    decimals = inner(int, "_box", name="decimals")
    suffix, prefix = inner(str, "_box", name="suffix"), inner(str, "_box", name="prefix")
    pageStep = kept(float, "pageStep", 10.0)
    tracking = kept(bool, "tracking", True)
    tickInterval = kept(float, "tickInterval", 0.0)
    spinBoxVisible = Property(bool, lambda self: self._box.visible, lambda self, value: self._box.setVisible(value))

    def setValue(self, value: float) -> None:
        self.value = value

    def spinBox(self) -> QDoubleSpinBox:
        return self._box

    def slider(self) -> QSlider:
        return self._slider


class ctkRangeWidget(QWidget):
    valuesChanged = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._low, self._high = QDoubleSpinBox(self), QDoubleSpinBox(self)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for box, signal in ((self._low, self.minimumValueChanged), (self._high, self.maximumValueChanged)):
            row.addWidget(box)
            box.valueChanged.connect(signal.emit)
            box.valueChanged.connect(lambda _: self.valuesChanged.emit(self._low.value, self._high.value))

    minimum, maximum, singleStep = (
        inner(float, "_low", "_high", name=name) for name in ("minimum", "maximum", "singleStep")
    )
    decimals = inner(int, "_low", "_high", name="decimals")
    minimumValue, maximumValue = inner(float, "_low", name="value"), inner(float, "_high", name="value")

    def setRange(self, minimum: float, maximum: float) -> None:
        self._low.setRange(minimum, maximum)
        self._high.setRange(minimum, maximum)

    def setValues(self, low: float, high: float) -> None:
        self._low.value, self._high.value = low, high


class ctkPathLineEdit(QWidget):
    currentPathChanged = Signal(str)
    Files, Writable, Executable, Dirs, NoFilter = 2, 32, 64, 1, -1

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._edit = QLineEdit(self)
        row = QVBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._edit)
        self._edit.textChanged.connect(self.currentPathChanged.emit)

    currentPath = inner(str, "_edit", name="text")
    settingKey = kept(str, "settingKey", "")
    filters = kept("QVariant", "filters", -1)
    nameFilters = kept("QStringList", "nameFilters", [])
    label = kept(str, "label", "")
    showBrowseButton = kept(bool, "showBrowseButton", True)
    showHistoryButton = kept(bool, "showHistoryButton", True)

    def setCurrentPath(self, path: str) -> None:
        self.currentPath = path

    def addCurrentPathToHistory(self) -> None:
        """Do nothing: CTK keeps the history in the settings, and no test reads it."""


class ctkDirectoryButton(QPushButton):
    directoryChanged = Signal(str)
    directorySelected = Signal(str)
    directory = kept(str, "directory", "", "directoryChanged")
    caption = kept(str, "caption", "")


class ctkColorPickerButton(QPushButton):
    colorChanged = Signal(QColor)
    color = kept(QColor, "color", QColor("black"), "colorChanged")
    displayColorName = kept(bool, "displayColorName", True)


class ctkCheckablePushButton(QPushButton):
    checkBoxControlsButton = kept(bool, "checkBoxControlsButton", True)
    checkBoxUserCheckable = kept(bool, "checkBoxUserCheckable", True)


class ctkSearchBox(QLineEdit):
    showSearchIcon = kept(bool, "showSearchIcon", False)


class ctkDoubleSpinBox(QWidget):
    valueChanged = Signal(float)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._box = QDoubleSpinBox(self)
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._box)
        self._box.valueChanged.connect(self.valueChanged.emit)

    value, minimum, maximum, singleStep = (
        inner(float, "_box", name=name) for name in ("value", "minimum", "maximum", "singleStep")
    )
    decimals = inner(int, "_box", name="decimals")
    suffix, prefix = inner(str, "_box", name="suffix"), inner(str, "_box", name="prefix")

    def setValue(self, value: float) -> None:
        self.value = value


class ctkCheckBox(QCheckBox):
    pass


class ctkComboBox(QComboBox):
    defaultText = kept(str, "defaultText", "")


class ctkMessageBox(QMessageBox):
    dontShowAgainSettingsKey = kept(str, "dontShowAgainSettingsKey", "")
    dontShowAgain = kept(bool, "dontShowAgain", False)
    dontShowAgainVisible = kept(bool, "dontShowAgainVisible", False)


def install() -> types.ModuleType:
    """Install the module `ctk`, and register its widgets for .ui files."""
    if "ctk" not in sys.modules:
        widgets = {name: value for name, value in globals().items() if name.startswith("ctk")}
        sys.modules["ctk"] = types.ModuleType("ctk", "CTK's widgets as PythonQt offers them")
        vars(sys.modules["ctk"]).update(widgets)
        UiLoader.custom.update(widgets)
    return sys.modules["ctk"]
