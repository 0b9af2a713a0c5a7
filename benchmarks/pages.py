"""Markdown pages that benchmarks write into: tables, and the text between two marks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import typer

from medclipad.export.result_files import write_text


def markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown.

    Examples
    --------
    >>> print(markdown_table(["method", "AUROC"], [["brightness", "0.61"]]))
    | method | AUROC |
    | --- | --- |
    | brightness | 0.61 |
    """
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (headings, ["---"] * len(headings), *rows))


def replace_between(page: Path, marks: tuple[str, str], text: str) -> None:
    """Replace the text between two lines of a page.

    Parameters
    ----------
    page
        Markdown file that holds both marks.
    marks
        First and last line, which stay.
    text
        New text.

    Raises
    ------
    typer.BadParameter
        If the page does not hold the marks.
    """
    content = page.read_text(encoding="utf-8") if page.is_file() else ""
    before, _, rest = content.partition(marks[0])
    _, mark, after = rest.partition(marks[1])
    if not mark:
        raise typer.BadParameter(f"{page} lacks the lines {marks[0]} and {marks[1]}: the tables go between them.")
    write_text(page, f"{before}{marks[0]}\n{text}\n\n{mark}{after}")
