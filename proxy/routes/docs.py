"""The OpenAPI document as one plain page: no script, no style sheet, nothing from anywhere else."""

from __future__ import annotations

import json
from html import escape
from typing import TYPE_CHECKING, Any

from litestar.openapi.plugins import OpenAPIRenderPlugin

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litestar import Request


class PlainPage(OpenAPIRenderPlugin):
    """Lists every operation, what it takes and answers; the whole is in ``openapi.json`` beside it."""

    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """Return the page."""
        info = openapi_schema["info"]
        title = escape(f"{info['title']} {info['version']}")
        parts = [
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>',
            '<link rel="icon" href="data:,"><style>body{font:16px/1.5 sans-serif;max-width:60em;margin:2em auto}',
            "pre{overflow:auto;background:#f4f4f4;padding:.5em}</style>",
            f"<h1>{title}</h1><p>OpenAPI: <a href={escape(self.get_openapi_json_route(request))}>openapi.json</a>,",
            " for Swagger UI or a generator of clients.</p>",
        ]
        for path, operations in openapi_schema["paths"].items():
            for method, operation in operations.items():
                parts += _operation(f"{method.upper()} {path}", operation)
        return "".join(parts).encode()


def _operation(name: str, operation: dict[str, Any]) -> Iterator[str]:
    yield f"<h2><code>{escape(name)}</code></h2><p>{escape(operation.get('summary') or '')}</p>"
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    for dialect, example in body.get("examples", {}).items():
        shown = escape(json.dumps(example["value"], indent=1))
        yield f"<details><summary>{escape(dialect)}</summary><pre>{shown}</pre></details>"
    if schema := body.get("schema"):
        shown = escape(json.dumps(schema, indent=1))
        yield f"<details><summary>schema of the body</summary><pre>{shown}</pre></details>"
    yield "<ul>"
    for status, response in operation.get("responses", {}).items():
        yield f"<li>{escape(status)} {escape(response.get('description') or '')}</li>"
    yield "</ul>"
