"""Plots as inline SVG, light and dark, with the look of the simulation's: lines, and bars around zero."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import msgspec

from alerts.simulation.plot import COLOURS
from proxy.look import round_step

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_WIDTH, _HEIGHT = 960, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 190, 16, 52


class Line(msgspec.Struct, frozen=True):
    """A line through points, and its name."""

    name: str
    points: list[tuple[float, float]]
    is_stepped: bool = False


class Axis(msgspec.Struct, frozen=True):
    """What is drawn along one side, and from where to where."""

    title: str
    low: float
    high: float
    is_log: bool = False

    def place(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high one."""
        low, high, at = (math.log10(max(x, 1e-12)) if self.is_log else x for x in (self.low, self.high, value))
        return min(1.0, max(0.0, (at - low) / (high - low or 1.0)))

    def ticks(self) -> list[float]:
        """Return round values between the ends."""
        if self.is_log:
            first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
            return [t for e in range(first, last + 1) for m in (1, 2, 5) if self.low <= (t := m * 10.0**e) <= self.high]
        step = round_step((self.high - self.low) / 6 or 1.0)
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


def line_chart(title: str, x: Axis, y: Axis, lines: Sequence[Line], marks: Sequence[tuple[float, str]] = ()) -> str:
    """Return lines over two axes; *marks* are upright rules at an x, with a word each."""
    parts = _frame(title, x, y)
    across, up = _scales(x, y)
    for number, line in enumerate(lines):
        colour = COLOURS[number % len(COLOURS)]
        points = _stepped(line.points) if line.is_stepped else line.points
        path = " ".join(f"{across(px):.1f},{up(py):.1f}" for px, py in points)
        parts.append(f'<polyline class="line" stroke="{colour}" points="{path}"/>')
        parts += _legend(number, colour, line.name)
    for number, (at, words) in enumerate(marks):
        place = across(at)
        parts.append(
            f'<line x1="{place:.1f}" x2="{place:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#d62728" '
            f'stroke-dasharray="6 4"/><text x="{place + 4:.1f}" y="{_TOP + 12 + 16 * number}">{escape(words)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def bar_chart(title: str, x: Axis, y: Axis, values: Sequence[float], words: tuple[str, str]) -> str:
    """Return one bar for each value, up or down from zero; *words* say what each direction means."""
    parts = _frame(title, x, y, is_x_numbered=False)
    _, up = _scales(x, y)
    width = (_WIDTH - _LEFT - _RIGHT) / max(1, len(values))
    for number, value in enumerate(values):
        top, bottom = up(max(value, 0)), up(min(value, 0))
        parts.append(
            f'<rect x="{_LEFT + number * width:.2f}" y="{top:.1f}" width="{max(0.5, width * 0.85):.2f}" '
            f'height="{max(0.4, bottom - top):.1f}" fill="{COLOURS[0] if value >= 0 else COLOURS[2]}"/>'
        )
    for number, (colour, word) in enumerate(zip((COLOURS[0], COLOURS[2]), words, strict=True)):
        parts += _legend(number, colour, word)
    return "\n".join([*parts, "</svg>"])


def _frame(title: str, x: Axis, y: Axis, *, is_x_numbered: bool = True) -> list[str]:
    across, up = _scales(x, y)
    right, floor = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{escape(title)}"><title>{escape(title)}</title>'
        )
    ]
    for tick in y.ticks():
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{up(tick):.1f}" y2="{up(tick):.1f}"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{up(tick) + 4:.1f}" text-anchor="end">{_number(tick)}</text>')
    if is_x_numbered:
        for tick in x.ticks():
            parts.append(
                f'<line class="grid" x1="{across(tick):.1f}" x2="{across(tick):.1f}" y1="{_TOP}" y2="{floor}"/>'
            )
            parts.append(f'<text x="{across(tick):.1f}" y="{floor + 18}" text-anchor="middle">{_number(tick)}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle:.0f}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(x.title)}</text>')
    parts.append(
        f'<text transform="translate(14 {(_TOP + floor) / 2:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(y.title)}</text>"
    )
    return parts


def _scales(x: Axis, y: Axis) -> tuple[Callable[[float], float], Callable[[float], float]]:
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    return lambda at: _LEFT + wide * x.place(at), lambda at: _HEIGHT - _BOTTOM - high * y.place(at)


def _legend(number: int, colour: str, name: str) -> list[str]:
    left, top = _WIDTH - _RIGHT + 15, _TOP + 18 * number
    return [
        f'<rect x="{left}" y="{top}" width="10" height="10" fill="{colour}"/>',
        f'<text x="{left + 16}" y="{top + 9}">{escape(name)}</text>',
    ]


def _stepped(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    found: list[tuple[float, float]] = []
    for x, y in points:
        if found:
            found.append((x, found[-1][1]))
        found.append((x, y))
    return found


def _number(value: float) -> str:
    return f"{value:,.4g}" if abs(value) > 1e-12 else "0"
