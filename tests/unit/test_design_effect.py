"""The design effect: about 1 for independent requests, and Kish's formula for users who are alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace

from alerts.design_effect import SCALES, WINDOW_TICKS, Spread, add, forget, no_spread
from alerts.guardrails import EVENTS, VALUES, Event, Value
from alerts.signals import GROUPS, LEVEL_VALUES, LEVELS, Tick, no_tick

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

MISS = EVENTS.index(Event.MISS)
RECALL = len(EVENTS) + VALUES.index(Value.RECALL)
EVERY = np.array([True])


def misses(trials: Array, bad: Array, runs: int = 1) -> Tick:
    """Return a tick of the candidate's misses by group (r, groups)."""
    tick = no_tick(runs)
    tick.group_trials[:, 1, MISS], tick.group_bad[:, 1, MISS] = trials, bad
    return tick


def minute(spread: Spread, tick: Tick) -> None:
    """Take what happened in a minute, all of it in its first second."""
    assert not add(spread, tick)
    for _ in range(WINDOW_TICKS[0] - 2):
        assert not add(spread, no_tick(len(spread.levels)))
    assert add(spread, no_tick(len(spread.levels)))


def effect_of(spread: Spread, stream: int = MISS, run: int = 0) -> list[float]:
    found: list[float] = spread.effect[run, 1, stream].tolist()
    return found


def users_of(rng: np.random.Generator, users: int, share: float, icc: float) -> tuple[Array, NDArray[np.int64]]:
    """Return how often each of some users has a miss, beta-distributed with this correlation, and their groups."""
    if not icc:
        return np.full(users, share), rng.integers(GROUPS, size=users)
    scale = 1 / icc - 1
    return rng.beta(share * scale, (1 - share) * scale, users), rng.integers(GROUPS, size=users)


def by_group(groups: NDArray[np.int64], weights: Array) -> Array:
    found: Array = np.bincount(groups, weights=weights, minlength=GROUPS).astype(float)
    return found


def test_the_effect_is_one_before_anything_was_seen() -> None:
    spread = no_spread(2)
    assert (spread.effect == 1).all()
    minute(spread, no_tick(2))
    assert (spread.effect == 1).all()


def test_the_effect_is_new_once_a_minute() -> None:
    spread = no_spread()
    told = [add(spread, no_tick()) for _ in range(180)]
    assert [place for place, is_new in enumerate(told, 1) if is_new] == [60, 120, 180]


def test_the_effect_of_a_minute_by_hand() -> None:
    """8 groups of 10, all missed in two: p = 0.25, surplus 2 * 7.5^2 + 6 * 2.5^2 = 150, expected 70 * 3/16."""
    trials, bad = np.zeros(GROUPS), np.zeros(GROUPS)
    trials[:8], bad[:2] = 10, 10
    spread = no_spread()
    minute(spread, misses(trials, bad))
    assert effect_of(spread) == pytest.approx([(150 + 2) / (70 * 3 / 16 + 2)] * SCALES)


def test_the_effect_of_a_value_by_hand() -> None:
    """Two groups of 4 pairs, at 0.75 and 0.25: surplus 2 * 1, expected (8 - 4) * 1/16; the prior is half an event."""
    tick = no_tick()
    tick.group_trials[0, 1, RECALL, :2] = 4
    tick.group_bad[0, 1, RECALL, :2] = 3, 1
    tick.values[0, 0, [16, 48]] = 4
    spread = no_spread()
    minute(spread, tick)
    assert effect_of(spread, RECALL) == pytest.approx([(2 + 0.5) / (0.25 + 0.5)] * SCALES)


def test_a_value_that_never_varies_has_no_effect() -> None:
    tick = no_tick()
    tick.group_trials[0, 1, RECALL] = 4
    tick.group_bad[0, 1, RECALL] = 2
    tick.values[0, 0, 32] = 4 * GROUPS
    spread = no_spread()
    minute(spread, tick)
    assert effect_of(spread, RECALL) == [1] * SCALES


