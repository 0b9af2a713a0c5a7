"""Options that several commands share: how files are read, and the options of a fit, made from their one source."""

from __future__ import annotations

import inspect
import types
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import typer
from pydantic.fields import FieldInfo
from typer.core import TyperCommand

from medclipad.detection.config import FitConfig
from medclipad.methods import get_method, method_names

Component = Annotated[
    str | None,
    typer.Option(
        metavar="N|LABEL",
        help="Volume, time point or channel to take where an image has several: its number from 0, or what tells it "
        "apart in `medclipad series`, such as b=1000 or echo=4.6,phase.",
    ),
]
Series = Annotated[
    str | None,
    typer.Option(
        metavar="N|UID", help="DICOM series to take out of several: its row number in `medclipad series`, or its UID."
    ),
]
Untilt = Annotated[bool, typer.Option(help="Resample a DICOM series with gantry tilt to upright slices.")]
ForceModality = Annotated[
    bool, typer.Option(help="Analyse a volume of another modality than the detector's, such as a CT with one for MR.")
]
Precision = Annotated[Literal["auto", "float32", "bfloat16"], typer.Option(help="Number format of the frozen encoder.")]

IMAGES = "IMAGE[:MASK]..."
IMAGES_HELP = "Files, folders, globs or CSV files with columns image and mask."


def epilog(*lines: str) -> str:
    """Return what a command's help ends with: an example, on lines of its own."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in lines)


class ManyValues(TyperCommand):
    """Command whose list options take several values: `--normal a.nii.gz b.nii.gz`, as a shell spells a glob out."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, with the values that follow a list option each given to it."""
        names = {name for param in self.params if getattr(param, "multiple", False) for name in param.opts}
        spelled_out: list[str] = []
        option = ""
        for place, argument in enumerate(args):
            if argument.startswith("-") and len(argument) > 1:
                option = argument if argument in names else ""
                spelled_out.append(argument)
            elif option and args[place - 1] != option:
                spelled_out += [option, argument]
            else:
                spelled_out.append(argument)
        return super().parse_args(ctx, spelled_out)


def with_fit_options(*without: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command an option for each field of `FitConfig` and of every method's options, but those named.

    The command takes what was given as one dict, `options`.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        fields = {name: field for name, field in _fit_options().items() if name not in without}
        before = inspect.signature(command, eval_str=True)
        kept = [parameter for name, parameter in before.parameters.items() if name != "options"]
        added = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)
            for name, annotation in fields.items()
        ]

        @wraps(command)
        def wrapper(**given: Any) -> None:
            options = {name: value for name in fields if (value := given.pop(name)) is not None}
            command(**given, options=options)

        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [*(parameter.replace(kind=keyword) for parameter in kept), *added]
        wrapper.__signature__ = before.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


def _fit_options() -> dict[str, Any]:
    """Return annotations for Typer, by name, of all options of a fit."""
    own = {name: field for name, field in FitConfig.model_fields.items() if name != "options"}
    found = {name: _option(field, _help(field)) for name, field in own.items()}
    by_method: dict[str, dict[str, FieldInfo]] = {}
    for method in method_names():
        for name, field in get_method(method).Options.model_fields.items():
            by_method.setdefault(name, {})[method] = field
    for name, fields in by_method.items():
        sharing: dict[str, list[str]] = {}  # the methods that say the same
        for method, field in fields.items():
            sharing.setdefault(_help(field), []).append(method)
        text = " ".join(f"{', '.join(methods)}: {text}" for text, methods in sharing.items())
        if list(sharing.values()) == [list(method_names())]:
            text = next(iter(sharing))
        found[name] = _option(next(iter(fields.values())), text)
    return found


def _help(field: FieldInfo) -> str:
    """Return the description with the default, which Typer does not know: an option that is left out is None."""
    text = (field.description or "").rstrip(".")
    text = text[:1].upper() + text[1:]
    return f"{text}." if field.default is None or "default" in text else f"{text}; default {field.default}."


def _option(field: FieldInfo, text: str) -> Any:
    return Annotated[_cli_type(field.annotation) | None, typer.Option(help=text, show_default=False)]


def _cli_type(annotation: Any) -> Any:
    """Return the type that Typer parses; what it does not know, such as "a number or all", is text for pydantic."""
    if get_origin(annotation) in (Union, types.UnionType):
        members = [member for member in get_args(annotation) if member is not type(None)]
        return _cli_type(members[0]) if len(members) == 1 else str
    if get_origin(annotation) is Literal or annotation in (int, float, bool, str):
        return annotation
    return str
