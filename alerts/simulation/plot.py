"""Evidence over time of one run, drawn as SVG: readable in a browser, a report or a ticket, light and dark."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alerts.simulation.run import Result

_WIDTH, _HEIGHT = 960, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 170, 30, 45
COLOURS = (
    "#4269d0",
    "#efb118",
    "#ff725c",
    "#6cc5b0",
    "#3ca951",
    "#ff8ab7",
    "#a463f2",
    "#97bbf5",
    "#9c6b4e",
    "#9498a0",
)
STYLE = (
    "svg{font:12px system-ui,sans-serif;background:#fff;color:#1b1e24}text{fill:currentColor}"
    ".grid{stroke:currentColor;opacity:.15}.line{fill:none;stroke-width:1.5}"
    "@media(prefers-color-scheme:dark){svg{background:#181b21;color:#e6e8ec}}"
)


def draw(result: Result) -> str:
    """Return an SVG: powers of ten of evidence a minute apart, the threshold, the fault and the verdict."""
    hours = result.trace.hours or [0.0]
    top = max(result.threshold / math.log(10) * 1.25, 1.0)

    def x(hour: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * hour / max(hours[-1], 1e-9)

    def y(power: float) -> float:
        return _HEIGHT - _BOTTOM - (_HEIGHT - _TOP - _BOTTOM) * min(power, top) / top

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>Evidence against each guardrail over {hours[-1]:g} hours</title><style>{STYLE}</style>",
    ]
    for power in range(0, int(top) + 1, 2):
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(power):.1f}" y2="{y(power):.1f}"/>'
        )
        parts.append(f'<text x="{_LEFT - 8}" y="{y(power) + 4:.1f}" text-anchor="end">10^{power}</text>')
    parts += [
        f'<text x="{x(hour):.1f}" y="{_HEIGHT - 20}" text-anchor="middle">{hour:g} h</text>'
        for hour in _ticks(hours[-1])
    ]
    parts.append(_rule(y(result.threshold / math.log(10)), "breached from here on"))
    for place, name in enumerate(result.guardrails):
        colour = COLOURS[place % len(COLOURS)]
        points = " ".join(
            f"{x(hour):.1f},{y(row[place] / math.log(10)):.1f}"
            for hour, row in zip(hours, result.trace.evidence, strict=False)
        )
        parts.append(f'<polyline class="line" stroke="{colour}" points="{points}"/>')
        legend = _TOP + 18 * place
        parts.append(f'<rect x="{_WIDTH - _RIGHT + 15}" y="{legend}" width="10" height="10" fill="{colour}"/>')
        parts.append(f'<text x="{_WIDTH - _RIGHT + 31}" y="{legend + 9}">{escape(name)}</text>')
    if result.fault_second is not None:
        parts.append(_mark(x(result.fault_second / 3600), "fault", "#d62728"))
    if result.rules and math.isfinite(result.rules[0].at_second[0]):
        parts.append(_mark(x(result.rules[0].at_second[0] / 3600), "rollback", "#a463f2", 16))
    return "\n".join([*parts, "</svg>"])


def _rule(y: float, words: str) -> str:
    return (
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d62728" stroke-dasharray="6 4"/>'
        f'<text x="{_LEFT + 6}" y="{y - 6:.1f}">{words}</text>'
    )


def _mark(x: float, words: str, colour: str, down: float = 0) -> str:
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="{colour}"/>'
        f'<text x="{x + 4:.1f}" y="{_TOP + 10 + down}">{words}</text>'
    )


def _ticks(hours: float) -> list[float]:
    step = next((each for each in (0.25, 0.5, 1, 2, 3, 6, 12, 24, 48) if hours / each <= 8), 96)
    return [step * n for n in range(int(hours / step) + 1)]
