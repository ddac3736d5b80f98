"""Which plots the rollout page has, and what points each is made of."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from alerts.guardrails import Value
from alerts.trend import money_of
from proxy.dashboard.charts import Chart, Mark, Series
from proxy.dashboard.tiers import FINEST
from proxy.dashboard.words import count, dollars, latency, percent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from alerts.trend import ArmPoint, Money, Point
    from flags.record import AuditEntry
    from proxy.dashboard.past import Past
    from proxy.dashboard.tiers import Tier

_ARMS = ("control", "candidate")
_GAP_PERIODS = 2.5
"""A line is broken where no point came for so many periods."""
_LEAST_PERIODS = 24
_ACTIONS = {
    "begin": "began",
    "ramp": "ramped",
    "advance": "advanced",
    "hold": "held",
    "rearm": "re-armed",
    "retire": "old arm retired",
    "adopt": "set in the flag",
    "rollback": "rolled back",
    "ready": "ready to advance",
    "revert": "went back a stage",
    "promote": "promoted",
}
"""Of the audit trail; what is not here is not marked in a plot."""


def charts_of(points: Sequence[Point], marks: Sequence[Mark], tier: Tier) -> list[Chart]:
    """Return the plots of one span of time until now."""
    until = time.time()
    since = until - tier.seconds * tier.points
    if points:  # what is young fills the plot
        since = max(since, min(points[0].at - tier.seconds, until - _LEAST_PERIODS * tier.seconds))
    return _charts(points, marks, since, until, tier.seconds * _GAP_PERIODS)


def charts_around(points: Sequence[Point], marks: Sequence[Mark]) -> list[Chart]:
    """Return the plots of what was kept of a rollback, *points* of the finest series."""
    return _charts(points, marks, points[0].at, points[-1].at, FINEST.seconds * _GAP_PERIODS)


def _charts(points: Sequence[Point], marks: Sequence[Mark], since: float, until: float, gap: float) -> list[Chart]:

    def arms(value: Callable[[ArmPoint, Point], float | None]) -> list[Series]:
        return [
            Series(name, name, _broken(((p.at, value(p.arms[arm], p)) for p in points), gap))
            for arm, name in enumerate(_ARMS)
        ]

    def paired(title: str, value: Value) -> Chart:
        line = Series("candidate less control", "candidate", _means(points, value, gap, shift=-0.5))
        return chart(title, [line], _signed, floor=None, limit=0.0)

    def chart(
        title: str,
        series: list[Series],
        words: Callable[[float], str],
        *,
        floor: float | None = 0.0,
        ceiling: float | None = None,
        limit: float | None = None,
    ) -> Chart:
        return Chart(
            title=title,
            series=series,
            since=since,
            until=until,
            words=words,
            unit=_UNITS.get(words, ""),
            marks=marks,
            floor=floor,
            ceiling=ceiling,
            limit=limit,
        )

    return [
        chart("Latency, p95", arms(lambda a, _: a.p95_seconds), latency),
        chart("Latency, p50", arms(lambda a, _: a.p50_seconds), latency),
        chart("Requests a second", arms(lambda a, p: a.requests / p.seconds if p.seconds else None), count),
        chart("Errors", arms(lambda a, _: a.errors / a.trials if a.trials else None), percent),
        chart("Fallbacks", arms(lambda a, _: a.fallbacks / a.requests if a.requests else None), percent),
        chart("Dollars per 1,000 requests", arms(_price), dollars),
        chart(
            "Overlap of the five best",
            [Series("shadowed pairs", "candidate", _means(points, Value.OVERLAP, gap))],
            _unit,
            ceiling=1.0,
        ),
        paired("nDCG@10 of the probes", Value.PROBE),
        chart("Choices near the top", arms(lambda a, _: 1 - a.misses / a.told if a.told else None), percent, ceiling=1),
        chart(
            "Share of the candidate",
            [
                Series("wanted", "control", _broken(((p.at, p.share_percent) for p in points), gap)),
                Series("observed", "candidate", _broken(((p.at, _observed(p)) for p in points), gap)),
            ],
            _percentage,
        ),
    ]


def marks_of(entries: Iterable[AuditEntry]) -> list[Mark]:
    """Return what happened to the rollout."""
    return [
        Mark(
            entry.at,
            f"{entry.actor} {_ACTIONS[entry.action]}: {entry.from_share_percent} → {entry.to_share_percent} %",
            "rollback" if entry.action == "rollback" else "action",
        )
        for entry in entries
        if entry.action in _ACTIONS
    ]


async def money_so_far(past: Past, tiers: Sequence[Tier]) -> Money:
    """Return what was spent and saved since the oldest point: the coarse series, and finer ones for what is newer."""
    found: list[Point] = []
    for tier in reversed(tiers):
        newest = found[-1].at if found else 0.0
        found += [point for point in await past.points(tier) if point.at - point.seconds >= newest - 1]
    return money_of(found)


def evidence_lines(points: Sequence[Point], name: str, gap_seconds: float) -> list[tuple[float, float | None]]:
    """Return the evidence against one guardrail over time."""
    return _broken(((p.at, p.evidence.get(name, 0.0)) for p in points), gap_seconds)


def _percentage(value: float) -> str:
    return f"{value:.3g} %"


_UNITS = {latency: "s", percent: "share", dollars: "dollars", _percentage: "percent"}


def _price(arm: ArmPoint, _: Point) -> float | None:
    return 1000 * arm.dollars / arm.requests if arm.requests else None


def _observed(point: Point) -> float | None:
    total = sum(arm.requests for arm in point.arms)
    return 100 * point.arms[1].requests / total if total else None


def _means(points: Iterable[Point], value: Value, gap: float, shift: float = 0.0) -> list[tuple[float, float | None]]:
    known = ((p.at, p.values.get(value.value)) for p in points)
    return _broken(((at, mean.mean + shift if mean else None) for at, mean in known), gap)


def _broken(values: Iterable[tuple[float, float | None]], gap: float) -> list[tuple[float, float | None]]:
    """Return *values* with a break where none came for *gap* seconds; a period without a value breaks nothing."""
    found: list[tuple[float, float | None]] = []
    for at, value in values:
        if value is None:
            continue
        if found and at - found[-1][0] > gap:
            found.append((at, None))
        found.append((at, value))
    return found


def _signed(value: float) -> str:
    return f"{value:+.2f}" if abs(value) >= 0.005 else "0.00"


def _unit(value: float) -> str:
    return f"{value:.2f}"
