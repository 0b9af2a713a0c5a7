"""Checks of .ui files for errors that QUiLoader silently ignores."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

from PySide6.QtCore import QMetaObject
from PySide6.QtWidgets import QWidget


class UiError(RuntimeError):
    """The .ui file names something that does not exist."""


def without_connections(text: bytes) -> bytes:
    """Return a .ui file without its <connections>: Qt itself cannot connect stand-ins written in Python."""
    root = ElementTree.fromstring(text)
    for connections in root.findall("connections"):
        root.remove(connections)
    return ElementTree.tostring(root)


def _named(root: QWidget) -> dict[str, QWidget]:
    return {child.objectName: child for child in [root, *root.findChildren()] if child.objectName}


def checked(text: bytes, root: QWidget) -> None:
    """Raise UiError for properties that a widget does not have; those with stdset="0" are dynamic."""
    widgets = _named(root)
    for element in ElementTree.fromstring(text).iter("widget"):
        widget = widgets.get(element.get("name", ""))
        if widget is None:
            raise UiError(f"the .ui file's widget {element.get('name')!r} was not made")
        meta = widget.metaObject()
        for entry in element.findall("property"):
            if entry.get("stdset") != "0" and meta.indexOfProperty(entry.get("name")) < 0:
                raise UiError(f"{widget.className()} {widget.name!r} has no property {entry.get('name')!r}")


def connect_all(text: bytes, root: QWidget) -> None:
    """Make a .ui file's connections; UiError if a widget, a signal or a slot does not exist."""
    widgets = _named(root)
    for entry in ElementTree.fromstring(text).iterfind("connections/connection"):
        sender, signal, receiver, slot = (entry.findtext(tag, "") for tag in ("sender", "signal", "receiver", "slot"))
        if sender not in widgets or receiver not in widgets:
            raise UiError(f".ui connection between unknown widgets: {sender} and {receiver}")
        target = widgets[receiver]
        wanted = bytes(QMetaObject.normalizedSignature(slot).data()).decode()
        python_made = wanted in getattr(type(target), "cpp_slots", ())
        if not python_made and target.metaObject().indexOfMethod(wanted) < 0:
            raise UiError(f".ui connection: {target.className()} {receiver!r} has no slot {slot!r}")
        if signal.partition("(")[2] != slot.partition("(")[2] and not slot.endswith("()"):
            raise UiError(f".ui connection: {signal} does not fit {slot}")
        widgets[sender].connect(signal, getattr(target, slot.partition("(")[0]))
