"""What pages and reports have in common: their colours, light and dark, and where an axis is numbered."""

from __future__ import annotations

import math
from functools import cache
from importlib.resources import files


@cache
def look() -> str:
    """Return the style sheet that names the colours."""
    return files("proxy.dashboard").joinpath("static", "look.css").read_text(encoding="utf-8")


def round_step(least: float) -> float:
    """Return the smallest of 1, 2, 2.5 and 5 times a power of ten that is at least *least*, which is above 0."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= least * (1 - 1e-9))
