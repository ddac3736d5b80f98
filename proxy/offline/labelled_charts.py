"""Plots of a report, as SVG that stands in a page of its own: no script, no third party, light and dark."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from alerts.simulation.plot import COLOURS
from proxy.look import round_step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    Marks = Sequence[tuple[float, str]]

_WIDTH, _HEIGHT = 900, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 84, 16, 34
_LETTER_WIDTH = 8.0
_MOST_DOTS = 60
_EVERY = (1, 2, 3, 4, 6, 8, 12, 24, 48, 72)
"""How many places from one label to the next: hours fall on the same times each day."""

CHART_STYLE = (
    "svg{display:block;width:100%;height:auto;font:12px system-ui,sans-serif}text{fill:currentColor}"
    ".grid{stroke:currentColor;opacity:.15}.line{fill:none;stroke-width:1.8;stroke-linejoin:round}"
    ".dim{opacity:.65}"
)


def bars(title: str, labels: Sequence[str], values: Sequence[float | None], unit: str, marks: Marks = ()) -> str:
    """Return bars side by side; None leaves a gap. *marks* are (place on the x axis in bars, words)."""
    frame = _Frame(max((value for value in values if value is not None), default=0.0))
    width = frame.width / max(1, len(values))
    parts = frame.begin(title, unit)
    for place, (label, value) in enumerate(zip(labels, values, strict=True)):
        if not value:
            continue
        y = frame.y(value)
        parts.append(
            f'<rect x="{_LEFT + place * width + width * 0.1:.1f}" y="{y:.1f}" width="{width * 0.8:.1f}" '
            f'height="{_HEIGHT - _BOTTOM - y:.1f}" fill="{COLOURS[0]}">'
            f"<title>{escape(label)}: {value:,.4g} {escape(unit)}</title></rect>"
        )
    parts += _labels(labels, lambda place: _LEFT + (place + 0.5) * width)
    for row, (at, words) in enumerate(marks):
        x = _LEFT + at * width
        parts.append(
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="currentColor" '
            f'stroke-dasharray="4 3"/><text x="{x + 4:.1f}" y="{_TOP + 10 + 14 * row}">{escape(words)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def lines(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float | None]], unit: str) -> str:
    """Return a line for each of *series*, named at its end; None breaks it."""
    known = [value for values in series.values() for value in values if value is not None]
    frame = _Frame(max(known, default=0.0))
    count = max(1, len(labels))

    def x(place: int) -> float:
        return _LEFT + (place + 0.5) * frame.width / count

    parts = frame.begin(title, unit)
    ends: list[float] = []
    for number, (name, values) in enumerate(series.items()):
        colour = COLOURS[number]
        for piece in _pieces(values):
            points = " ".join(f"{x(place):.1f},{frame.y(value):.1f}" for place, value in piece)
            parts.append(f'<polyline class="line" stroke="{colour}" points="{points}"/>')
            if count <= _MOST_DOTS:
                parts += [
                    f'<circle cx="{x(place):.1f}" cy="{frame.y(value):.1f}" r="3" fill="{colour}">'
                    f"<title>{escape(labels[place])}, {escape(name)}: {value:,.4g} {escape(unit)}</title></circle>"
                    for place, value in piece
                ]
        last = next((value for value in reversed(values) if value is not None), None)
        if last is not None:
            y = frame.y(last)
            while any(abs(y - other) < 14 for other in ends):
                y -= 14
            ends.append(y)
            parts.append(f'<text x="{_WIDTH - _RIGHT + 8}" y="{y + 4:.1f}" style="fill:{colour}">{escape(name)}</text>')
    parts += _labels(labels, x)
    return "\n".join([*parts, "</svg>"])


class _Frame:
    """Axes from 0 to a round number above *top*."""

    def __init__(self, top: float) -> None:
        self._step = round_step(top / 4) if top > 0 else 0.25
        self._top = self._step * max(1, math.ceil(top / self._step - 1e-9))
        self.width = _WIDTH - _LEFT - _RIGHT

    def y(self, value: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * value / self._top

    def begin(self, title: str, unit: str) -> list[str]:
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
            f"<title>{escape(title)}, {escape(unit)}</title>",
        ]
        for n in range(round(self._top / self._step) + 1):
            value = n * self._step
            y = self.y(value)
            parts.append(f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
            parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:,.6g}</text>')
        return parts


def _labels(labels: Sequence[str], x: Callable[[int], float]) -> list[str]:
    widest = (max(map(len, labels), default=1) + 2) * _LETTER_WIDTH
    most = max(1, int((_WIDTH - _LEFT - _RIGHT) / widest))
    every = next((each for each in _EVERY if len(labels) <= each * most), math.ceil(len(labels) / most))
    return [
        f'<text class="dim" x="{x(place):.1f}" y="{_HEIGHT - 12}" text-anchor="middle">{escape(label)}</text>'
        for place, label in enumerate(labels)
        if place % every == 0
    ]


def _pieces(values: Sequence[float | None]) -> list[list[tuple[int, float]]]:
    pieces: list[list[tuple[int, float]]] = [[]]
    for place, value in enumerate(values):
        if value is None:
            pieces.append([])
        else:
            pieces[-1].append((place, value))
    return [piece for piece in pieces if piece]
