"""GET /docs: all routes as a page of plain HTML, which needs no script, and no network beyond this server.

FastAPI's own page loads its script from another site: a hospital's network does not reach it, and should not.
"""

from __future__ import annotations

from html import escape
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
"""Content-Security-Policy of the page."""

_STYLE = (
    "body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}code{font-size:.95em}"
    "h2{border-bottom:1px solid #ccc;margin-top:2em}summary{cursor:pointer}dt{font-weight:bold}"
)


def page(description: dict[str, Any]) -> str:
    """Return an OpenAPI description as a page.

    Parameters
    ----------
    description
        What `FastAPI.openapi` returns.
    """
    by_tag: dict[str, list[str]] = {}
    for path, routes in description["paths"].items():
        for method, route in routes.items():
            by_tag.setdefault(route.get("tags", ["Other"])[0], []).append(_route(method.upper(), path, route))
    title = escape(f"{description['info']['title']}: routes")
    parts = [f"<h2>{escape(tag)}</h2>{''.join(routes)}" for tag, routes in by_tag.items()]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>{title}</title><style>{_STYLE}</style></head>"
        f'<body><h1>{title}</h1><p>The same for programs: <a href="/openapi.json">/openapi.json</a>.</p>'
        f"{''.join(parts)}</body></html>"
    )


def _route(method: str, path: str, route: dict[str, Any]) -> str:
    rows = [_field(field["name"], field, field.get("required", False)) for field in route.get("parameters", [])]
    rows += [f"<dt>body</dt><dd>{escape(kind)}</dd>" for kind in route.get("requestBody", {}).get("content", {})]
    fields = f"<dl>{''.join(rows)}</dl>" if rows else ""
    text = escape(route.get("description", ""))
    return (
        f"<details><summary><code>{method} {escape(path)}</code> {escape(route.get('summary', ''))}</summary>"
        f"<p>{text}</p>{fields}</details>"
    )


def _field(name: str, field: dict[str, Any], required: bool) -> str:
    schema = field.get("schema", {})
    kind = schema.get("type") or " or ".join(part.get("type", "") for part in schema.get("anyOf", []))
    choices = ", ".join(map(str, schema.get("enum", [])))
    note = " (required)" if required else ""
    return (
        f"<dt>{escape(name)}{note}</dt><dd>{escape(kind)} {escape(choices)} {escape(field.get('description', ''))}</dd>"
    )
