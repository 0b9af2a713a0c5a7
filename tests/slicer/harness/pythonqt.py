"""PySide6 that behaves like PythonQt, the binding that Slicer's own Python uses.

The two wrap the same Qt, but not alike: PythonQt shows a Qt property as a plain attribute (`button.text`, and
`button.text()` is a TypeError), knows `connect("signal(args)", slot)`, and refuses new attributes on C++ objects.
`install` gives every QObject of the process these manners, over Qt's own meta-objects, and puts a module `qt` in place.
Where PythonQt only prints a warning (an unknown signal) an error is raised: a test must see it.
"""

from __future__ import annotations

import inspect
import sys
import threading
import types
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets
from PySide6.QtCore import QMetaMethod, QMetaObject, QObject

from .pythonqt_api import hidden

_native_get: dict[type, Callable[[QObject, str], Any]] = {}  # what `install` replaced
_set_attribute = QObject.__mro__[1].__setattr__  # of Shiboken's base: QObject's own is refused once it is replaced
_read = QObject.property
_write = QObject.setProperty
_native_connect = QObject.connect
_native_find = QObject.findChildren

# What PySide6 adds to Qt's names; PythonQt in Slicer has none of them.
_PYSIDE_ONLY = {"Signal", "Slot", "Property", "SignalInstance", "ClassInfo", "QEnum", "QFlag"}


def _attribute(self: QObject, name: str) -> Any:
    """Return what PySide6 itself has for an attribute."""
    return next(_native_get[cls] for cls in type(self).__mro__ if cls in _native_get)(self, name)


class SignalError(ValueError):
    """The object does not have the signal to connect."""


@cache
def _properties(cls: type) -> dict[str, QtCore.QMetaProperty]:
    meta = cls.staticMetaObject
    return {meta.property(index).name(): meta.property(index) for index in range(meta.propertyCount())}


def signal_signatures(obj: QObject) -> list[str]:
    """Return the signatures of all signals of an object, as in C++."""
    meta = obj.metaObject()
    methods = (meta.method(index) for index in range(meta.methodCount()))
    signals = (method for method in methods if method.methodType() == QMetaMethod.MethodType.Signal)
    return sorted(
        {
            *(bytes(signal.methodSignature().data()).decode() for signal in signals),
            *getattr(type(obj), "cpp_signals", {}),
        }
    )


def _find_signal(obj: QObject, signature: str) -> tuple[str, int]:
    """Return (name, number of arguments) of the signal with a C++ signature; SignalError if there is none."""
    wanted = bytes(QMetaObject.normalizedSignature(signature).data()).decode()
    name, _, arguments = wanted.rstrip(")").partition("(")
    count = len(arguments.split(",")) if arguments else 0
    python_made = getattr(type(obj), "cpp_signals", {})  # signals of stand-ins carry MRML nodes, which Qt does not know
    if wanted in python_made:
        return python_made[wanted], count
    index = obj.metaObject().indexOfSignal(wanted)
    if index < 0 or "PyObject" in wanted:
        known = ", ".join(signal_signatures(obj))
        raise SignalError(f"{_class_name(obj)} has no signal {signature!r}; it has {known}")
    return name, count


def _class_name(obj: QObject) -> str:
    return type(obj).__name__


def _capacity_of(function: Callable[..., Any]) -> int | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a method made in C++ tells no signature
        return None
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return None
    return sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)


def _connect(self: QObject, signal: str, *receiver: Any) -> bool:
    """Connect a signal to a function, or to a receiver and its slot."""
    name, count = _find_signal(self, signal)
    function = receiver[0]
    if len(receiver) == 2:
        function = getattr(receiver[0], receiver[1].partition("(")[0])
    if not callable(function):
        raise TypeError(f"connect({signal!r}): {function!r} cannot be called")
    capacity = _capacity_of(function)
    keep = count if capacity is None else min(count, capacity)
    slot = function if _is_native(function) else lambda *arguments: function(*arguments[:keep])
    _slots(self).setdefault((name, function), []).append(slot)
    return bool(_attribute(self, name).connect(slot))


def _disconnect(self: QObject, signal: str, *receiver: Any) -> bool:
    name, _ = _find_signal(self, signal)
    function = receiver[0]
    if len(receiver) == 2:
        function = getattr(receiver[0], receiver[1].partition("(")[0])
    known = _slots(self).get((name, function))
    if not known:
        return False  # as PythonQt: nothing was connected
    return bool(_attribute(self, name).disconnect(known.pop()))


def _is_native(function: Callable[..., Any]) -> bool:
    return isinstance(function, types.BuiltinMethodType)


def _slots(self: QObject) -> dict[tuple[str, Any], list[Callable[..., Any]]]:
    return self.__dict__.setdefault("_python_slots", {})


def _find_children(self: QObject, wanted: type | str = QObject, name: str | None = None) -> list[QObject]:
    """Find children by class or, as in PythonQt, by the name of their class."""
    if isinstance(wanted, str):
        found = [child for child in _native_find(self, QObject) if _is_a(child, wanted)]
    else:
        found = _native_find(self, wanted)
    return [child for child in found if name is None or child.objectName == name]


def _is_a(obj: QObject, class_name: str) -> bool:
    return obj.inherits(class_name) or any(cls.__name__ == class_name for cls in type(obj).__mro__)


def _find_child(self: QObject, wanted: type | str = QObject, name: str | None = None) -> QObject | None:
    return next(iter(_find_children(self, wanted, name)), None)


_METHODS: dict[str, Callable[..., Any]] = {
    "connect": _connect,
    "disconnect": _disconnect,
    "findChildren": _find_children,
    "findChild": _find_child,
    "className": _class_name,
}


