"""Signals: differences of sums, what cannot be, levels, groups, and the way there and back through JSON."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerts.guardrails import EVENTS, PAIRED_RANGE, VALUES, Event, Value
from alerts.signals import (
    ARMS,
    GROUPS,
    LEVEL_VALUES,
    LEVELS,
    STREAMS,
    ArmSignals,
    Example,
    InvalidSignals,
    Signals,
    Tick,
    group_of,
    latency_since,
    no_tick,
    paired_levels,
    tick_of,
)
from flags.bucketing import bucket

if TYPE_CHECKING:
    from collections.abc import Callable

ERROR = EVENTS.index(Event.ERROR)
RECALL = VALUES.index(Value.RECALL)


def told(requests: int, errors: int = 0, *, recall: dict[int, int] | None = None, users: int = 0) -> Signals:
    """Return sums of a replica: requests of the candidate, all of one group, and pairs."""
    signals = Signals(at=1.0)
    arm = signals.arms[1]
    arm.requests, arm.new_users = requests, users
    arm.trials[ERROR], arm.bad[ERROR] = requests, errors
    arm.group_trials[ERROR][5], arm.group_bad[ERROR][5] = requests, float(errors)
    signals.values[RECALL] = recall or {}
    return signals


def is_same(one: Tick, other: Tick) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in Tick.__struct_fields__)


def test_what_a_replica_that_is_new_tells_is_all_of_the_tick() -> None:
    tick = tick_of(told(10, 3, recall={32: 4, 40: 1}, users=2), None)
    assert tick.requests.tolist() == [[0, 10]]
    assert tick.trials[0, 1, ERROR] == 10
    assert tick.bad[0, 1, ERROR] == 3
    assert (tick.values[0, RECALL, 32], tick.values[0, RECALL, 40], tick.values.sum()) == (4, 1, 5)
    assert (tick.group_trials[0, 1, ERROR, 5], tick.group_bad[0, 1, ERROR, 5]) == (10, 3)
    assert tick.new_users.tolist() == [[0, 2]]


def test_a_tick_is_what_was_added_since_the_last_one() -> None:
    tick = tick_of(told(15, 4, recall={32: 4}, users=3), told(10, 3, recall={32: 1}, users=2))
    assert tick.requests.tolist() == [[0, 5]]
    assert (tick.trials[0, 1, ERROR], tick.bad[0, 1, ERROR], tick.values.sum()) == (5, 1, 3)
    assert tick.new_users.tolist() == [[0, 1]]


def test_sums_that_are_told_twice_count_once() -> None:
    assert is_same(tick_of(told(15, 4, recall={3: 1}), told(15, 4, recall={3: 1})), no_tick())


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8))
def test_ticks_add_up_to_the_whole_wherever_it_is_cut(steps: list[tuple[int, int]]) -> None:
    good = bad = 0
    before: Signals | None = None
    total = no_tick()
    for more_good, more_bad in steps:
        good, bad = good + more_good, bad + more_bad
        now = told(good + bad, bad, recall={bad % LEVELS: 0, 7: good})
        total = total + tick_of(now, before)
        before = now
    assert is_same(total, tick_of(told(good + bad, bad, recall={7: good}), None))


def test_ticks_of_replicas_add_up_in_any_order() -> None:
    ticks = [tick_of(told(10 * n, n, recall={n: 1}, users=n), None) for n in range(1, 4)]
    assert is_same(ticks[0] + ticks[1] + ticks[2], ticks[2] + (ticks[0] + ticks[1]))
    assert is_same(ticks[0] + no_tick(), ticks[0])
    assert (ticks[0] + ticks[1]).requests[0, 1] == 30


def test_a_tick_without_anything_has_the_shape_of_all() -> None:
    tick = no_tick(3)
    shapes = {name: getattr(tick, name).shape for name in Tick.__struct_fields__}
    assert shapes == {
        "requests": (3, ARMS),
        "trials": (3, ARMS, len(EVENTS)),
        "bad": (3, ARMS, len(EVENTS)),
        "values": (3, len(VALUES), LEVELS),
        "group_trials": (3, ARMS, STREAMS, GROUPS),
        "group_bad": (3, ARMS, STREAMS, GROUPS),
        "new_users": (3, ARMS),
    }


def test_a_replica_that_began_again_under_its_old_name_is_refused() -> None:
    with pytest.raises(InvalidSignals, match="requests"):
        tick_of(told(1), told(100, 3))


def a_request(signals: Signals) -> None:
    signals.arms[1].requests = -1


def a_trial(signals: Signals) -> None:
    signals.arms[0].trials[0] = -1


def a_bad_one(signals: Signals) -> None:
    signals.arms[0].bad[2] = -1


def a_value(signals: Signals) -> None:
    signals.values[0] = {3: -1}


def a_group_trial(signals: Signals) -> None:
    signals.arms[1].group_trials[STREAMS - 1][GROUPS - 1] = -1


def a_group_bad_one(signals: Signals) -> None:
    signals.arms[1].group_bad[0][0] = math.nan


def an_endless_group(signals: Signals) -> None:
    signals.arms[1].group_bad[0][0] = math.inf


def a_new_user(signals: Signals) -> None:
    signals.arms[0].new_users = -3


PLANTED = [
    ("requests", a_request),
    ("trials", a_trial),
    ("bad", a_bad_one),
    ("values", a_value),
    ("group_trials", a_group_trial),
    ("group_bad", a_group_bad_one),
    ("group_bad", an_endless_group),
    ("new_users", a_new_user),
]


@pytest.mark.parametrize(("name", "where"), PLANTED, ids=[where.__name__ for _, where in PLANTED])
def test_counts_that_cannot_be_are_refused_by_name(name: str, where: Callable[[Signals], None]) -> None:
    signals = told(10, 3)
    where(signals)
    with pytest.raises(InvalidSignals, match=f"^{name}: "):
        tick_of(signals, None)


def test_counts_that_fell_are_refused_by_name() -> None:
    for name, before in [
        ("bad", told(10, 4)),
        ("values", told(10, 3, recall={1: 1})),
        ("new_users", told(10, 3, users=1)),
    ]:
        with pytest.raises(InvalidSignals, match=f"^{name}: "):
            tick_of(told(10, 3), before)


def test_more_bad_events_than_trials_are_refused() -> None:
    with pytest.raises(InvalidSignals, match="more bad events than trials"):
        tick_of(told(3, 4), None)
    in_all = told(3, 3)
    in_all.arms[1].bad[ERROR] = 4
    with pytest.raises(InvalidSignals, match="more bad events than trials"):
        tick_of(in_all, None)
    by_group = told(3, 3)
    by_group.arms[1].group_bad[ERROR][5] = 3.5
    with pytest.raises(InvalidSignals, match="more bad events than trials"):
        tick_of(by_group, None)


def test_more_bad_events_than_trials_within_a_tick_are_refused_even_if_the_sums_could_be() -> None:
    with pytest.raises(InvalidSignals, match="more bad events than trials"):
        tick_of(told(101, 5), told(100, 0))


def test_more_requests_than_one_replica_can_serve_are_refused_by_the_time_that_went_by() -> None:
    for seconds, is_refused in [(1.0, True), (-600.0, True), (3600.0, False)]:
        now = told(10_000_000)
        now.at += seconds
        if is_refused:
            with pytest.raises(InvalidSignals, match=r"^requests: more than one replica can serve"):
                tick_of(now, told(0))
        else:
            assert tick_of(now, told(0)).requests[0, 1] == 10_000_000


def short_of_events(signals: Signals) -> None:
    signals.arms[0].trials = [1]


def ragged_groups(signals: Signals) -> None:
    signals.arms[0].group_trials[2] = [0]


def without_groups(signals: Signals) -> None:
    signals.arms[0].group_trials = []
    signals.arms[1].group_trials = []


def a_level_too_high(signals: Signals) -> None:
    signals.values[0] = {LEVELS: 1}


def a_level_below_zero(signals: Signals) -> None:
    signals.values[0] = {-1: 1}


def a_value_too_many(signals: Signals) -> None:
    signals.values = [*signals.values, {1: 1}]


@pytest.mark.parametrize(
    "where", [short_of_events, ragged_groups, without_groups, a_level_too_high, a_level_below_zero, a_value_too_many]
)
def test_counts_of_another_shape_are_refused(where: Callable[[Signals], None]) -> None:
    signals = told(10, 3)
    where(signals)
    with pytest.raises(InvalidSignals):
        tick_of(signals, None)


def test_signals_come_back_from_json_as_they_were() -> None:
    signals = told(10, 3, recall={0: 1, 64: 2}, users=4)
    signals.arms[0].latency = {12: 3, 700: 1}
    signals.arms[0].fallbacks = {"timeout": 2}
    signals.arms[0].dollars = 0.125
    signals.examples = [Example(at=1.5, request_id="r", trace_id="", seconds=0.25, outcome="error")]
    back = msgspec.json.decode(msgspec.json.encode(signals), type=Signals)
    assert back == signals
    assert is_same(tick_of(back, signals), no_tick())


def test_no_two_replicas_share_a_list() -> None:
    one, other = Signals(at=0.0), Signals(at=0.0)
    one.arms[0].trials[0] = one.arms[0].group_trials[0][0] = 7
    one.values[0][3] = 1
    assert other == Signals(at=0.0)
    assert ArmSignals().group_bad[0] is not ArmSignals().group_bad[1]


def with_latency(latency: dict[int, int]) -> Signals:
    signals = Signals(at=0.0)
    signals.arms[0].latency = latency
    return signals


def test_latencies_are_told_by_what_was_added_to_each_bucket() -> None:
    now, before = with_latency({3: 5, 7: 2, 9: 1}), with_latency({3: 5, 7: 1})
    assert latency_since(now, before, 0) == {7: 1, 9: 1}
    assert latency_since(now, None, 0) == {3: 5, 7: 2, 9: 1}
    assert latency_since(now, now, 0) == {}
    assert latency_since(now, before, 1) == {}


@pytest.mark.parametrize(
    ("now", "before"),
    [({3: 4}, {3: 5}), ({3: -1}, {}), ({-1: 1}, {}), ({100_000: 1}, {})],
    ids=["fell", "negative", "bucket below zero", "bucket too high"],
)
def test_latencies_that_cannot_be_are_refused_as_other_counts_are(now: dict[int, int], before: dict[int, int]) -> None:
    with pytest.raises(InvalidSignals, match="latency"):
        tick_of(with_latency(now), with_latency(before))


@given(difference=st.floats(-1, 1), dither=st.floats(0, 1, exclude_max=True))
def test_a_level_is_less_than_one_step_away_from_the_difference(difference: float, dither: float) -> None:
    level = int(paired_levels(np.array(difference), np.array(dither)))
    assert 0 <= level < LEVELS
    clipped = min(PAIRED_RANGE, max(-PAIRED_RANGE, difference))
    assert abs(LEVEL_VALUES[level] - (clipped + PAIRED_RANGE)) <= 1 / 64 + 1e-9


@pytest.mark.parametrize("difference", [-0.021, -0.03, 0.0, 0.123])
def test_rounding_keeps_the_mean(difference: float) -> None:
    dither = (np.arange(6400) + 0.5) / 6400
    levels = paired_levels(np.full(6400, difference), dither)
    assert LEVEL_VALUES[levels].mean() - PAIRED_RANGE == pytest.approx(difference, abs=1e-5)


def test_levels_by_hand() -> None:
    differences = np.array([-1, -0.5, -0.1, 0, 0.1, 0.5, 1])
    assert paired_levels(differences, np.zeros(7)).tolist() == [0, 0, 25, 32, 38, 64, 64]
    assert paired_levels(differences, np.full(7, 0.99)).tolist() == [0, 0, 26, 32, 39, 64, 64]


def test_groups_are_even_and_say_nothing_of_the_buckets_of_the_flag() -> None:
    users = [f"user-{n}" for n in range(40_000)]
    groups = Counter(group_of(user) for user in users)
    assert set(groups) == set(range(GROUPS))
    # chi squared of 63 degrees: 1 of 10,000 is above 114.7 (scipy.stats.chi2.isf)
    assert sum((found - 625) ** 2 / 625 for found in groups.values()) < 114.7
    within = Counter(group_of(user) for user in users if bucket("g", user) <= 25)
    mean = sum(within.values()) / GROUPS
    assert sum((within[group] - mean) ** 2 / mean for group in range(GROUPS)) < 114.7


@pytest.mark.parametrize(
    ("user", "group"),
    [  # murmur3 (32 bits, x86) with seed 0x67726F75, modulo 64, by a second implementation of the algorithm
        ("user-1", 48),
        ("", 26),
        ("\ud800", 24),
        ("\u65e5\u672c", 51),
    ],
)
def test_the_group_of_a_user_is_the_same_on_every_replica_and_in_every_version(user: str, group: int) -> None:
    assert group_of(user) == group
