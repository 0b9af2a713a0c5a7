"""A JSON schema's properties as the fields of a form. Needs no Qt."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

from slicer.i18n import tr as _

from MedCLIPADLib.errors import ModuleError

_KINDS = {"integer": "integer", "number": "number", "boolean": "boolean", "array": "list", "object": "object"}


@dataclass(frozen=True)
class Field:
    """One property of a JSON schema.

    Attributes
    ----------
    name : str
        Name of the property.
    title : str
        Label for the reader.
    help : str
        Tool tip.
    kind : str
        "choice", "integer", "number", "boolean", "text", "list" or "object".
    default : object
        Value of the property if it is left out.
    choices : tuple
        Values of a choice.
    low, high : float or None
        Limits of a number, both included; None if there is none.
    constants : tuple of str
        Words that are allowed beside numbers or lists, for example "all".
    optional : bool
        Whether the property may be null, which stands for a default that the server knows.
    required : bool
        Whether the property must not be left out.
    advanced : bool
        Whether few readers need the property.
    """

    name: str
    title: str
    help: str = ""
    kind: str = "text"
    default: Any = None
    choices: tuple = ()
    low: float | None = None
    high: float | None = None
    constants: tuple = ()
    optional: bool = False
    required: bool = False
    advanced: bool = False


def fields(schema: dict) -> list[Field]:
    """Return the fields of an object's JSON schema, in its order."""
    required = schema.get("required") or ()
    return [
        _field(name, _resolved(spec, schema), name in required)
        for name, spec in (schema.get("properties") or {}).items()
    ]


def parsed(field: Field, text: str) -> Any:
    """Return what the reader typed in a text, list or object field as a JSON value.

    Returns
    -------
    object
        None if the field is optional and empty.

    Raises
    ------
    ModuleError
        If the text is not a JSON object, for an object.
    """
    text = text.strip() if field.kind != "text" else text
    if field.optional and not text.strip():
        return None
    if text in field.constants:
        return text
    if field.kind == "list":
        return [part.strip() for part in text.split(",") if part.strip()]
    if field.kind == "object":
        try:
            value = json.loads(text or "{}")
        except ValueError:
            value = None
        if not isinstance(value, dict):
            raise ModuleError(
                _("{title} must be a JSON object, for example {example}.").format(
                    title=field.title, example='{"learning_rate": 0.001}'
                )
            )
        return value
    return text


def default_text(field: Field) -> str:
    """Return the default of a text, list or object field as text."""
    if isinstance(field.default, (list, tuple)):
        return ", ".join(str(part) for part in field.default)
    if isinstance(field.default, dict):
        return json.dumps(field.default) if field.default else ""
    return "" if field.default is None else str(field.default)


def readable(name: str) -> str:
    """Return an identifier as words: "Most anomalous" for "most_anomalous"."""
    return name.replace("_", " ").capitalize()


def _field(name: str, spec: dict, required: bool) -> Field:
    """Return the field of a property, from its schema without references."""
    field = Field(
        name,
        title=spec.get("title") or readable(name),
        help=spec.get("description", ""),
        default=spec.get("default"),
        required=required,
        advanced=bool(spec.get("advanced")),
    )
    options = spec.get("anyOf") or [spec]
    optional = any(option.get("type") == "null" for option in options)
    options = [option for option in options if option.get("type") != "null"]
    choices = tuple(value for option in options for value in _choices(option))
    open_options = [option for option in options if not _choices(option)]
    if not open_options:
        kind = "choice" if choices else "text"
        return replace(field, kind=kind, choices=choices, optional=optional)
    option = next((other for other in open_options if other.get("type") == "string"), open_options[0])
    kind = _KINDS.get(option.get("type", "string"), "text")
    if kind == "boolean" and optional:
        return replace(field, kind="choice", choices=(True, False), optional=True)
    step = 1 if kind == "integer" else 1e-6
    low, high = option.get("minimum"), option.get("maximum")
    if low is None and option.get("exclusiveMinimum") is not None:
        low = option["exclusiveMinimum"] + step
    if high is None and option.get("exclusiveMaximum") is not None:
        high = option["exclusiveMaximum"] - step
    return replace(field, kind=kind, low=low, high=high, constants=choices, optional=optional)


def _choices(option: dict) -> tuple:
    """Return the values that a schema lists, or () if it describes them."""
    return (option["const"],) if "const" in option else tuple(option.get("enum") or ())


def _resolved(spec: dict, schema: dict) -> dict:
    """Return a property's schema with its references replaced by what they refer to."""
    if "$ref" in spec:
        target = schema.get("$defs", {}).get(spec["$ref"].rpartition("/")[2], {})
        spec = {**_resolved(target, schema), **{key: value for key, value in spec.items() if key != "$ref"}}
    if spec.get("allOf"):
        parts = {key: value for part in spec["allOf"] for key, value in _resolved(part, schema).items()}
        spec = {**parts, **{key: value for key, value in spec.items() if key != "allOf"}}
    if isinstance(spec.get("type"), list):
        spec = {**spec, "anyOf": [{**spec, "type": name} for name in spec["type"]]}
    elif spec.get("anyOf"):
        spec = {**spec, "anyOf": [_resolved(option, schema) for option in spec["anyOf"]]}
    return spec
