"""Turns views into HTML: templates of this package, escaped by default, with headers that let nothing foreign in."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from litestar import MediaType, Response

from proxy.dashboard import words
from proxy.dashboard.charts import draw
from proxy.look import look

if TYPE_CHECKING:
    from litestar.datastructures import Cookie

STATIC = {
    "app.css": "text/css; charset=utf-8",
    "app.js": "text/javascript; charset=utf-8",
    "htmx.min.js": "text/javascript; charset=utf-8",
    "idiomorph.min.js": "text/javascript; charset=utf-8",
    "sse.min.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""Files that the pages load, and nothing else."""
HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@cache
def static(name: str) -> bytes:
    """Return the content of a file that pages load; the colours are those of reports, too."""
    content = files("proxy.dashboard").joinpath("static", name).read_bytes()
    return look().encode() + content if name == "app.css" else content


@cache
def _version(name: str) -> str:
    return hashlib.sha256(static(name)).hexdigest()[:12]


def static_url(name: str) -> str:
    """Return where a file lies: another URL for another content, so that it may be kept for ever."""
    return f"/ui/static/{_version(name)}/{name}"


@cache
def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("proxy.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters |= {name: getattr(words, name) for name in words.__all__}
    made.globals |= {"static_url": static_url, "draw": draw}
    return made


def fragment(name: str, **context: Any) -> str:
    """Return a piece of a page."""
    return _environment().get_template(name).render(**context)


def page(name: str, *, status: int = 200, cookies: list[Cookie] | None = None, **context: Any) -> Response[str]:
    """Return a whole page."""
    return Response(
        fragment(name, **context),
        status_code=status,
        media_type=MediaType.HTML,
        headers=dict(HEADERS),
        cookies=cookies,
    )
