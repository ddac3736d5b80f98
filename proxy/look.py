"""The colours of everything that people look at: pages and reports, light and dark."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def look() -> str:
    """Return the style sheet that names them."""
    return files("proxy.dashboard").joinpath("static", "look.css").read_text(encoding="utf-8")
