"""The judge: from ticks to breaches, passes and a wrong split, for any number of runs at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from alerts.evidence import share_bounds
from alerts.guardrails import (
    EVENTS,
    VALUES,
    Event,
    Guardrail,
    GuardrailOverride,
    Value,
    default_guardrails,
    with_overrides,
)
from alerts.guardrails import Method as Kind
from alerts.judge import Judge
from alerts.judge_state import NOTHING, State
from alerts.signals import ARMS, GROUPS, LEVEL_VALUES, LEVELS, STREAMS, Tick, no_tick, paired_levels
from alerts.stage_bounds import BOUND_ALPHA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = NDArray[np.float64]

HORIZON = 86_400.0
ALPHA = 0.01
EVEN = np.array([0.5])
ERRORS = Guardrail(name="errors", words="", signal=Event.ERROR, test=Kind.SHARE, limit=0.05)
MISSES = Guardrail(name="misses_relative", words="", signal=Event.MISS, test=Kind.BETWEEN, limit=0.02)
RECALL = Guardrail(name="recall", words="", signal=Value.RECALL, test=Kind.MEAN, limit=0.02)
ALL = (ERRORS, MISSES, RECALL)


def judge_of(*guardrails: Guardrail, alpha: float = ALPHA) -> Judge:
    return Judge(guardrails or ALL, HORIZON, alpha)


def events(event: Event, trials: Array, bad: Array, arm: int = 1) -> Tick:
    """Return a tick of one event and arm from counts by group (r, groups)."""
    tick = no_tick(len(trials))
    place = EVENTS.index(event)
    tick.requests[:, arm] = trials.sum(-1)
    tick.trials[:, arm, place], tick.bad[:, arm, place] = trials.sum(-1), bad.sum(-1)
    tick.group_trials[:, arm, place], tick.group_bad[:, arm, place] = trials, bad
    return tick


def even(event: Event, trials: float, bad: float, arm: int = 1) -> Tick:
    """Return a tick in which every group has its part."""
    return events(event, np.full((1, GROUPS), trials / GROUPS), np.full((1, GROUPS), bad / GROUPS), arm)


def pairs(level: int, count: float) -> Tick:
    tick = no_tick()
    place = VALUES.index(Value.RECALL)
    tick.values[0, place, level] = count
    tick.group_trials[0, 1, len(EVENTS) + place] = count / GROUPS
    tick.group_bad[0, 1, len(EVENTS) + place] = count / GROUPS * LEVEL_VALUES[level]
    return tick


def new_users(control: float, candidate: float) -> Tick:
    tick = no_tick()
    tick.new_users[0] = control, candidate
    return tick


def take(judge: Judge, state: State, tick: Tick, times: int = 1) -> None:
    for _ in range(times):
        judge.step(state, tick, EVEN)


def by_one_user(trials: float, bad: float) -> Tick:
    """Return a tick in which 64 groups have requests, and one user all that went badly."""
    all_of, all_bad = np.full((1, GROUPS), trials / GROUPS), np.zeros((1, GROUPS))
    all_bad[0, 9] = bad
    all_of[0, 9] += bad
    return events(Event.ERROR, all_of, all_bad)


# Breaches

FAULTS = [
    pytest.param(ERRORS, even(Event.ERROR, 64, 16), even(Event.ERROR, 64, 2), id="share"),
    pytest.param(
        MISSES,
        even(Event.MISS, 64, 32) + even(Event.MISS, 64, 8, arm=0),
        even(Event.MISS, 64, 8) + even(Event.MISS, 64, 8, arm=0),
        id="between",
    ),
    pytest.param(RECALL, pairs(20, 8), pairs(32, 8), id="mean"),
]


@pytest.mark.parametrize(("guardrail", "fault", "healthy"), FAULTS)
def test_a_fault_breaches_its_own_guardrail_and_stays_a_breach(
    guardrail: Guardrail, fault: Tick, healthy: Tick
) -> None:
    judge = judge_of()
    state, place = judge.begin(), ALL.index(guardrail)
    take(judge, state, fault, 30)
    breached = [each.name for each, is_breached in zip(ALL, state.has_breached[0], strict=True) if is_breached]
    assert breached == [guardrail.name]
    assert judge.evidence(state)[0, place] >= judge.threshold
    take(judge, state, healthy, 1000)
    assert judge.evidence(state)[0, place] < judge.threshold
    assert state.has_breached[0, place]


@pytest.mark.parametrize(("guardrail", "fault", "healthy"), FAULTS)
def test_a_healthy_candidate_breaches_nothing(guardrail: Guardrail, fault: Tick, healthy: Tick) -> None:
    del fault
    judge = judge_of()
    state = judge.begin()
    take(judge, state, healthy, 300)
    assert not state.has_breached.any()
    assert judge.evidence(state)[0, ALL.index(guardrail)] < np.log(300)


def test_a_fault_is_found_as_fast_after_a_healthy_hour_as_at_the_start() -> None:
    fault, healthy = even(Event.ERROR, 64, 16), even(Event.ERROR, 64, 2)
    needed = []
    for before in (0, 3600):
        judge, state = judge_of(ERRORS), judge_of(ERRORS).begin()
        take(judge, state, healthy, before)
        for number in range(1, 60):
            take(judge, state, fault)
            if state.has_breached.any():
                needed.append(number)
                break
    assert needed[1] <= needed[0] <= 6


def test_one_users_trouble_is_no_breach_and_the_same_of_many_is() -> None:
    judge = judge_of(ERRORS)
    one, many = judge.begin(), judge.begin()
    take(judge, one, even(Event.ERROR, 64, 0), 10)
    take(judge, many, even(Event.ERROR, 64, 0), 10)
    take(judge, one, by_one_user(64, 32), 20)
    take(judge, many, even(Event.ERROR, 96, 32), 20)
    assert judge.evidence(one)[0, 0] >= judge.threshold
    assert not one.has_breached.any()
    assert many.has_breached.all()


def test_a_breach_needs_no_more_users_than_there_are() -> None:
    trials, bad = np.zeros((1, GROUPS)), np.zeros((1, GROUPS))
    trials[0, :2], bad[0, 0] = 10, 10
    judge, state = judge_of(ERRORS), judge_of(ERRORS).begin()
    take(judge, state, events(Event.ERROR, trials, bad), 30)
    assert state.has_breached.all()


@pytest.mark.parametrize("ticks_of_the_stage", [1, 30, 90])
def test_one_users_trouble_is_no_breach_when_another_stage_is_entered(ticks_of_the_stage: int) -> None:
    """The evidence goes on into the next stage, and so must the doubt about whom it comes from."""
    judge, state = judge_of(ERRORS), judge_of(ERRORS).begin()
    take(judge, state, even(Event.ERROR, 64, 0), 10)
    take(judge, state, by_one_user(64, 32), 20)
    assert not state.has_breached.any()
    judge.enter_stage(state)
    take(judge, state, even(Event.ERROR, 64, 0), ticks_of_the_stage)
    assert not state.has_breached.any()


def test_a_value_is_no_matter_of_how_many_users() -> None:
    tick = no_tick()
    tick.values[0, VALUES.index(Value.RECALL), 20] = 8
    judge, state = judge_of(RECALL), judge_of(RECALL).begin()
    take(judge, state, tick, 30)
    assert state.has_breached.all()


def test_false_alarms_of_all_guardrails_together_stay_below_alpha_at_the_boundary() -> None:
    """300 runs at every limit at once, for the whole horizon; alpha is 0.3."""
    rng = np.random.default_rng(11)
    runs, horizon = 300, 200
    judge = Judge(ALL, horizon, 0.3)
    state = judge.begin(runs)
    split = np.full(runs, 0.5)
    level = np.array([16, 30, 46])  # a third each: 0.479 on average, a little below the floor; so tilted up to it
    chances = np.array([0.33, 0.33, 0.34])
    assert chances @ LEVEL_VALUES[level] >= RECALL.floor
    for _ in range(horizon):
        tick = no_tick(runs)
        for event, share in ((Event.ERROR, 0.05), (Event.MISS, 0.3)):
            trials = rng.poisson(0.1, (runs, ARMS, GROUPS))
            bad = rng.binomial(trials, share)
            place = EVENTS.index(event)
            tick.group_trials[:, :, place], tick.group_bad[:, :, place] = trials, bad
            tick.trials[:, :, place], tick.bad[:, :, place] = trials.sum(-1), bad.sum(-1)
        counts = rng.multinomial(3, chances, runs)
        tick.values[:, VALUES.index(Value.RECALL), level] = counts
        judge.step(state, tick, split)
    assert state.has_breached.any(-1).mean() <= 0.3


# Which guardrails count


def test_a_guardrail_that_is_off_is_not_judged() -> None:
    guardrails = with_overrides(default_guardrails(0.4), (GuardrailOverride(name="cost", is_on=False),))
    judge = judge_of(*guardrails)
    assert [each.name for each in judge.guardrails] == [each.name for each in guardrails if each.name != "cost"]
    assert judge.evidence(judge.begin()).shape == (1, len(guardrails) - 1)


def test_one_that_is_only_reported_is_judged_but_not_enforced_and_takes_no_part_of_alpha() -> None:
    guardrails = with_overrides(ALL, ())
    reported = Guardrail(name="e", words="", signal=Event.ERROR, test=Kind.SHARE, limit=0.05, report_only=True)
    judge = judge_of(reported, *guardrails[1:])
    assert judge.enforced.tolist() == [False, True, True]
    assert judge.threshold == pytest.approx(np.log(HORIZON * 2 / ALPHA))
    assert judge_of().threshold == pytest.approx(np.log(HORIZON * 3 / ALPHA))
    state = judge.begin()
    take(judge, state, even(Event.ERROR, 64, 32), 20)
    assert state.has_breached[0, 0]
    assert not (state.has_breached & judge.enforced).any()


def test_reports_alone_are_judged_as_one() -> None:
    reported = Guardrail(name="e", words="", signal=Event.ERROR, test=Kind.SHARE, limit=0.05, report_only=True)
    assert judge_of(reported).threshold == pytest.approx(np.log(HORIZON / ALPHA))


# Ticks, groups and runs


def random_tick(rng: np.random.Generator, runs: int = 1) -> Tick:
    tick = no_tick(runs)
    trials = rng.poisson(1.0, (runs, ARMS, STREAMS, GROUPS))
    tick.group_trials[:] = trials
    tick.group_bad[:] = rng.binomial(trials, 0.2)
    tick.trials[:] = tick.group_trials[:, :, : len(EVENTS)].sum(-1)
    tick.bad[:] = tick.group_bad[:, :, : len(EVENTS)].sum(-1)
    tick.values[:] = rng.poisson(0.1, (runs, len(VALUES), LEVELS))
    tick.new_users[:] = rng.poisson(1.0, (runs, ARMS))
    return tick


def part(tick: Tick, run: int) -> Tick:
    return Tick(**{name: getattr(tick, name)[run : run + 1] for name in Tick.__struct_fields__})


def test_many_runs_at_once_are_judged_as_each_alone() -> None:
    rng = np.random.default_rng(12)
    judge, runs = judge_of(), 3
    together, alone = judge.begin(runs), [judge.begin() for _ in range(runs)]
    for _ in range(130):
        tick = random_tick(rng, runs)
        judge.step(together, tick, np.full(runs, 0.5))
        for run, state in enumerate(alone):
            judge.step(state, part(tick, run), EVEN)
    for run, state in enumerate(alone):
        assert judge.evidence(together)[run] == pytest.approx(judge.evidence(state)[0])
        assert together.deff[run] == pytest.approx(state.deff[0])
        assert np.array_equal(together.has_breached[run], state.has_breached[0])
        assert judge.bounds(together).upper[run] == pytest.approx(judge.bounds(state).upper[0])


def test_it_does_not_matter_which_group_is_which() -> None:
    rng = np.random.default_rng(13)
    order = rng.permutation(GROUPS)
    judge = judge_of()
    one, other = judge.begin(), judge.begin()
    for _ in range(130):
        tick = random_tick(rng)
        turned = tick + no_tick()
        turned.group_trials[:] = tick.group_trials[..., order]
        turned.group_bad[:] = tick.group_bad[..., order]
        take(judge, one, tick)
        take(judge, other, turned)
    assert judge.evidence(one) == pytest.approx(judge.evidence(other))
    assert np.array_equal(one.has_breached, other.has_breached)


def test_a_bad_event_more_never_lowers_the_evidence() -> None:
    judge = judge_of(ERRORS, MISSES)
    for event, place in ((Event.ERROR, 0), (Event.MISS, 1)):
        found = []
        for bad in range(20):
            state = judge.begin()
            take(judge, state, even(event, 64, bad) + even(event, 64, 5, arm=0))
            found.append(judge.evidence(state)[0, place])
        assert found == sorted(found)


def test_the_detectors_rest_on_nothing_at_first() -> None:
    judge = judge_of()
    state = judge.begin(2)
    assert judge.evidence(state) == pytest.approx(NOTHING)
    assert not state.has_breached.any()
    take(judge, state, no_tick(2), 5)
    assert judge.evidence(state) == pytest.approx(NOTHING)  # time without requests is no evidence


# Users who are alike


def alike(share: float = 0.25) -> Tick:
    """Return a second of users who each have errors always or never: a quarter of the groups."""
    bad = np.zeros((1, GROUPS))
    bad[0, : int(share * GROUPS)] = 2
    return events(Event.ERROR, np.full((1, GROUPS), 2.0), bad)


def test_evidence_of_users_who_are_alike_weighs_less_from_the_next_minute_on() -> None:
    judge = judge_of(ERRORS)
    state = judge.begin()
    take(judge, state, alike(), 59)
    assert (state.deff == 1).all()
    before = judge.evidence(state)[0, 0]
    take(judge, state, alike())
    assert (state.deff > 1).all()
    assert 0 < judge.evidence(state)[0, 0] < before


def test_what_comes_next_weighs_by_the_effect_that_was_known_before_it() -> None:
    judge = judge_of(ERRORS)
    plain, doubted = judge.begin(), judge.begin()
    doubted.deff[:] = 4
    take(judge, plain, even(Event.ERROR, 64, 16))
    take(judge, doubted, even(Event.ERROR, 64, 16))
    assert doubted.log_r == pytest.approx(plain.log_r / 4)


def test_evidence_for_the_candidate_is_not_made_less_by_a_larger_effect() -> None:
    judge = judge_of(ERRORS)
    state = judge.begin()
    take(judge, state, alike(1 / 64), 60)
    against = state.log_r < 0
    assert against.any()
    one = judge.begin()
    one.log_r[:] = -3
    judge._weigh(one, np.full_like(one.deff, 7.0))
    assert (one.log_r == -3).all()
    one.log_r[:] = 14
    judge._weigh(one, np.full_like(one.deff, 14.0))
    assert (one.log_r == 7).all()
    judge._weigh(one, np.ones_like(one.deff))
    assert (one.log_r == 7).all()  # what was doubted once stays doubted


def test_a_bet_that_decides_within_a_minute_is_weighed_by_the_minute_and_a_slow_one_by_the_stage() -> None:
    for per_tick, expected in ((5000.0, [2, 2]), (50.0, [2, 3]), (0.1, [3, 9]), (0.001, [9, 9])):
        judge = judge_of(ERRORS)
        state = judge.begin()
        state.spread.effect[:, 1, EVENTS.index(Event.ERROR)] = [2, 3, 5, 9]
        state.rate[:] = per_tick
        weights = judge._weights(state)[0]
        assert [weights[-1], weights[0]] == expected
        assert (np.diff(weights) <= 0).all()


@pytest.mark.parametrize(("candidate", "control", "expected"), [(1.0, 1.0, 3.0), (3.0, 1.0, 4.5), (1.0, 0.0, 6.0)])
def test_between_arms_each_arm_brings_its_effect_in_the_others_share(
    candidate: float, control: float, expected: float
) -> None:
    """The variance of k (1 - rho) - (K - k) rho: with effects of 0 (never below 1 in life) and 6, 6 times rho."""
    judge, place = judge_of(MISSES), EVENTS.index(Event.MISS)
    state = judge.begin()
    state.stage.trials[0, :, place] = control, candidate
    state.spread.effect[0, 0, place], state.spread.effect[0, 1, place] = 6, 0
    assert judge.effect(0, state)[0] == pytest.approx(np.full(4, expected))


# Stages


def test_another_stage_forgets_sums_and_users_and_keeps_the_detectors() -> None:
    rng = np.random.default_rng(14)
    judge = judge_of()
    state = judge.begin(2)
    for _ in range(60):
        judge.step(state, random_tick(rng, 2), np.array([0.5, 0.5]))
    log_r, breached = state.log_r.copy(), state.has_breached.copy()
    judge.enter_stage(state, np.array([True, False]))
    for name in Tick.__struct_fields__:
        assert not getattr(state.stage, name)[0].any()
    assert state.stage.trials[1].all()
    assert (state.split_log_r[0] == NOTHING).all()
    assert (state.split_log_r[1] > NOTHING).all()
    assert (state.spread.effect[0] == 1).all()
    assert (state.spread.effect[1] > 1).any()
    assert np.array_equal(state.log_r, log_r)
    assert np.array_equal(state.has_breached, breached)
    judge.enter_stage(state)
    assert not state.stage.trials.any()


def test_a_fault_that_began_before_a_stage_is_found_with_its_help() -> None:
    judge = judge_of(ERRORS)
    fresh, entered = judge.begin(), judge.begin()
    fault = even(Event.ERROR, 64, 16)
    take(judge, entered, fault)
    judge.enter_stage(entered)
    take(judge, fresh, fault)
    take(judge, entered, fault)
    assert judge.evidence(entered)[0, 0] > judge.evidence(fresh)[0, 0]


# Passing


def test_a_share_passes_only_when_its_bound_is_within_the_limit() -> None:
    judge = judge_of(ERRORS)
    seen = []
    for ticks in (1, 4, 40):
        state = judge.begin()
        take(judge, state, even(Event.ERROR, 64, 1), ticks)
        found = judge.bounds(state)
        lower, upper = share_bounds(np.array([1.0 * ticks]), np.array([64.0 * ticks]), BOUND_ALPHA)
        assert found.estimate[0, 0] == pytest.approx(1 / 64)
        assert (found.trials[0, 0], found.bad[0, 0]) == (64 * ticks, ticks)
        assert [found.lower[0, 0], found.upper[0, 0]] == pytest.approx([lower[0], upper[0]])
        assert found.is_passed[0, 0] == (upper[0] <= 0.05)
        seen.append(bool(found.is_passed[0, 0]))
    assert seen == [False, False, True]


def test_a_mean_passes_only_when_its_bound_is_above_the_floor() -> None:
    judge = judge_of(RECALL)
    seen = []
    for count in (10.0, 4000.0):
        state = judge.begin()
        take(judge, state, pairs(30, count) + pairs(34, count))
        found = judge.bounds(state)
        assert found.harm_limit[0, 0] == pytest.approx(0.48)
        assert found.estimate[0, 0] == pytest.approx(0.5)
        assert found.trials[0, 0] == 2 * count
        assert found.bad[0, 0] == pytest.approx(count)
        seen.append(bool(found.is_passed[0, 0]))
        assert found.is_passed[0, 0] == (found.lower[0, 0] >= 0.48)
    assert seen == [False, True]


@pytest.mark.parametrize("loss", [0.021, 0.03, 0.1])
def test_a_candidate_that_loses_more_than_the_margin_in_every_pair_never_passes(loss: float) -> None:
    judge = judge_of(RECALL)
    state = judge.begin()
    levels, counts = np.unique(paired_levels(np.full(6400, -loss), (np.arange(6400) + 0.5) / 6400), return_counts=True)
    for level, count in zip(levels.tolist(), counts.tolist(), strict=True):
        take(judge, state, pairs(level, 200.0 * count))
    assert not judge.bounds(state).is_passed[0, 0]


def test_between_arms_it_passes_when_it_is_surely_no_more_than_the_margin_above_control() -> None:
    judge = judge_of(MISSES)
    seen = []
    for trials, bad in ((100.0, 20.0), (100_000.0, 20_000.0), (100_000.0, 23_000.0)):
        state = judge.begin()
        take(judge, state, even(Event.MISS, trials, bad) + even(Event.MISS, trials, trials / 5, arm=0))
        found = judge.bounds(state)
        least, _ = share_bounds(np.array([trials / 5]), np.array([trials]), BOUND_ALPHA / 2)
        assert found.harm_limit[0, 0] == pytest.approx(least[0] + 0.02)
        seen.append(bool(found.is_passed[0, 0]))
    assert seen == [False, True, False]


def test_nothing_passes_without_traffic() -> None:
    judge = judge_of(*default_guardrails(0.4))
    assert not judge.bounds(judge.begin(2)).is_passed.any()


def test_with_nobody_left_in_control_there_is_nothing_to_be_worse_than() -> None:
    judge = judge_of(MISSES)
    state = judge.begin()
    take(judge, state, even(Event.MISS, 100, 90))
    assert judge.bounds(state).is_passed[0, 0]


def test_bounds_widen_with_a_smaller_alpha_and_with_users_who_are_alike() -> None:
    judge = judge_of(ERRORS)
    state = judge.begin()
    take(judge, state, even(Event.ERROR, 64, 1), 40)
    plain, surer = judge.bounds(state), judge.bounds(state, 0.001)
    assert surer.upper[0, 0] > plain.upper[0, 0]
    assert surer.lower[0, 0] < plain.lower[0, 0]
    state.spread.effect[:] = 5
    doubted = judge.bounds(state)
    assert doubted.upper[0, 0] > plain.upper[0, 0]
    assert doubted.estimate[0, 0] == plain.estimate[0, 0]


# The split


@pytest.mark.parametrize(
    ("control", "candidate", "share", "is_wrong"),
    [(19, 1, 0.05, False), (10, 10, 0.5, False), (18, 2, 0.05, True), (199, 1, 0.05, True), (0, 20, 0.5, True)],
    ids=["5 %", "50 %", "twice as many", "too few", "nobody in control"],
)
def test_a_wrong_split_is_told(control: float, candidate: float, share: float, is_wrong: bool) -> None:  # noqa: FBT001 - drawn
    judge, state = judge_of(), judge_of().begin(1)
    for _ in range(100):
        judge.step(state, new_users(control, candidate), np.array([share]))
    assert judge.is_split_wrong(state).tolist() == [is_wrong]


def test_a_right_split_is_called_wrong_no_more_often_than_alpha() -> None:
    rng = np.random.default_rng(15)
    runs, horizon = 500, 150
    judge = Judge((ERRORS,), horizon, 0.3)
    state = judge.begin(runs)
    wrong = np.zeros(runs, dtype=bool)
    for _ in range(horizon):
        tick = no_tick(runs)
        tick.new_users[:, 1] = rng.binomial(20, 0.25, runs)
        tick.new_users[:, 0] = 20 - tick.new_users[:, 1]
        judge.step(state, tick, np.full(runs, 0.25))
        wrong |= judge.is_split_wrong(state)
    assert wrong.mean() <= 0.3


# What is no fault of the candidate, or of a few only

RELATIVE = Guardrail(name="p95_relative", words="", signal=Event.SLOW_RELATIVE, test=Kind.SHARE, limit=1.25)


@pytest.mark.parametrize(("control_bad", "is_breached"), [(0.0, True), (0.2, True), (7.0, False)])
def test_what_slows_both_arms_at_once_is_not_blamed_on_the_candidate(control_bad: float, is_breached: bool) -> None:  # noqa: FBT001 - a parameter
    judge = judge_of(RELATIVE)
    state = judge.begin()
    well = even(Event.SLOW_RELATIVE, 10, 0.2) + even(Event.SLOW_RELATIVE, 10, 0.2, arm=0)
    take(judge, state, well, 600)
    assert not state.has_breached.any()
    take(judge, state, even(Event.SLOW_RELATIVE, 10, 7) + even(Event.SLOW_RELATIVE, 10, control_bad, arm=0), 60)
    assert (judge.evidence(state) >= judge.threshold).all()
    assert state.has_breached.all() == is_breached


def test_evidence_is_told_since_the_fault_began() -> None:
    judge = judge_of(ERRORS)
    state = judge.begin()
    take(judge, state, even(Event.ERROR, 10, 0), 3600)
    take(judge, state, even(Event.ERROR, 10, 10), 5)
    bet = judge.leading_bet(state)[0, 0]
    assert (state.onset.ticks[0, bet], state.onset.bad[0, 1, bet]) == (5, 50)
    assert state.onset.trials[0, 1, bet] == 50


def test_a_few_users_who_fare_badly_are_named_and_do_not_roll_back() -> None:
    judge = judge_of(ERRORS)
    state = judge.begin()
    trials = np.full((1, GROUPS), 1.0)
    bad = np.zeros((1, GROUPS))
    trials[0, :2], bad[0, :2] = 4.0, 4.0
    take(judge, state, events(Event.ERROR, trials, bad), 600)
    assert not state.has_breached.any()
    assert judge.few_users(state).all()
    take(judge, state, even(Event.ERROR, 64, 0), 6000)
    assert not judge.few_users(state).any()


def test_the_last_of_control_on_their_way_do_not_keep_the_whole_share_from_being_passed() -> None:
    judge = judge_of(MISSES)
    state = judge.begin()
    take(judge, state, even(Event.MISS, 5, 0, arm=0), 3)
    take(judge, state, even(Event.MISS, 50, 0), 100)
    assert judge.bounds(state).is_passed.all()
