"""`slicer.parameterNodeWrapper`: typed parameters in a MRML parameter node, connected to widgets.

The widget types are those of Slicer's own connectors, compared exactly: a subclass is refused there too.
"""

from __future__ import annotations

import enum
import json
import pathlib
import typing
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import ctk
import qt
import slicer
import vtk

__all__ = [
    "Choice",
    "Decimals",
    "Default",
    "Exclude",
    "Maximum",
    "Minimum",
    "NotNone",
    "SingleStep",
    "SlicerParameterNamePropertyName",
    "WithinRange",
    "isParameterNodeWrapper",
    "parameterNodeWrapper",
]  # fmt: skip

SlicerParameterNamePropertyName = "SlicerParameterName"


@dataclass
class Default:
    value: Any


@dataclass
class Decimals:
    value: int


@dataclass
class SingleStep:
    value: float


class Validator:
    def validate(self, value: Any) -> None:
        """Raise ValueError if `value` is not allowed."""
        raise NotImplementedError


@dataclass
class WithinRange(Validator):
    minimum: float
    maximum: float

    def validate(self, value: Any) -> None:
        if not self.minimum <= value <= self.maximum:
            raise ValueError(f"{value} is not within [{self.minimum}, {self.maximum}]")


@dataclass
class Minimum(Validator):
    minimum: float

    def validate(self, value: Any) -> None:
        if value < self.minimum:
            raise ValueError(f"{value} is less than {self.minimum}")


@dataclass
class Maximum(Validator):
    maximum: float

    def validate(self, value: Any) -> None:
        if value > self.maximum:
            raise ValueError(f"{value} is greater than {self.maximum}")


