"""Both arms over time, as SVG drawn on the server: no script and no library has to be loaded to see them.

Colours come from the page's style sheet by class, so that one drawing serves light and dark. A script that is there
reads times and values back from the drawing for what is under the pointer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec
from markupsafe import Markup

from proxy.dashboard.words import short_time
from proxy.look import round_step

if TYPE_CHECKING:
    from collections.abc import Iterable

_WIDTH, _HEIGHT = 420, 168
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 8, 10, 22
_LABEL = 24
"""Half the width of a label of the time axis, and a little."""
_STEPS = (5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 172800, 432000)
"""Seconds between two labels of a time axis."""
_SPARK = (150, 30)


class Series(NamedTuple):
    """One line."""

    name: str
    kind: str
    """``control``, ``candidate`` or ``both``: the class that colours it."""
    points: list[tuple[float, float | None]]
    """Unix seconds and value; None breaks the line."""


class Mark(NamedTuple):
    """Something that happened."""

    at: float
    words: str
    kind: Literal["action", "rollback"]


class Chart(msgspec.Struct, frozen=True, kw_only=True):
    """What is drawn, and how its numbers read."""

    title: str
    series: list[Series]
    since: float
    until: float
    words: Callable[[float], str]
    """A value with its unit."""
    unit: str = ""
    """What a script reads a value in: ``s``, ``share`` (of 1), ``percent``, ``dollars``; empty: a plain number."""
    marks: Sequence[Mark] = ()
    limit: float | None = None
    """Drawn as a rule across."""
    floor: float | None = 0.0
    """Where the value axis begins; None: at the lowest value."""
    ceiling: float | None = None


def draw(chart: Chart) -> Markup:
    """Return a figure: title, what each line says now, and the plot."""
    caption = f"<figcaption><b>{escape(chart.title)}</b> {_latest(chart)}</figcaption>"
    return Markup(f'<figure class="chart">{caption}{_svg(chart)}</figure>')  # noqa: S704 - all text in it was escaped


def _latest(chart: Chart) -> str:
    found = []
    for line in chart.series:
        value = next((v for _, v in reversed(line.points) if v is not None), None)
        words = "no data" if value is None else chart.words(value)
        found.append(f'<span class="key {line.kind}">{escape(line.name)} <b>{escape(words)}</b></span>')
    return "".join(found)


def _svg(chart: Chart) -> str:
    low, high, step = _range(chart)
    wide, tall = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    span = max(1e-9, chart.until - chart.since)

    def x(at: float) -> float:
        return _LEFT + wide * (at - chart.since) / span

    def y(value: float) -> float:
        return _TOP + tall * (1 - (min(max(value, low), high) - low) / (high - low))

    parts = [
        (
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(_spoken(chart))}" '
            f'data-since="{chart.since:.0f}" data-until="{chart.until:.0f}" '
            f'data-low="{low:.6g}" data-high="{high:.6g}" data-unit="{chart.unit}" '
            f'data-box="{_LEFT} {_TOP} {wide} {tall}">'
        )
    ]
    for place in range(round((high - low) / step) + 1):
        value = low + place * step
        parts.append(f'<path class="grid" d="M{_LEFT} {y(value):.1f}H{_WIDTH - _RIGHT}"/>')
        parts.append(
            f'<text class="value" x="{_LEFT - 5}" y="{y(value) + 3.5:.1f}">{escape(chart.words(value))}</text>'
        )
    parts += [
        f'<text class="time" x="{x(at):.1f}" y="{_HEIGHT - 6}">{escape(short_time(at, span))}</text>'
        for at in times(chart.since, chart.until, 5)
        if _LEFT <= x(at) <= _WIDTH - _LABEL
    ]
    if chart.limit is not None and low <= chart.limit <= high:
        parts.append(f'<path class="limit" d="M{_LEFT} {y(chart.limit):.1f}H{_WIDTH - _RIGHT}"/>')
    for mark in chart.marks:
        if chart.since <= mark.at <= chart.until:
            title = f"{short_time(mark.at, 0)} {mark.words}"
            parts.append(
                f'<path class="mark {mark.kind}" d="M{x(mark.at):.1f} {_TOP}V{_HEIGHT - _BOTTOM}">'
                f"<title>{escape(title)}</title></path>"
            )
    parts += [
        f'<path class="line {line.kind}" data-name="{escape(line.name)}" d="{_path(line.points, x, y)}"/>'
        for line in chart.series
    ]
    return "".join([*parts, "</svg>"])


def _path(
    points: Iterable[tuple[float, float | None]], x: Callable[[float], float], y: Callable[[float], float]
) -> str:
    parts: list[str] = []
    begins = True
    for at, value in points:
        if value is None:
            begins = True
            continue
        parts.append(f"{'M' if begins else 'L'}{x(at):.1f} {y(value):.1f}")
        begins = False
    return "".join(parts) if len(parts) != 1 else f"{parts[0]}h0.1"


def _range(chart: Chart) -> tuple[float, float, float]:
    """Return where the value axis begins and ends, and its step."""
    known = [v for line in chart.series for _, v in line.points if v is not None]
    if chart.limit is not None and known and chart.limit <= 4 * max(known):
        known.append(chart.limit)
    least = chart.floor if chart.floor is not None else min(known, default=0.0)
    most = chart.ceiling if chart.ceiling is not None else max(known, default=least)
    if not most > least:
        most = least + (abs(least) or 1.0)
    step = round_step((most - least) / 3)
    low = math.floor(least / step + 1e-9) * step
    return low, low + step * max(1, math.ceil((most - low) / step - 1e-9)), step


def times(since: float, until: float, most: int) -> list[float]:
    """Return at most *most* round times between two."""
    step = next((each for each in _STEPS if (until - since) / each <= most), _STEPS[-1])
    first = math.ceil(since / step)
    return [float(n * step) for n in range(first, math.floor(until / step) + 1)]


def _spoken(chart: Chart) -> str:
    """Return the plot in words."""
    lines = []
    for line in chart.series:
        known = [v for _, v in line.points if v is not None]
        if known:
            lines.append(f"{line.name} from {chart.words(min(known))} to {chart.words(max(known))}")
        else:
            lines.append(f"{line.name} without data")
    return f"{chart.title}: {'; '.join(lines)}"


def spark(values: Sequence[tuple[float, float | None]], threshold: float, since: float, until: float) -> Markup:
    """Return evidence over time as a small line below or above its threshold."""
    wide, tall = _SPARK
    known = [v for _, v in values if v is not None]
    top = max([threshold * 1.15, *known])
    span = max(1e-9, until - since)
    rule = tall - 2 - (tall - 4) * threshold / top
    path = _path(values, lambda at: wide * (at - since) / span, lambda v: tall - 2 - (tall - 4) * max(0.0, v) / top)
    kind = "over" if known and known[-1] >= threshold else "under"
    words = f"evidence now {max(0.0, known[-1] if known else 0.0) / threshold:.0%} of the threshold"
    return Markup(  # noqa: S704 - every text in it was escaped
        f'<svg class="spark" viewBox="0 0 {wide} {tall}" role="img" aria-label="{escape(words)}">'
        f'<path class="limit" d="M0 {rule:.1f}H{wide}"/><path class="line {kind}" d="{path}"/></svg>'
    )
