"""Findings: the numbers of each guardrail, and how long it takes at today's traffic."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from msgspec.structs import replace

from alerts.findings import findings_of
from alerts.guardrails import EVENTS, VALUES, Event, Guardrail, Value, default_guardrails
from alerts.guardrails import Method as Kind
from alerts.judge import Judge

if TYPE_CHECKING:
    from alerts.judge_state import State

HORIZON = 86_400.0
ERRORS = Guardrail(name="errors", words="at most {share} fail", signal=Event.ERROR, test=Kind.SHARE, limit=0.05)
MISSES = Guardrail(name="misses_relative", words="", signal=Event.MISS, test=Kind.BETWEEN, limit=0.02)
RECALL = Guardrail(name="recall", words="", signal=Value.RECALL, test=Kind.MEAN, limit=0.02)
COST = Guardrail(name="cost", words="", signal=Value.COST, test=Kind.MEAN, limit=0.002)


def judge_of(*guardrails: Guardrail) -> Judge:
    return Judge(guardrails, HORIZON, 0.01)


def seen(judge: Judge, event: Event, trials: float, bad: float, *, control: tuple[float, float] = (0, 0)) -> State:
    """Return what is known after *trials*, *bad* of them; *control* is the same of the other arm."""
    state = judge.begin()
    place = EVENTS.index(event)
    state.stage.trials[0, :, place] = control[0], trials
    state.stage.bad[0, :, place] = control[1], bad
    return state


def valued(judge: Judge, value: Value, counts: dict[int, float]) -> State:
    state = judge.begin()
    for level, count in counts.items():
        state.stage.values[0, VALUES.index(value), level] = count
    return state


def test_there_is_one_finding_for_each_guardrail_in_its_order() -> None:
    guardrails = default_guardrails(0.4)
    judge = judge_of(*guardrails)
    found = findings_of(judge, judge.begin())
    assert [each.guardrail for each in found] == [each.name for each in guardrails]
    assert [each.words for each in found] == [each.in_words() for each in guardrails]
    assert [each.test for each in found] == [each.test for each in guardrails]


def test_nothing_is_known_before_anything_is_seen() -> None:
    judge = judge_of(*default_guardrails(0.4))
    for each in findings_of(judge, judge.begin()):
        assert (each.is_breached, each.is_passed, each.evidence, each.trials, each.bad) == (False, False, 0, 0, 0)
        assert (each.lower, each.upper, each.design_effect) == (0, 1, 1)
        assert (each.seconds_to_detect, each.seconds_to_pass) == (None, None)


def test_a_finding_has_the_numbers_of_the_judge() -> None:
    judge = judge_of(ERRORS, replace(ERRORS, name="too", report_only=True))
    state = seen(judge, Event.ERROR, 1000, 10)
    state.log_r[:] = 20.0
    state.has_breached[0] = True, False
    state.spread.effect[:] = [1, 2, 3, 4]
    one, other = findings_of(judge, state)
    bounds = judge.bounds(state)
    assert (one.is_breached, one.is_enforced, other.is_breached, other.is_enforced) == (True, True, False, False)
    assert one.evidence == pytest.approx(20)
    assert one.threshold == judge.threshold
    assert (one.trials, one.bad, one.estimate, one.limit) == (1000, 10, 0.01, 0.05)
    assert (one.lower, one.upper) == (bounds.lower[0, 0], bounds.upper[0, 0])
    assert one.design_effect == 4


def test_only_the_first_run_is_told() -> None:
    judge = judge_of(ERRORS)
    state = judge.begin(2)
    state.stage.trials[1] = 7
    state.has_breached[1] = True
    (found,) = findings_of(judge, state)
    assert (found.trials, found.is_breached) == (0, False)


@pytest.mark.parametrize("guardrail", [ERRORS, MISSES, RECALL, COST], ids=lambda each: str(each.name))
def test_twice_the_traffic_detects_in_half_the_time(guardrail: Guardrail) -> None:
    judge = judge_of(guardrail)
    found = []
    for rate in (10.0, 20.0):
        state = judge.begin()
        state.rate[:] = rate
        state.trial_rate[:] = rate
        seconds = findings_of(judge, state)[0].seconds_to_detect
        assert seconds is not None
        found.append(seconds)
    assert found[0] == pytest.approx(2 * found[1])


def test_a_share_that_doubles_is_found_within_the_time_that_is_told() -> None:
    """ln(86,400 * 1 / 0.01) + ln 7 nats, over 0.5 ln 2 + 0.5 ln(2/3) = 0.1438 a request, limit 0.25 to 0.5."""
    judge = judge_of(replace(ERRORS, limit=0.25))
    state = judge.begin()
    state.rate[:] = 2.0
    state.trial_rate[:] = 2.0
    expected = (np.log(8_640_000) + np.log(7)) / 0.14384103622589045 / 2
    assert findings_of(judge, state)[0].seconds_to_detect == pytest.approx(expected)


def test_a_limit_of_more_than_half_cannot_double_beyond_everything() -> None:
    judge = judge_of(replace(ERRORS, limit=0.8))
    state = judge.begin()
    state.rate[:] = 1.0
    state.trial_rate[:] = 1.0
    expected = (np.log(8_640_000) + np.log(7)) / np.log(1 / 0.8)
    assert findings_of(judge, state)[0].seconds_to_detect == pytest.approx(expected)


def test_the_time_to_detect_a_cost_does_not_depend_on_the_currency() -> None:
    found = []
    for limit in (0.002, 0.2, 20.0):
        judge = judge_of(replace(COST, limit=limit))
        state = judge.begin()
        state.rate[:] = 10.0
        state.trial_rate[:] = 10.0
        found.append(findings_of(judge, state)[0].seconds_to_detect)
    assert found[0] == found[1] == found[2]


def test_what_takes_longer_than_a_year_is_never() -> None:
    judge = judge_of(ERRORS)
    state = seen(judge, Event.ERROR, 10, 0)
    state.rate[:] = 1e-7
    state.trial_rate[:] = 1e-7
    (found,) = findings_of(judge, state)
    assert (found.seconds_to_detect, found.seconds_to_pass) == (None, None)


@pytest.mark.parametrize("bad", [50, 80])
def test_an_estimate_at_the_limit_or_beyond_never_passes(bad: float) -> None:
    judge = judge_of(ERRORS)
    state = seen(judge, Event.ERROR, 1000, bad)
    state.rate[:] = 10.0
    state.trial_rate[:] = 10.0
    assert findings_of(judge, state)[0].seconds_to_pass is None


def test_a_mean_at_the_floor_or_below_never_passes() -> None:
    judge = judge_of(RECALL)
    state = valued(judge, Value.RECALL, {30: 100})
    state.rate[:] = 10.0
    state.trial_rate[:] = 10.0
    assert findings_of(judge, state)[0].seconds_to_pass is None


def test_what_has_passed_takes_no_longer() -> None:
    judge = judge_of(ERRORS)
    state = seen(judge, Event.ERROR, 10_000, 50)  # and nothing of late: the rate is 0
    (found,) = findings_of(judge, state)
    assert found.is_passed
    assert found.seconds_to_pass == 0


def until_passed(judge: Judge, make: State, grow: float) -> float:
    """Return after how many times *grow* what was seen the guardrail passes, by trying."""
    times = 1.0
    while not judge.bounds(make).is_passed[0, 0]:
        for name in ("trials", "bad", "values"):
            getattr(make.stage, name)[:] *= grow
        times *= grow
        assert times < 1e6
    return times


@pytest.mark.parametrize("deff", [1.0, 3.0])
@pytest.mark.parametrize("rate", [1.0, 25.0])
def test_a_share_passes_about_when_it_was_told_it_would(deff: float, rate: float) -> None:
    judge = judge_of(ERRORS)
    state = seen(judge, Event.ERROR, 100, 2)
    state.spread.effect[:] = deff
    state.trial_rate[:] = rate
    told = findings_of(judge, state)[0].seconds_to_pass
    assert told is not None
    trials = 100 * until_passed(judge, state, 1.05)
    assert told == pytest.approx((trials - 100) / rate, rel=0.15)


def test_a_mean_passes_about_when_it_was_told_it_would() -> None:
    """Of a standard deviation of 0.1, which is the one that is taken."""
    judge = judge_of(RECALL)
    state = valued(judge, Value.RECALL, {26: 10.0, 38: 10.0})  # 0.5 give or take 0.094
    state.rate[:] = 4.0
    state.trial_rate[:] = 4.0
    told = findings_of(judge, state)[0].seconds_to_pass
    assert told is not None
    pairs = 20 * until_passed(judge, state, 1.15)
    assert told == pytest.approx((pairs - 20) / 4, rel=0.35)


def test_between_arms_the_time_to_pass_is_counted_in_requests_and_not_in_bad_ones() -> None:
    """10 requests a second in each arm, 2 % of them bad: the limit is where control's bound is by now."""
    judge = judge_of(MISSES)
    state = seen(judge, Event.MISS, 200, 4, control=(1_000_000, 20_000))
    state.rate[:] = 2 * 10 * 0.02  # as the judge measures it: bad events of both arms a second
    state.trial_rate[:] = 10
    told = findings_of(judge, state)[0].seconds_to_pass
    assert told is not None
    trials = 200.0
    while not judge.bounds(seen(judge, Event.MISS, trials, trials * 0.02, control=(1_000_000, 20_000))).is_passed[0, 0]:
        trials *= 1.05
    assert told == pytest.approx((trials - 200) / 10, rel=0.3)


def test_users_who_are_alike_take_longer_to_pass() -> None:
    judge = judge_of(ERRORS)
    found = []
    for deff in (1.0, 4.0):
        state = seen(judge, Event.ERROR, 100, 2)
        state.spread.effect[:] = deff
        state.rate[:] = 1.0
        state.trial_rate[:] = 1.0
        told = findings_of(judge, state)[0].seconds_to_pass
        assert told is not None
        found.append(told)
    assert found[1] > 3 * found[0]
