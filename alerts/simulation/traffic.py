"""Requests of many runs at once, block by block: users, latencies, bad events, pairs of rankings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from alerts.guardrails import EVENTS, VALUES, Event, Value
from alerts.histogram import BUCKETS, buckets_of
from alerts.signals import ARMS, GROUPS, LEVELS, STREAMS, Tick, paired_levels
from alerts.simulation.scenario import DAY

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from alerts.simulation.scenario import Arm, Fault, Scenario

    Array = NDArray[np.float64]
    Ints = NDArray[np.int64]

BLOCK_TICKS = 60
_RECALL_AT = 10
_DIFFICULTY = 2.0
"""How alike queries are: the smaller, the more they are either easy or hard for both arms."""
_BY_USER = (Event.ERROR, Event.FALLBACK, Event.MISS)
_RELEVANT = {Event.ERROR: "error_rate", Event.FALLBACK: "fallback_rate", Event.MISS: "miss_rate"}


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """What a rule that looks once a minute sees. Arrays (r, arms)."""

    requests: Array
    slow: Array
    errors: Array
    fallbacks: Array
    latency_seconds: Array
    """The sum."""


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One minute of all runs: arrays as in `Tick` with the ticks in front, and control's latencies."""

    ticks: list[Tick]
    control_latency: Array
    """(r, BUCKETS)"""
    minute: Minute


