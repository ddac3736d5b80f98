"""Counts of what happened to both arms: additive over replicas, seconds and restarts.

Each replica adds up for itself and tells its sums, so that a sum told twice counts once, and one that was
not told is in the next. The guard takes differences (`Signals.since`).

A user's requests are alike, and the tests are by request. So each user belongs to one of `GROUPS` groups
whose sums are kept beside (the spread between them says how much a request is worth, `alerts.design_effect`),
and what one user adds in a minute is capped, good and bad alike: else the shares would be others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import mmh3
import msgspec
import numpy as np

from alerts.guardrails import EVENTS, PAIRED_RANGE, VALUES
from alerts.histogram import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

ARMS = 2
"""Control is 0, candidate 1."""
GROUPS = 64
LEVELS = 65
"""A value is counted at 0/64, 1/64, ... 64/64."""
STREAMS = len(EVENTS) + len(VALUES)
LEVEL_VALUES = np.arange(LEVELS) / (LEVELS - 1)

_MOST_REQUESTS_A_SECOND = 50_000


class InvalidSignals(Exception):
    """Counts that cannot be: negative, not finite, more bad ones than trials, or fewer than before."""


class Unjudged(msgspec.Struct, kw_only=True):
    """The sums of requests whose arm was not the flag's free choice, as after a rollback: shown, not judged."""

    requests: int = 0
    fallbacks: int = 0
    dollars: float = 0.0
    latency: dict[int, int] = {}


class ArmSignals(msgspec.Struct, kw_only=True):
    """The sums of one arm on one replica, since it started."""

    requests: int = 0
    timeouts: int = 0
    fallbacks: dict[str, int] = {}
    """By outcome of the assigned arm."""
    dollars: float = 0.0
    trials: list[int] = msgspec.field(default_factory=lambda: [0] * len(EVENTS))
    """By `EVENTS`: what counts for the tests."""
    bad: list[int] = msgspec.field(default_factory=lambda: [0] * len(EVENTS))
    latency: dict[int, int] = {}
    """Bucket of `alerts.histogram` → requests."""
    new_users: int = 0
    """Users seen for the first time in the stage."""
    group_trials: list[list[int]] = msgspec.field(default_factory=lambda: [[0] * GROUPS for _ in range(STREAMS)])
    """By stream (`EVENTS`, then `VALUES`) and group."""
    group_bad: list[list[float]] = msgspec.field(default_factory=lambda: [[0.0] * GROUPS for _ in range(STREAMS)])
    """Bad events, or the sum of the values."""
    unjudged: Unjudged = msgspec.field(default_factory=Unjudged)


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """A request of the candidate that went badly, for those who want to look at one."""

    at: float
    """Unix seconds."""
    request_id: str
    trace_id: str
    """Empty: the caller sent no trace context."""
    seconds: float
    outcome: str


class Signals(msgspec.Struct, kw_only=True):
    """What one replica tells: sums since it started."""

    at: float
    """Unix seconds."""
    started_at: float = 0.0
    """Unix seconds since when it counts."""
    stage: str = ""
    """Of which the users are new."""
    arms: tuple[ArmSignals, ArmSignals] = msgspec.field(default_factory=lambda: (ArmSignals(), ArmSignals()))
    values: list[dict[int, int]] = msgspec.field(default_factory=lambda: [{} for _ in VALUES])
    """By `VALUES`: level → observations."""
    examples: list[Example] = []
    """The slowest of the last minutes."""
    not_ready: int = 0
    """Requests that should have had the candidate, and got control because it is not ready."""
    candidate_at: float = 0.0
    """Unix seconds when the last request of the candidate began."""


class Tick(msgspec.Struct, frozen=True, kw_only=True):
    """What was added in one tick, for any number of runs at once: the leading axis r. Adds up."""

    requests: Array
    """(r, arms)"""
    trials: Array
    """(r, arms, events)"""
    bad: Array
    """(r, arms, events)"""
    values: Array
    """(r, values, levels)"""
    group_trials: Array
    """(r, arms, streams, groups)"""
    group_bad: Array
    """(r, arms, streams, groups)"""
    new_users: Array
    """(r, arms)"""

    def __add__(self, other: Tick) -> Tick:
        """Add up."""
        return Tick(**{name: getattr(self, name) + getattr(other, name) for name in Tick.__struct_fields__})


