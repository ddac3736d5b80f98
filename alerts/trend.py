"""How each arm did over time: what the replicas' sums added in a period, as one point of a plot. Pure.

A point is made of differences of sums, like a tick of the guard, and keeps quantiles, not histograms. Those of a long
period are worked out from its own counts, never from the quantiles of shorter ones, which cannot be added up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from alerts.guardrails import EVENTS, VALUES, Event, Value
from alerts.histogram import quantile
from alerts.signals import LEVELS, Unjudged

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

_PLACES = {event: place for place, event in enumerate(EVENTS)}


class ArmCounts(msgspec.Struct, kw_only=True):
    """Of `alerts.signals.ArmSignals`, what is drawn."""

    requests: int = 0
    timeouts: int = 0
    fallbacks: dict[str, int] = {}
    dollars: float = 0.0
    trials: list[int] = msgspec.field(default_factory=lambda: [0] * len(EVENTS))
    bad: list[int] = msgspec.field(default_factory=lambda: [0] * len(EVENTS))
    latency: dict[int, int] = {}
    new_users: int = 0
    unjudged: Unjudged = msgspec.field(default_factory=Unjudged)


class Counts(msgspec.Struct, kw_only=True):
    """Of `alerts.signals.Signals`, what is drawn: it is read from what a replica tells the guard."""

    at: float
    arms: tuple[ArmCounts, ArmCounts] = msgspec.field(default_factory=lambda: (ArmCounts(), ArmCounts()))
    values: list[dict[int, int]] = msgspec.field(default_factory=lambda: [{} for _ in VALUES])
    candidate_at: float = 0.0


class ArmPoint(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one arm did in a period, with what it did where the flag had no choice."""

    requests: int = 0
    errors: int = 0
    """Of those that count for the tests: one user's are capped."""
    trials: int = 0
    timeouts: int = 0
    fallbacks: int = 0
    p50_seconds: float | None = None
    p95_seconds: float | None = None
    dollars: float = 0.0
    users: int = 0
    """Seen for the first time in the stage."""
    told: int = 0
    """Rankings that a user said something of."""
    misses: int = 0
    """Of those, where what was chosen was not near the top."""


class Mean(msgspec.Struct, frozen=True):
    """The mean of some values from 0 to 1."""

    mean: float
    count: int


class Point(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What both arms did in a period."""

    at: float
    """Unix seconds when it ended."""
    seconds: float
    share_percent: int | None = None
    """That the rollout gave to the candidate."""
    arms: tuple[ArmPoint, ArmPoint] = (ArmPoint(), ArmPoint())
    """Control, candidate."""
    values: dict[str, Mean] = {}
    """By `Value`; those of pairs are candidate's less control's, plus 0.5."""
    evidence: dict[str, float] = {}
    """Guardrail → natural logarithm of its detector."""


def point_of(
    now: Mapping[str, Counts],
    before: Mapping[str, Counts],
    *,
    at: float,
    seconds: float,
    share_percent: int | None,
    evidence: Mapping[str, float],
) -> Point:
    """Return what all replicas added since *before*; one that is not in it is new, one whose sums fell is left out."""
    pairs = [(counts, before.get(name, Counts(at=0.0))) for name, counts in now.items()]
    pairs = [(new, old) for new, old in pairs if _has_grown(new, old)]
    values = {value: _mean(place, pairs) for place, value in enumerate(VALUES)}
    return Point(
        at=at,
        seconds=seconds,
        share_percent=share_percent,
        arms=(_arm(0, pairs), _arm(1, pairs)),
        values={value.value: mean for value, mean in values.items() if mean is not None},
        evidence={name: round(value, 3) for name, value in evidence.items() if value > 0},
    )


def _has_grown(new: Counts, old: Counts) -> bool:
    pairs = list(zip(new.arms, old.arms, strict=True))
    return all(a.requests >= b.requests and a.unjudged.requests >= b.unjudged.requests for a, b in pairs)


def _arm(arm: int, pairs: Sequence[tuple[Counts, Counts]]) -> ArmPoint:
    arms = [(new.arms[arm], old.arms[arm]) for new, old in pairs]
    latency: dict[int, float] = {}
    for new, old in arms:
        for told, known in ((new.latency, old.latency), (new.unjudged.latency, old.unjudged.latency)):
            for bucket, count in told.items():
                latency[bucket] = latency.get(bucket, 0) + count - known.get(bucket, 0)

    def event(name: str, which: Event) -> int:
        place = _PLACES[which]
        return sum(getattr(new, name)[place] - getattr(old, name)[place] for new, old in arms)

    return ArmPoint(
        requests=sum(_requests(new) - _requests(old) for new, old in arms),
        errors=event("bad", Event.ERROR),
        trials=event("trials", Event.ERROR),
        timeouts=sum(new.timeouts - old.timeouts for new, old in arms),
        fallbacks=sum(_fallbacks(new) - _fallbacks(old) for new, old in arms),
        p50_seconds=quantile(latency, 0.5),
        p95_seconds=quantile(latency, 0.95),
        dollars=sum(_dollars(new) - _dollars(old) for new, old in arms),
        users=sum(new.new_users - old.new_users for new, old in arms),
        told=event("trials", Event.MISS),
        misses=event("bad", Event.MISS),
    )


def _requests(arm: ArmCounts) -> int:
    return arm.requests + arm.unjudged.requests


def _fallbacks(arm: ArmCounts) -> int:
    return sum(arm.fallbacks.values()) + arm.unjudged.fallbacks


def _dollars(arm: ArmCounts) -> float:
    return arm.dollars + arm.unjudged.dollars


def _mean(place: int, pairs: Iterable[tuple[Counts, Counts]]) -> Mean | None:
    count, total = 0, 0.0
    for new, old in pairs:
        known = old.values[place]
        for level, n in new.values[place].items():
            added = n - known.get(level, 0)
            count += added
            total += added * level / (LEVELS - 1)
    return Mean(total / count, count) if count > 0 else None


class Money(msgspec.Struct, frozen=True, kw_only=True):
    """What the requests of a period cost, and what the candidate's would have cost under control."""

    control_dollars: float
    candidate_dollars: float
    saved_dollars: float | None
    """None: control was never asked, so nobody knows what it costs."""
    seconds_saved: float | None
    """Of waiting, by the medians: at control's, less at the candidate's."""


def money_of(points: Iterable[Point]) -> Money:
    """Return it; what control costs a request, and how long it takes, is what it did when it was last seen."""
    spent = [0.0, 0.0]
    saved = waited = 0.0
    price = median = None
    pending = 0
    for point in points:
        control, candidate = point.arms
        spent[0] += control.dollars
        spent[1] += candidate.dollars
        if control.requests:
            price, median = control.dollars / control.requests, control.p50_seconds
            saved += pending * price
            pending = 0
        if price is None:
            pending += candidate.requests
        else:
            saved += candidate.requests * price
        saved -= candidate.dollars
        if median is not None and candidate.p50_seconds is not None:
            waited += candidate.requests * (median - candidate.p50_seconds)
    return Money(
        control_dollars=spent[0],
        candidate_dollars=spent[1],
        saved_dollars=None if price is None else saved,
        seconds_saved=None if median is None else waited,
    )


PAIRED = frozenset({Value.PROBE.value, Value.RECALL.value})
"""Values that are differences plus 0.5."""