class Choice(Validator):
    def __init__(self, choices: list[Any]) -> None:
        self.choices = list(choices)

    def validate(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is not one of {self.choices}")


class Exclude(Validator):
    def __init__(self, excluded: list[Any]) -> None:
        self.excluded = list(excluded)

    def validate(self, value: Any) -> None:
        if value in self.excluded:
            raise ValueError(f"{value!r} is excluded")


class NotNone(Validator):
    def validate(self, value: Any) -> None:
        if value is None:
            raise ValueError("None is not allowed")


def _is_node(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, slicer.vtkMRMLNode)


class Parameter:
    """A parameter of a wrapped class: how it is stored in the node, checked and read."""

    def __init__(self, name: str, annotated: Any, default: Any) -> None:
        self.name = name
        is_annotated = typing.get_origin(annotated) is typing.Annotated
        self.kind, *self.annotations = typing.get_args(annotated) if is_annotated else (annotated,)
        if typing.get_origin(self.kind) in (list, tuple, dict):
            self.kind = typing.get_origin(self.kind)
        known = (str, int, float, bool, list, tuple, dict)
        plain = isinstance(self.kind, type) and issubclass(self.kind, (*known, enum.Enum, pathlib.PurePath))
        if not plain and not _is_node(self.kind):
            raise TypeError(f"Unable to create serializer for {annotated} member {name}")
        self.default = self._default() if default is None else default

    def _default(self) -> Any:
        default, choice = self.annotation(Default), self.annotation(Choice)
        if default is not None:
            return default.value
        if _is_node(self.kind):
            return None
        if choice is not None:
            return choice.choices[0]
        return next(iter(self.kind)) if issubclass(self.kind, enum.Enum) else self.kind()

    def annotation(self, kind: type) -> Any:
        return next((item for item in self.annotations if isinstance(item, kind)), None)

    def check(self, value: Any) -> Any:
        """Return a value as it is stored; TypeError or ValueError if it is not allowed."""
        if self.kind is float and type(value) is int:
            value = float(value)
        wrong = type(value) is bool and self.kind is not bool
        if value is None and not _is_node(self.kind):
            wrong = True
        if wrong or (value is not None and not isinstance(value, self.kind)):
            raise TypeError(f"{self.name}: {value!r} is a {type(value).__name__}, not a {self.kind.__name__}")
        for validator in self.annotations:
            if isinstance(validator, Validator):
                validator.validate(value)
        return value

    def is_in(self, node: Any) -> bool:
        return _is_node(self.kind) or self.name in (node.GetParameterNames() or ())

    def write(self, node: Any, value: Any) -> None:
        value = self.check(value)
        if _is_node(self.kind):
            node.SetNodeReferenceID(self.name, value.GetID() if value is not None else None)
        elif issubclass(self.kind, enum.Enum):
            node.SetParameter(self.name, value.name)
        elif issubclass(self.kind, (list, tuple, dict)):
            node.SetParameter(self.name, json.dumps(value))
        else:
            node.SetParameter(self.name, str(value))

    def read(self, node: Any) -> Any:
        if _is_node(self.kind):
            return node.GetNodeReference(self.name)
        text = node.GetParameter(self.name)
        if issubclass(self.kind, enum.Enum):
            return self.kind[text]
        if issubclass(self.kind, (list, tuple, dict)):
            return self.kind(json.loads(text))
        return text == "True" if self.kind is bool else self.kind(text)

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        return self if wrapper is None else wrapper.getValue(self.name)

    def __set__(self, wrapper: Any, value: Any) -> None:
        wrapper.setValue(self.name, value)


@dataclass
class Connector:
    """How a widget shows a parameter."""

    read: Callable[[], Any]
    write: Callable[[Any], None]
    signal: Any
    callback: Callable[[], None] | None = None


def _connector(widget: Any, parameter: Parameter) -> Connector:
    kind, shown = parameter.kind, type(widget)

    def attribute(name: str, signal: str) -> Connector:
        return Connector(lambda: getattr(widget, name), lambda v: setattr(widget, name, v), getattr(widget, signal))

    if kind is bool and shown is qt.QCheckBox:
        return attribute("checked", "stateChanged")
    if kind is bool and shown is qt.QPushButton:
        widget.checkable = True
        return attribute("checked", "toggled")
    if (kind is int and shown in (qt.QSlider, qt.QSpinBox)) or (
        kind is float and shown in (qt.QDoubleSpinBox, ctk.ctkSliderWidget)
    ):
        _limit(widget, parameter)
        return attribute("value", "valueChanged")
    if kind is str and shown is qt.QLineEdit:
        return attribute("text", "textChanged")
    if kind is str and shown is qt.QTextEdit:
        return Connector(widget.toPlainText, widget.setPlainText, widget.textChanged)
    if shown is qt.QComboBox and (kind in (int, float, str, bool) or issubclass(kind, enum.Enum)):
        return _choices(widget, parameter)
    if issubclass(kind, pathlib.PurePath) and shown in (ctk.ctkPathLineEdit, ctk.ctkDirectoryButton):
        name = "currentPath" if shown is ctk.ctkPathLineEdit else "directory"
        plain = attribute(name, f"{name}Changed")
        return Connector(lambda: kind(plain.read()), lambda value: plain.write(str(value)), plain.signal)
    if _is_node(kind) and shown is slicer.qMRMLNodeComboBox:
        widget.nodeTypes = [kind.__name__]
        return Connector(widget.currentNode, widget.setCurrentNode, widget.currentNodeChanged)
    raise RuntimeError(f"Unable to create GUI connector from datatype '{kind}' to widget type '{shown}'")


def _limit(widget: Any, parameter: Parameter) -> None:
    for annotation, name in ((Decimals, "decimals"), (SingleStep, "singleStep")):
        if parameter.annotation(annotation):
            setattr(widget, name, parameter.annotation(annotation).value)
    within, low, high = (parameter.annotation(kind) for kind in (WithinRange, Minimum, Maximum))
    low, high = within or low, within or high
    if type(widget) in (qt.QSlider, ctk.ctkSliderWidget) and (low is None or high is None):
        raise RuntimeError("Cannot have a connection to a slider where the type is unbounded.")
    unlimited = 2**31 - 1 if parameter.kind is int else 1e308
    widget.minimum = low.minimum if low else -unlimited
    widget.maximum = high.maximum if high else unlimited


def _choices(widget: Any, parameter: Parameter) -> Connector:
    if issubclass(parameter.kind, enum.Enum):
        values = list(parameter.kind)
        texts = [value.label() if hasattr(value, "label") else value.name for value in values]
    else:
        if parameter.annotation(Choice) is None:
            raise RuntimeError("ComboBoxToStringableConnector requires the Choice annotation to be used.")
        values = parameter.annotation(Choice).choices
        texts = [str(value) for value in values]
    widget.clear()
    widget.addItems(texts)

    def write(value: Any) -> None:
        widget.currentIndex = values.index(value)

    return Connector(lambda: values[widget.currentIndex], write, widget.currentIndexChanged)


class _Wrapper:
    def __init__(self, parameterNode: Any, prefix: str | None = None) -> None:
        self.parameterNode = parameterNode
        self._guis: dict[int, dict[str, Connector]] = {}
        self._next, self._updating = 0, False
        for parameter in self.allParameters.values():
            if not parameter.is_in(parameterNode):
                parameter.write(parameterNode, parameter.default)

    def _parameter(self, name: str) -> Parameter:
        if name not in self.allParameters:
            raise ValueError(f"Cannot find a param with the given name: {name}; there are {list(self.allParameters)}")
        return self.allParameters[name]

    def getValue(self, name: str) -> Any:
        parameter = self._parameter(name)
        if not parameter.is_in(self.parameterNode):  # after the scene was closed
            parameter.write(self.parameterNode, parameter.default)
        return parameter.read(self.parameterNode)

    def setValue(self, name: str, value: Any) -> None:
        self._parameter(name).write(self.parameterNode, value)

    def default(self, name: str) -> Default:
        return Default(self._parameter(name).default)

    def dataType(self, name: str) -> Any:
        return self._parameter(name).kind

    def connectGui(self, gui: Any) -> None:
        """Connect the widgets; as in Slicer 5.8 no tag is returned."""
        widgets = gui.findChildren(qt.QWidget) if isinstance(gui, qt.QWidget) else vars(gui).values()
        named = ((widget.property(SlicerParameterNamePropertyName), widget) for widget in widgets)
        self.connectParametersToGui({name: widget for name, widget in named if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        connectors = {name: _connector(widget, self._parameter(name)) for name, widget in mapping.items()}
        tag, self._next = self._next, self._next + 1
        self._guis[tag] = connectors
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.callback = self._callback(name, connector)
            connector.signal.connect(connector.callback)
        self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: self._show())
        return tag

    def _callback(self, name: str, connector: Connector) -> Callable[[], None]:
        def changed() -> None:
            if not self._updating:
                with slicer.util.NodeModify(self):
                    self.setValue(name, connector.read())

        return changed

    def _show(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for connectors in self._guis.values():
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    def disconnectGui(self, tag: int) -> None:
        for connector in self._guis.pop(tag, {}).values():
            connector.signal.disconnect(connector.callback)

    def StartModify(self) -> int:
        return self.parameterNode.StartModify()

    def EndModify(self, was_modified: int) -> None:
        self.parameterNode.EndModify(was_modified)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return self.parameterNode.AddObserver(event, callback, priority)

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


def parameterNodeWrapper(cls: type | None = None) -> Any:
    """Class decorator that makes annotated members parameters of the MRML node passed to the constructor."""
    if cls is None:
        return parameterNodeWrapper
    hints = typing.get_type_hints(cls, include_extras=True)
    parameters = {name: Parameter(name, kind, vars(cls).get(name)) for name, kind in hints.items()}
    reserved = sorted(set(parameters) & set(dir(_Wrapper)))
    if reserved:
        raise ValueError(f"Cannot use reserved name {reserved} in a parameterNodeWrapper")
    kept = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
    return type(cls.__name__, (_Wrapper,), kept | parameters | {"allParameters": parameters})


def isParameterNodeWrapper(class_or_object: Any) -> bool:
    cls = class_or_object if isinstance(class_or_object, type) else type(class_or_object)
    return issubclass(cls, _Wrapper)
