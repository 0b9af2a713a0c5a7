"""A user's clicks and keys, which only reach widgets that are visible and enabled."""

from __future__ import annotations

import time
from collections.abc import Callable

import slicer
from PySide6.QtCore import QPoint, Qt
from PySide6.QtTest import QTest
from PySide6.QtWidgets import QAbstractScrollArea, QApplication, QScrollArea, QWidget

Left = Qt.MouseButton.LeftButton


class OutOfReach(AssertionError):
    """The widget cannot be used by a user: hidden, disabled or covered."""


def _reach(widget: QWidget) -> None:
    """Raise the widget's window and scroll to the widget; OutOfReach if no user could use it."""
    window = widget.window()
    if not window.visible:
        window.show()
    window.activateWindow()
    QApplication.processEvents()
    area = widget.parent()
    while area is not None and not isinstance(area, QScrollArea):
        area = area.parent()
    if area is not None:
        area.ensureWidgetVisible(widget)
        QApplication.processEvents()
    if not widget.visible:
        raise OutOfReach(f"{widget.className()} {widget.name!r} is not shown")
    if not widget.enabled:
        raise OutOfReach(f"{widget.className()} {widget.name!r} is disabled")


def click(widget: QWidget, at: tuple[int, int] | None = None, double: bool = False) -> None:
    """Click at widget coordinates (x, y), by default in the middle."""
    _reach(widget)
    target = widget.viewport() if isinstance(widget, QAbstractScrollArea) else widget
    point = QPoint(*at) if at else target.rect.center()
    (QTest.mouseDClick if double else QTest.mouseClick)(target, Left, Qt.KeyboardModifier.NoModifier, point)
    QApplication.processEvents()


def drag(widget: QWidget, start: tuple[int, int], end: tuple[int, int]) -> None:
    """Drag with the left button from `start` to `end`, in widget coordinates (x, y)."""
    _reach(widget)
    first, last, keys = QPoint(*start), QPoint(*end), Qt.KeyboardModifier.NoModifier
    QTest.mousePress(widget, Left, keys, first)
    QTest.mouseMove(widget, (first + last) / 2)
    QTest.mouseMove(widget, last)
    QTest.mouseRelease(widget, Left, keys, last)
    QApplication.processEvents()


def click_cell(table: QWidget, row: int, column: int = 0) -> None:
    """Click on a cell of a table widget."""
    table.scrollToItem(table.item(row, column))
    point = table.visualItemRect(table.item(row, column)).center()
    click(table, (point.x(), point.y()))


def press(widget: QWidget, key: str | Qt.Key, modifier: Qt.KeyboardModifier = Qt.KeyboardModifier.NoModifier) -> None:
    """Press a key while a widget has the focus; its shortcuts and those of its parents are active."""
    _reach(widget)
    widget.setFocus()
    if isinstance(key, str):
        key = getattr(Qt.Key, f"Key_{key}")
    QTest.keyClick(widget, key, modifier)
    QApplication.processEvents()


def write(widget: QWidget, text: str) -> None:
    """Replace the text of a line edit, key by key."""
    _reach(widget)
    widget.setFocus()
    widget.selectAll()
    QTest.keyClick(widget, Qt.Key.Key_Delete)
    QTest.keyClicks(widget, text)
    QApplication.processEvents()


def choose(box: QWidget, text: str) -> None:
    """Choose an entry of a combo box or node selector by its text, with the keyboard."""
    box = box.comboBox() if hasattr(box, "comboBox") else box
    _reach(box)
    index = box.findText(text)
    if index < 0:
        entries = [box.itemText(i) for i in range(box.count)]
        raise OutOfReach(f"{box.name!r} offers no {text!r}, but {entries}")
    box.setFocus()
    while box.currentIndex != index:
        before = box.currentIndex
        QTest.keyClick(box, Qt.Key.Key_Down if before < index else Qt.Key.Key_Up)
        if box.currentIndex == before:
            raise OutOfReach(f"{box.name!r} does not let {text!r} be chosen")
    box.activated.emit(index)
    QApplication.processEvents()


def wait_until(condition: Callable[[], bool], seconds: float = 30.0, what: str = "") -> None:
    """Let the application run until `condition()` holds; AssertionError after `seconds`."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"not within {seconds:g} s: {what or condition}")
        slicer.app.processEvents()
        time.sleep(0.01)