def group_of(user_id: str) -> int:
    """Return the group of a user, the same on every replica; other bits than those of the flag's bucket."""
    group: int = mmh3.hash(user_id.encode("utf-8", "surrogatepass"), 0x67726F75, signed=False) % GROUPS
    return group


def no_tick(runs: int = 1) -> Tick:
    """Return a tick in which nothing happened."""
    return Tick(
        requests=np.zeros((runs, ARMS)),
        trials=np.zeros((runs, ARMS, len(EVENTS))),
        bad=np.zeros((runs, ARMS, len(EVENTS))),
        values=np.zeros((runs, len(VALUES), LEVELS)),
        group_trials=np.zeros((runs, ARMS, STREAMS, GROUPS)),
        group_bad=np.zeros((runs, ARMS, STREAMS, GROUPS)),
        new_users=np.zeros((runs, ARMS)),
    )


def tick_of(now: Signals, before: Signals | None) -> Tick:
    """Return what a replica added since *before* (None: since it started).

    Raises:
        InvalidSignals: the sums cannot be, or fell.

    """
    told = _as_arrays(now)
    if before is not None:
        known = _as_arrays(before)
        told = Tick(**{name: getattr(told, name) - getattr(known, name) for name in Tick.__struct_fields__})
    for name in Tick.__struct_fields__:
        array = getattr(told, name)
        if not np.isfinite(array).all() or (array < -1e-9).any():
            raise InvalidSignals(f"{name}: a count is negative, fell, or is not finite")
    for arm in range(ARMS):
        _check_latency(now.arms[arm].latency, before.arms[arm].latency if before else {})
    if before is not None and told.requests.sum() > _MOST_REQUESTS_A_SECOND * max(1.0, now.at - before.at + 5):
        raise InvalidSignals("requests: more than one replica can serve")
    if (told.bad > told.trials).any() or (told.group_bad > told.group_trials + 1e-9).any():
        raise InvalidSignals("more bad events than trials")
    return told


def _check_latency(now: Mapping[int, int], before: Mapping[int, int]) -> None:
    is_wrong = any(not 0 <= bucket < BUCKETS or count < before.get(bucket, 0) for bucket, count in now.items())
    if is_wrong or not before.keys() <= now.keys():
        raise InvalidSignals("latency: a count is negative, fell, or is of no bucket")


def levels_of(values: Array, dither: Array) -> NDArray[np.int64]:
    """Return the levels of values in [0, 1], rounded up or down by *dither*, which is uniform in [0, 1).

    So the mean is kept, and with it what an e-value promises, which is linear in each value.
    """
    return np.minimum(np.floor(np.clip(values, 0, 1) * (LEVELS - 1) + dither), LEVELS - 1).astype(np.int64)


def paired_levels(difference: Array, dither: Array) -> NDArray[np.int64]:
    """Return the levels of candidate's less control's quality."""
    clipped = np.clip(difference, -PAIRED_RANGE, PAIRED_RANGE)
    return levels_of((clipped / PAIRED_RANGE + 1) / 2, dither)


def latency_since(now: Signals, before: Signals | None, arm: int) -> dict[int, int]:
    """Return the latencies of an arm that were added since *before*, by bucket."""
    known: Mapping[int, int] = before.arms[arm].latency if before else {}
    return {b: n - known.get(b, 0) for b, n in now.arms[arm].latency.items() if n != known.get(b, 0)}


def _as_arrays(signals: Signals) -> Tick:
    if any(level < 0 for levels in signals.values for level in levels):
        raise InvalidSignals("values: a level is below zero")
    try:
        values = np.zeros((1, len(VALUES), LEVELS))
        for place, levels in enumerate(signals.values):
            for level, count in levels.items():
                values[0, place, level] = count

        def stack(name: str, shape: tuple[int, ...]) -> Array:
            return np.array([getattr(arm, name) for arm in signals.arms], dtype=float).reshape((1, ARMS, *shape))

        return Tick(
            requests=stack("requests", ()),
            trials=stack("trials", (len(EVENTS),)),
            bad=stack("bad", (len(EVENTS),)),
            values=values,
            group_trials=stack("group_trials", (STREAMS, GROUPS)),
            group_bad=stack("group_bad", (STREAMS, GROUPS)),
            new_users=stack("new_users", ()),
        )
    except (ValueError, IndexError) as exc:
        raise InvalidSignals(f"not the shape that is counted: {exc}") from exc