def test_fewer_differences_than_of_independent_requests_count_as_independent() -> None:
    spread = no_spread()
    minute(spread, misses(np.full(GROUPS, 10.0), np.full(GROUPS, 1.0)))
    assert effect_of(spread) == [1] * SCALES


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_independent_requests_are_worth_one_each(share: float) -> None:
    rng = np.random.default_rng(1)
    spread = no_spread()
    for _ in range(60):
        trials = rng.poisson(20, GROUPS).astype(float)
        minute(spread, misses(trials, rng.binomial(trials.astype(int), share).astype(float)))
    found = effect_of(spread)
    assert found[0] == pytest.approx(1, abs=0.1)
    assert max(found) < 1.6  # one window of 64 groups: chi squared of 63 degrees over 63, 1.6 is 1 of 1,000


@pytest.mark.parametrize(("icc", "each"), [(0.1, 30), (0.2, 50)])
def test_users_who_are_alike_cost_what_kish_says_over_a_stage_and_little_within_a_minute(icc: float, each: int) -> None:
    """1,500 users of *each* requests over five hours, each in a minute by chance: 1 + (each - 1) icc, and 1."""
    rng = np.random.default_rng(2)
    runs, users, minutes = 12, 1500, 5 * 60
    mine = [users_of(rng, users, 0.2, icc) for _ in range(runs)]
    spread = no_spread(runs)
    left = np.full((runs, users), each)
    for number in range(minutes):
        now = rng.binomial(left, 1 / (minutes - number))
        left -= now
        bad = [rng.binomial(asked, chances) for asked, (chances, _) in zip(now, mine, strict=True)]
        trials_by_group = np.stack([by_group(g, n.astype(float)) for n, (_, g) in zip(now, mine, strict=True)])
        bad_by_group = np.stack([by_group(g, k.astype(float)) for k, (_, g) in zip(bad, mine, strict=True)])
        minute(spread, misses(trials_by_group, bad_by_group, runs))
    effect = spread.effect[:, 1, MISS].mean(0)
    assert effect[-1] == pytest.approx(1 + (each - 1) * icc, rel=0.15)
    assert 1 <= effect[0] < 1.25
    assert effect[1] < effect[2] < effect[3]


def test_values_of_users_who_are_alike_cost_what_kish_says() -> None:
    """Halves: of the spread of a value, half is between users and half within: icc = 0.5, 20 pairs each."""
    rng = np.random.default_rng(4)
    found = []
    for _ in range(10):
        groups = rng.integers(GROUPS, size=1000)
        liking = rng.choice([24, 40], 1000)
        levels = np.repeat(liking, 20) + rng.choice([-8, 8], 20_000)
        tick = no_tick()
        tick.values[0, 0] = np.bincount(levels, minlength=LEVELS)
        tick.group_trials[0, 1, RECALL] = 20 * by_group(groups, np.ones(1000))
        tick.group_bad[0, 1, RECALL] = by_group(np.repeat(groups, 20), LEVEL_VALUES[levels])
        spread = no_spread()
        minute(spread, tick)
        found.append(effect_of(spread, RECALL)[0])
    assert np.mean(found) == pytest.approx(1 + 19 * 0.5, rel=0.15)


def test_the_effect_does_not_fall_with_the_scale() -> None:
    rng = np.random.default_rng(5)
    spread = no_spread()
    for _ in range(75):
        trials = rng.poisson(3, GROUPS).astype(float)
        minute(spread, misses(trials, rng.binomial(trials.astype(int), rng.choice([0.02, 0.9])).astype(float)))
        assert (np.diff(spread.effect, axis=-1) >= 0).all()
        assert (spread.effect >= 1).all()


def test_it_does_not_matter_which_group_is_which() -> None:
    rng = np.random.default_rng(6)
    order = rng.permutation(GROUPS)
    one, other = no_spread(), no_spread()
    for _ in range(12):
        trials = rng.poisson(20, GROUPS).astype(float)
        bad = rng.binomial(trials.astype(int), rng.beta(0.5, 2, GROUPS)).astype(float)
        minute(one, misses(trials, bad))
        minute(other, misses(trials[order], bad[order]))
    assert one.effect == pytest.approx(other.effect)


def test_it_does_not_matter_how_a_minute_is_cut_into_ticks() -> None:
    rng = np.random.default_rng(7)
    trials = np.full(GROUPS, 60.0)
    bad = rng.binomial(60, rng.beta(0.5, 2, GROUPS)).astype(float)
    at_once, evenly = no_spread(), no_spread()
    minute(at_once, misses(trials, bad))
    for _ in range(60):
        add(evenly, misses(trials / 60, bad / 60))
    assert at_once.effect == pytest.approx(evenly.effect)