class Streams:
    """Draws the traffic of *runs* runs. The same seed gives the same traffic."""

    def __init__(self, scenario: Scenario, runs: int, seed: int, p95_seconds: float) -> None:
        self._scenario = scenario
        self._runs = runs
        self._rng = np.random.default_rng(seed)
        self._p95_seconds = p95_seconds
        self._arms = (scenario.control, scenario.candidate)
        users = scenario.traffic.users
        icc = scenario.traffic.heavy_user_icc
        self._propensity = {
            (arm, event): self._beta(getattr(self._arms[arm], _RELEVANT[event]), icc, users)
            for arm in range(ARMS)
            for event in _BY_USER
        }
        self._taste = self._rng.normal(0, 1, (runs, users)).astype(np.float32) if icc else None
        spread = scenario.traffic.latency_icc
        self._pace = self._rng.normal(0, 1, (runs, users)).astype(np.float32) if spread else None
        self._seen = np.zeros((runs, users), dtype=bool)
        self._shares = np.zeros(runs)

    def _beta(self, mean: float, icc: float, users: int) -> NDArray[np.float32] | None:
        """Return each user's own rate, so that two requests of a user correlate by *icc*; None: all have the mean."""
        if not icc or not 0 < mean < 1:
            return None
        size = 1 / icc - 1
        return self._rng.beta(mean * size, (1 - mean) * size, (self._runs, users)).astype(np.float32)

    def block(self, second: int, shares: Array, relative_limit: Array) -> Block:
        """Return the minute from *second* on, with the candidate at *shares* (r,) in percent."""
        if not np.array_equal(shares, self._shares):
            self._seen[shares != self._shares] = False
            self._shares = shares.copy()
        seconds = second + np.arange(BLOCK_TICKS)
        sums = _Sums(self._runs)
        for arm in range(ARMS):
            self._draw(arm, seconds, shares, relative_limit, sums)
        self._draw_pairs(seconds, shares, sums)
        return sums.block()

    def _draw(self, arm: int, seconds: Ints, shares: Array, relative_limit: Array, sums: _Sums) -> None:
        traffic, about = self._scenario.traffic, self._arms[arm]
        swing = 1 + traffic.daily_swing * np.sin(2 * np.pi * seconds / DAY)
        part = shares / 100 if arm else 1 - shares / 100
        silent = np.array([self._strength("no_traffic", s) for s in seconds]) if arm else 0.0
        rates = (traffic.requests_per_second * swing * (1 - silent))[:, None] * part[None, :]
        counts = self._rng.poisson(rates)
        place = np.repeat(np.arange(counts.size), counts.ravel())
        tick, run = place // self._runs, place % self._runs
        user = self._users(arm, shares[run])
        latency = self._latency(arm, about, run, user, seconds[tick])
        bad = {
            Event.SLOW: latency > self._p95_seconds,
            Event.SLOW_RELATIVE: latency > relative_limit[run],
            **{event: self._happens(arm, event, run, user, swing[tick], seconds[tick]) for event in _BY_USER},
        }
        trials = {event: np.ones(len(place), dtype=bool) for event in EVENTS}
        trials[Event.SLOW_RELATIVE] = ~np.isnan(relative_limit)[run]
        if not (self._scenario.control.miss_rate or self._scenario.candidate.miss_rate):
            trials[Event.MISS] = np.zeros(len(place), dtype=bool)
        sums.requests(arm, tick, run, user % GROUPS, trials, bad)
        sums.latency(arm, run, latency)
        self._count_new(arm, int(seconds[0]), tick, run, user, sums)

    def _users(self, arm: int, share: Array) -> Ints:
        """Return whose request each is: users with a bucket up to the share are the candidate's."""
        width = share if arm else 100 - share
        number = (self._rng.random(len(share)) * np.maximum(1, self._scenario.traffic.users * width // 100)).astype(int)
        width = np.maximum(width, 1).astype(int)
        user = number // width * 100 + number % width + (0 if arm else share.astype(int))
        return user % self._scenario.traffic.users

    def _latency(self, arm: int, about: Arm, run: Ints, user: Ints, second: Ints) -> Array:
        noise = self._rng.standard_normal(len(run), dtype=np.float32)
        if self._pace is not None:
            icc = self._scenario.traffic.latency_icc
            noise = np.sqrt(1 - icc) * noise + np.sqrt(icc) * self._pace[run, user]
        latency = about.latency_median_ms / 1000 * np.exp(about.latency_sigma * noise)
        if arm:
            for fault in self._faults("latency"):
                strength = _strengths(fault, second)
                latency = latency * (1 + (float(fault.factor or 1) - 1) * strength)
        return latency

    def _happens(self, arm: int, event: Event, run: Ints, user: Ints, swing: Array, second: Ints) -> NDArray[np.bool_]:
        own = self._propensity[arm, event]
        rate = (own[run, user] if own is not None else getattr(self._arms[arm], _RELEVANT[event])) * swing
        if arm:
            for fault in self._faults({Event.ERROR: "errors", Event.FALLBACK: "fallbacks"}.get(event, "")):
                rate = np.maximum(rate, float(fault.rate or 0) * _strengths(fault, second))
        return self._rng.random(len(run), dtype=np.float32) < rate

    def _count_new(self, arm: int, second: int, tick: Ints, run: Ints, user: Ints, sums: _Sums) -> None:
        flat = run * self._scenario.traffic.users + user
        fresh = ~self._seen.reshape(-1)[flat]
        numbers, first = np.unique(flat[fresh], return_index=True)
        self._seen.reshape(-1)[numbers] = True
        weight = np.ones(len(first))
        if arm:
            for fault in self._faults("split"):
                weight *= 1 + (float(fault.factor or 1) - 1) * _strengths(fault, second + tick[fresh][first])
        sums.users(arm, tick[fresh][first], run[fresh][first], weight)

    def _draw_pairs(self, seconds: Ints, shares: Array, sums: _Sums) -> None:
        rate = self._scenario.candidate.shadow_pairs_per_second
        if not rate:
            return
        swing = 1 + self._scenario.traffic.daily_swing * np.sin(2 * np.pi * seconds / DAY)
        silent = np.array([self._strength("no_traffic", s) for s in seconds])
        counts = self._rng.poisson((rate * swing * (1 - silent))[:, None] * np.ones(self._runs)[None, :])
        place = np.repeat(np.arange(counts.size), counts.ravel())
        tick, run = place // self._runs, place % self._runs
        user = self._users(1, shares[run])
        difference = self._recall_difference(seconds[tick])
        if self._taste is not None:
            icc = self._scenario.traffic.heavy_user_icc
            difference = difference + np.sqrt(icc) * 0.15 * self._taste[run, user]
        level = paired_levels(difference, self._rng.random(len(difference)))
        sums.pairs(Value.RECALL, tick, run, user % GROUPS, level)

    def _recall_difference(self, second: Ints) -> Array:
        """Return candidate's less control's recall of ten relevant documents, for queries as hard for both arms."""
        control, candidate = (np.full(len(second), arm.recall_mean) for arm in self._arms)
        for fault in self._faults("recall"):
            candidate = candidate - float(fault.drop or 0) * _strengths(fault, second)
        control, candidate = np.clip(control, 1e-3, 1 - 1e-3), np.clip(candidate, 1e-3, 1 - 1e-3)
        easy = self._rng.beta(control * _DIFFICULTY, (1 - control) * _DIFFICULTY)
        as_easy = np.where(
            candidate <= control, easy * candidate / control, 1 - (1 - easy) * (1 - candidate) / (1 - control)
        )
        found = [self._rng.binomial(_RECALL_AT, np.clip(share, 0, 1)) for share in (easy, as_easy)]
        return (found[1] - found[0]) / _RECALL_AT

    def _faults(self, kind: str) -> list[Fault]:
        return [fault for fault in self._scenario.fault if fault.kind == kind]

    def _strength(self, kind: str, second: float) -> float:
        return max((fault.strength(second) for fault in self._faults(kind)), default=0.0)


def _strengths(fault: Fault, seconds: Ints) -> Array:
    found, inverse = np.unique(seconds, return_inverse=True)
    return np.array([fault.strength(s) for s in found])[inverse] if len(found) else np.zeros(0)


class _Sums:
    """Adds up one block."""

    def __init__(self, runs: int) -> None:
        self._runs = runs
        shape = (BLOCK_TICKS, runs, ARMS)
        self._requests = np.zeros(shape)
        self._trials = np.zeros((*shape, len(EVENTS)))
        self._bad = np.zeros((*shape, len(EVENTS)))
        self._values = np.zeros((BLOCK_TICKS, runs, len(VALUES), LEVELS))
        self._group_trials = np.zeros((*shape, STREAMS, GROUPS))
        self._group_bad = np.zeros((*shape, STREAMS, GROUPS))
        self._new_users = np.zeros(shape)
        self._control_latency = np.zeros((runs, BUCKETS))
        self._latency_seconds = np.zeros((runs, ARMS))

    def requests(
        self,
        arm: int,
        tick: Ints,
        run: Ints,
        group: Ints,
        trials: dict[Event, NDArray[np.bool_]],
        bad: dict[Event, NDArray[np.bool_]],
    ) -> None:
        """Count requests of one arm."""
        place = tick * self._runs + run
        cell = place * GROUPS + group
        size = BLOCK_TICKS * self._runs
        self._requests[:, :, arm] = np.bincount(place, minlength=size).reshape(BLOCK_TICKS, self._runs)
        all_cells = np.bincount(cell, minlength=size * GROUPS).reshape(BLOCK_TICKS, self._runs, GROUPS)
        for stream, event in enumerate(EVENTS):
            counted = trials[event]
            if counted.all():
                cells = all_cells
            else:
                cells = np.bincount(cell[counted], minlength=size * GROUPS).reshape(all_cells.shape)
            hit = bad[event] & counted
            hits = np.bincount(cell[hit], minlength=size * GROUPS).reshape(all_cells.shape)
            self._group_trials[:, :, arm, stream] = cells
            self._group_bad[:, :, arm, stream] = hits
            self._trials[:, :, arm, stream] = cells.sum(-1)
            self._bad[:, :, arm, stream] = hits.sum(-1)

    def latency(self, arm: int, run: Ints, latency: Array) -> None:
        """Count latencies."""
        self._latency_seconds[:, arm] = np.bincount(run, latency, minlength=self._runs)
        if arm == 0:
            cell = run * BUCKETS + buckets_of(latency)
            found = np.bincount(cell, minlength=self._runs * BUCKETS)
            self._control_latency[:] = found.reshape(self._runs, BUCKETS)

    def users(self, arm: int, tick: Ints, run: Ints, weight: Array) -> None:
        """Count users seen for the first time."""
        found = np.bincount(tick * self._runs + run, weight, minlength=BLOCK_TICKS * self._runs)
        self._new_users[:, :, arm] = found.reshape(BLOCK_TICKS, self._runs)

    def pairs(self, value: Value, tick: Ints, run: Ints, group: Ints, level: Ints) -> None:
        """Count levels of paired differences."""
        row = VALUES.index(value)
        place = tick * self._runs + run
        size = BLOCK_TICKS * self._runs
        found = np.bincount(place * LEVELS + level, minlength=size * LEVELS)
        self._values[:, :, row] = found.reshape(BLOCK_TICKS, self._runs, LEVELS)
        stream = len(EVENTS) + row
        shape = (BLOCK_TICKS, self._runs, GROUPS)
        cell = place * GROUPS + group
        self._group_trials[:, :, 1, stream] = np.bincount(cell, minlength=size * GROUPS).reshape(shape)
        self._group_bad[:, :, 1, stream] = np.bincount(cell, level / (LEVELS - 1), minlength=size * GROUPS).reshape(
            shape
        )

    def block(self) -> Block:
        """Return what was counted."""
        ticks = [
            Tick(
                requests=self._requests[tick],
                trials=self._trials[tick],
                bad=self._bad[tick],
                values=self._values[tick],
                group_trials=self._group_trials[tick],
                group_bad=self._group_bad[tick],
                new_users=self._new_users[tick],
            )
            for tick in range(BLOCK_TICKS)
        ]
        bad = self._bad.sum(0)
        minute = Minute(
            requests=self._requests.sum(0),
            slow=bad[:, :, EVENTS.index(Event.SLOW)],
            errors=bad[:, :, EVENTS.index(Event.ERROR)],
            fallbacks=bad[:, :, EVENTS.index(Event.FALLBACK)],
            latency_seconds=self._latency_seconds,
        )
        return Block(ticks=ticks, control_latency=self._control_latency, minute=minute)
