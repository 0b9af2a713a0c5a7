"""Parts of a report: one HTML page that needs nothing from outside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape

import numpy as np

STYLE = """
body { margin: 0; background: #f6f6f4; color: #222; }
body { font: 15px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
main { max-width: 1240px; margin: 0 auto; padding: 24px 32px 48px; }
h1 { font-size: 26px; margin: 8px 0 4px; }
h2 { font-size: 19px; margin: 0; }
p { margin: 6px 0; max-width: 100ch; }
section { background: #fff; border: 1px solid #e2e2de; border-radius: 8px; padding: 16px 20px; margin: 22px 0; }
img { display: block; width: 100%; height: auto; margin: 10px 0 4px; border-radius: 4px; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 10px 0; }
th, td { padding: 5px 14px; text-align: right; border-bottom: 1px solid #e6e6e2; white-space: nowrap; }
th { font-size: 13px; font-weight: 600; color: #555; white-space: normal; vertical-align: bottom; }
section { overflow-x: auto; }
.verdict { font-weight: 600; }
th:first-child, td:first-child { text-align: left; padding-left: 4px; }
.overview { background: #fff; border: 1px solid #e2e2de; width: 100%; }
.overview th:first-child, .overview td:first-child { padding-left: 14px; }
.curve { max-width: 640px; }
.mean td { font-weight: 600; border-bottom: 0; }
.baseline { color: #8d8d88; font-size: 13px; font-weight: 400; padding-left: 6px; }
.small, footer { color: #6a6a66; font-size: 13px; max-width: none; }
a { color: #8c2369; text-decoration: none; }
a:hover { text-decoration: underline; }
"""


def page(title: str, parts: Sequence[str]) -> str:
    """Return an HTML page of parts that are HTML; the title is text."""
    head = f'<meta charset="utf-8"><title>{escape(title)}</title>\n<style>{STYLE}</style>'
    body = "\n".join(parts)
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'


def table(headings: Sequence[str], rows: Sequence[str], style: str = "") -> str:
    """Return an HTML table of rows made by `row`."""
    head = "".join(f"<th>{heading}</th>" for heading in headings)
    return f'<table class="{style}"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'


def row(cells: Sequence[str], style: str = "") -> str:
    """Return a row of an HTML table; the cells are HTML."""
    return f'<tr class="{style}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def image(data: bytes, media_type: str, alternative: str) -> str:
    """Return an image that is embedded in the page."""
    return f'<img alt="{escape(alternative)}" src="data:{media_type};base64,{base64.b64encode(data).decode()}">'


def number(value: float | None) -> str:
    """Return three decimals, or a dash for a metric that is not defined."""
    return "–" if value is None or np.isnan(value) else f"{value:.3f}"