def test_older_windows_weigh_less() -> None:
    alike, apart = np.zeros(GROUPS), np.full(GROUPS, 2.0)
    alike[:16] = 10
    spread = no_spread()
    minute(spread, misses(np.full(GROUPS, 10.0), alike))
    high = effect_of(spread)[0]
    for _ in range(100):
        minute(spread, misses(np.full(GROUPS, 10.0), apart))
    assert high > 5
    assert effect_of(spread)[0] == 1


def test_each_scale_has_windows_of_its_own_length() -> None:
    spread = no_spread()
    tick = misses(np.full(GROUPS, 2.0), np.ones(GROUPS))
    for _ in range(59):
        minute(spread, tick)
    assert spread.ticks[:, 0].tolist() == [0, 540, 3000, 3540]
    assert spread.trials[1][0, 1, MISS, 0] == 2 * 9
    assert spread.trials[2][0, 1, MISS, 0] == 2 * 50
    assert spread.trials[3][0, 1, MISS, 0] == 2 * 59
    minute(spread, tick)
    assert spread.ticks[:, 0].tolist() == [0, 0, 0, 3600]
    assert not spread.trials[2].any()
    assert (spread.expected[:3, 0, 1, MISS] > 0).all()


def alike(runs: int, which: list[int]) -> Tick:
    """Return a minute in which all of some groups and none of the others have misses."""
    bad = np.zeros((runs, GROUPS))
    bad[which, ::4] = 10
    trials = np.zeros((runs, GROUPS))
    trials[which] = 10
    return misses(trials, bad, runs)


def test_forgetting_leaves_the_other_runs_alone() -> None:
    spread = no_spread(2)
    minute(spread, replace(alike(2, [0, 1]), values=np.ones((2, len(VALUES), LEVELS))))
    kept = spread.effect[1].copy()
    forget(spread, np.array([True, False]))
    assert (spread.effect[0] == 1).all()
    assert np.array_equal(spread.effect[1], kept)
    for scale in range(SCALES):
        assert not spread.trials[scale][0].any()
        assert not spread.bad[scale][0].any()
    assert not spread.surplus[:, 0].any()
    assert not spread.expected[:, 0].any()
    assert not spread.levels[0].any()
    assert spread.levels[1].any()
    assert spread.trials[-1][1].any()


@pytest.mark.parametrize("minutes_before", [9, 59])
def test_a_stage_is_measured_the_same_whenever_it_began(minutes_before: int) -> None:
    """What is left of a window of the stage before is no window of ten minutes, or of an hour, of this one."""
    rng = np.random.default_rng(10)
    later, fresh = no_spread(), no_spread()
    for _ in range(minutes_before):
        minute(later, alike(1, [0]))
    forget(later, EVERY)
    chances = rng.beta(0.5, 2, GROUPS)
    for _ in range(5):
        trials = rng.poisson(5, GROUPS).astype(float)
        tick = misses(trials, rng.binomial(trials.astype(int), chances).astype(float))
        minute(later, tick)
        minute(fresh, tick)
    assert effect_of(later) == pytest.approx(effect_of(fresh))


def test_a_run_is_measured_the_same_beside_others() -> None:
    """The first run has misses from the start, the second only after its first ten minutes."""
    both, alone = no_spread(2), no_spread(1)
    for number in range(15):
        minute(both, alike(2, [0, 1] if number >= 10 else [0]))
        minute(alone, alike(1, [0] if number >= 10 else []))
    assert effect_of(both, run=1) == pytest.approx(effect_of(alone))


def test_a_stream_is_measured_the_same_whatever_else_is_counted() -> None:
    """Misses begin after the first ten minutes, in which there were errors, or not."""
    alone, beside = no_spread(), no_spread()
    for number in range(15):
        tick = alike(1, [0] if number >= 10 else [])
        minute(alone, tick)
        noisy = tick + no_tick()
        noisy.group_trials[:, 1, EVENTS.index(Event.ERROR)] = 10
        noisy.group_bad[:, 1, EVENTS.index(Event.ERROR)] = 1
        minute(beside, noisy)
    assert effect_of(beside) == pytest.approx(effect_of(alone))
