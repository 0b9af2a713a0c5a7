"""Write the pages of docs/reference that follow from the code: `python docs/tools/generate.py`, or `make docs`.

- command-line.md, from the Typer app;
- the table of routes in http.md, from the server's OpenAPI description;
- the tables in detector-json.md, from the pydantic models.
"""

from __future__ import annotations

import json
import re
import sys
import types
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import click
import typer
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from medclipad.cli.main import app as command_line
from medclipad.detection.acquisition import AcquiredScan
from medclipad.detection.calibration import Calibration, Scale
from medclipad.detection.config import FitConfig
from medclipad.detection.storage import DetectorInfo
from medclipad.methods import get_method, method_names
from medclipad.server.app import create_app

REFERENCE = Path(__file__).parents[1] / "reference"
HELP_WIDTH = 100  # characters of a line of help
MARKS = ("<!-- {name}: written by docs/tools/generate.py -->", "<!-- end of {name} -->")


def pages() -> dict[Path, str]:
    """Return the content of the generated pages, and of those with generated parts, by file."""
    http, detector = REFERENCE / "http.md", REFERENCE / "detector-json.md"
    return {
        REFERENCE / "command-line.md": command_line_page(),
        http: with_part(http.read_text(encoding="utf-8"), "routes", routes_table()),
        detector: with_part(detector.read_text(encoding="utf-8"), "fields", fields_text()),
    }


def with_part(page: str, name: str, text: str) -> str:
    """Return a page with the text between the two marks of a part replaced; raise ValueError if it lacks them."""
    first, last = (mark.format(name=name) for mark in MARKS)
    before, found, rest = page.partition(first)
    _, found_last, after = rest.partition(last)
    if not found or not found_last:
        raise ValueError(f"The page lacks the lines {first} and {last}.")
    return f"{before}{first}\n{text}\n\n{last}{after}"


def command_line_page() -> str:
    """Return the help of all commands as a page."""
    root = typer.main.get_command(command_line)
    parts = [
        "# Command line",
        "",
        "What `medclipad COMMAND --help` prints. `make docs` writes this page; do not edit it. Options that take",
        "several values take them in a row (`--normal a.nii.gz b.nii.gz`), as globs, as folders, and as CSV files",
        "with the columns `image` and `mask`. A known error ends a command with one sentence on standard error and",
        "exit code 1.",
    ]
    for names, command in commands(["medclipad"], root):
        parts += [
            "",
            f"{'#' * min(len(names) + 1, 3)} {' '.join(names)}",
            "",
            "```text",
            help_of(names, command),
            "```",
        ]
    return "\n".join(parts) + "\n"


def commands(names: list[str], command: Any) -> Iterator[tuple[list[str], Any]]:
    """Yield a command and all below it, with the words by which each is called."""
    yield names, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from commands([*names, name], inner)


def help_of(names: Sequence[str], command: Any) -> str:
    """Return what `--help` of a command prints."""
    context = None
    for name in names[:-1]:
        context = click.Context(command, info_name=name, parent=context)
    context = command.context_class(command, info_name=names[-1], parent=context, terminal_width=HELP_WIDTH)
    with context:
        lines = command.get_help(context).splitlines()
    return "\n".join(line.rstrip() for line in lines).strip()


def routes_table() -> str:
    """Return the table of the server's routes."""
    description = create_app().openapi()
    rows = [
        [f"`{method.upper()} {path}`", ", ".join(parameters(route)), route["summary"]]
        for path, routes in description["paths"].items()
        for method, route in routes.items()
    ]
    return table(["route", "query", "what it does"], rows)


def parameters(route: dict[str, Any]) -> list[str]:
    """Return the query parameters of a route."""
    return [f"`{parameter['name']}`" for parameter in route.get("parameters", []) if parameter["in"] == "query"]


def fields_text() -> str:
    """Return tables of all fields of detector.json."""
    parts = ["### The file", "", fields_table(DetectorInfo), "", "### config", "", fields_table(FitConfig)]
    for method in method_names():
        parts += ["", f"### config.options of {method}", "", fields_table(get_method(method).Options)]
    nested = {"calibration": Calibration, "calibration.scale": Scale, "acquisition.scans": AcquiredScan}
    for name, model in nested.items():
        parts += ["", f"### {name}", "", fields_table(model)]
    return "\n".join(parts)


def fields_table(model: type[BaseModel]) -> str:
    """Return a table of the fields of a pydantic model."""
    rows = []
    for name, field in model.model_fields.items():
        default = "" if field.default is PydanticUndefined else f"`{json.dumps(field.default)}`"
        rows.append([f"`{name}`", type_in_words(field.annotation), default, field.description or ""])
    return table(["field", "type", "default", "what it is"], rows)


def type_in_words(annotation: Any) -> str:
    """Return a type as a reader of JSON names it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(type_in_words(argument) for argument in arguments))
    if origin is Literal:
        return ", ".join(f"`{argument}`" for argument in arguments)
    if origin in (list, tuple):
        return "list"
    if origin is dict or (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
        return "object"
    if hasattr(annotation, "__metadata__"):
        return type_in_words(annotation.__origin__)
    names = {int: "integer", float: "number", str: "text", bool: "true or false", type(None): "null"}
    return names.get(annotation, "time" if getattr(annotation, "__name__", "") == "datetime" else str(annotation))


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    cells = ([re.sub(r"\s+", " ", cell.replace("|", "\\|")) for cell in row] for row in rows)
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, ["---"] * len(headings), *cells))


def main() -> int:
    """Write the pages, and say which have changed."""
    for file, content in pages().items():
        if not file.is_file() or file.read_text(encoding="utf-8") != content:
            file.write_text(content, encoding="utf-8")
            print(f"{file.relative_to(REFERENCE.parents[1])} has changed.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