# Shiboken looks for a Python override of a virtual method by getting the attribute. Some virtual methods are what a
# property reads (sizeHint): seen again while the property is read, the name stands for the method.
_being_read: set[tuple[int, int, str]] = set()


def _looked_up_by_cpp(self: QObject, name: str) -> bool:
    overridden = isinstance(getattr(type(self), name, None), types.FunctionType)
    return overridden or (threading.get_ident(), id(self), name) in _being_read


def _read_property(self: QObject, name: str) -> Any:
    reading = (threading.get_ident(), id(self), name)
    _being_read.add(reading)
    try:
        return _read(self, name)
    finally:
        _being_read.discard(reading)


def _get(self: QObject, name: str) -> Any:
    if name.startswith("_"):
        return _attribute(self, name)
    if name in _METHODS:
        return types.MethodType(_METHODS[name], self)
    if hidden(type(self), name):
        raise AttributeError(
            f"PythonQt exposes no {name!r} of {_class_name(self)}: neither slot, property nor invokable"
        )
    if name == "exec_":
        return _attribute(self, "exec")
    if name == "name" and name not in _properties(type(self)):
        return _read(self, "objectName")
    if name in _properties(type(self)) and not _looked_up_by_cpp(self, name):
        value = _read_property(self, name)
        return tuple(value) if isinstance(value, list) else value
    try:
        return _attribute(self, name)
    except AttributeError:
        if name in {bytes(key.data()).decode() for key in self.dynamicPropertyNames()}:
            return _read(self, name)
        raise


def _set(self: QObject, name: str, value: Any) -> None:
    if hidden(type(self), name):
        raise AttributeError(f"PythonQt exposes no property {name!r} of {_class_name(self)}")
    if name == "name" and name not in _properties(type(self)):
        name = "objectName"
    known = _properties(type(self)).get(name)
    if known is not None:
        if not known.isWritable():
            raise AttributeError(f"property {name!r} of {_class_name(self)} cannot be written")
        if known.typeName() == "bool":
            value = bool(value)  # PythonQt takes any truth value
        if value is None or not _write(self, name, value):
            raise AttributeError(f"property {name!r} of type {known.typeName()} does not accept {value!r}")
    elif name.startswith("_") or isinstance(value, QtCore.SignalInstance) or not _made_in_cpp(type(self)):
        _set_attribute(self, name, value)  # also the signals, which PySide6 hangs on a widget when first used
    elif isinstance(value, QObject) and value.objectName == name:
        pass  # PySide6's QUiLoader hangs named children on the root widget; PythonQt's does not
    else:
        raise AttributeError(f"{_class_name(self)} has no property {name!r}, and takes no new attributes")


def _made_in_cpp(cls: type) -> bool:
    """Return whether a class is a C++ class in Slicer: Qt's own, or a stand-in of this package."""
    return cls.__module__.startswith(("PySide6.", __package__ + "."))


class UiLoader(QtUiTools.QUiLoader):
    """QUiLoader that knows the stand-ins, and refuses what Slicer would silently ignore: unknown widgets, properties,
    signals and slots."""

    custom: ClassVar[dict[str, type[QtWidgets.QWidget]]] = {}

    def createWidget(self, class_name: str, parent: QtWidgets.QWidget | None = None, name: str = "") -> Any:
        made = self.custom.get(class_name)
        if made is None and class_name.startswith("Q"):
            return super().createWidget(class_name, parent, name)
        if made is None:
            raise RuntimeError(f".ui file: no stand-in for {class_name} ({name})")
        widget = made(parent)
        widget.objectName = name
        return widget

    def load(self, file: QtCore.QFile, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        from .ui_file import checked, connect_all, without_connections

        text = bytes(file.readAll().data())
        data = QtCore.QBuffer()
        data.setData(without_connections(text))
        data.open(QtCore.QIODevice.OpenModeFlag.ReadOnly)
        widget = super().load(data, parent)
        if widget is None:
            raise RuntimeError(f".ui file cannot be read: {self.errorString()}")
        checked(text, widget)
        connect_all(text, widget)
        return widget


class Settings(QtCore.QSettings):
    """QSettings with PythonQt's `value(key, default)`, without PySide6's third argument."""

    def value(self, key: str, default: Any = None) -> Any:
        return super().value(key, default)


def _module() -> types.ModuleType:
    qt = types.ModuleType("qt", "Qt's classes as PythonQt offers them")
    for source in (QtUiTools, QtNetwork, QtWidgets, QtGui, QtCore):
        names = (name for name in dir(source) if name.startswith("Q") and name not in _PYSIDE_ONLY)
        vars(qt).update({name: getattr(source, name) for name in names})
    qt.QUiLoader, qt.QSettings = UiLoader, Settings
    return qt


def install() -> tuple[types.ModuleType, QtWidgets.QApplication]:
    """Make all QObjects of this process behave like PythonQt's; return (module `qt`, application)."""
    application = QtWidgets.QApplication.instance() or QtWidgets.QApplication(["MedCLIPAD-tests"])
    if "qt" not in sys.modules:
        sys.modules["qt"] = _module()
        for cls in vars(sys.modules["qt"]).values():
            if isinstance(cls, type) and issubclass(cls, QObject) and cls not in (Settings, UiLoader):
                cls.__setattr__ = _set  # Shiboken gives each class a __setattr__ of its own ...
                own = vars(cls).get("__getattribute__")
                if own not in (None, _get):  # ... and some, as QProcess, a __getattribute__
                    _native_get[cls], cls.__getattribute__ = own, _get
    return sys.modules["qt"], application
