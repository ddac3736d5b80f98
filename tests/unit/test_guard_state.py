"""What the next leader gets: detectors and cursor as they were, through JSON; anything else begins afresh."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from alerts.guard_state import Saved, core_tick, pack_spread, restored, saved_of, unpack_spread
from alerts.guardrails import EVENTS, VALUES, Guardrail, GuardrailOverride, default_guardrails, with_overrides
from alerts.judge import Judge
from alerts.judging import Judging
from alerts.relative_limit import ControlLatency, Relative
from alerts.signals import ARMS, GROUPS, LEVELS, STREAMS, InvalidSignals, Signals, Tick, no_tick, tick_of

if TYPE_CHECKING:
    from alerts.judge_state import State

GUARDRAILS = default_guardrails(0.4)
EVEN = np.array([0.5])
ABOUT: dict[str, Any] = {"rollout": "r1:g:0", "share_percent": 25, "ticks": 130, "held_ticks": {"split": 3}, "users": 7}


def judge_of(guardrails: tuple[Guardrail, ...] = GUARDRAILS) -> Judge:
    return Judge(guardrails, 86_400.0, 0.01)


def some_tick(rng: np.random.Generator) -> Tick:
    tick = no_tick()
    trials = rng.poisson(1.0, (1, ARMS, STREAMS, GROUPS))
    tick.group_trials[:], tick.group_bad[:] = trials, rng.binomial(trials, 0.3)
    tick.trials[:] = tick.group_trials[:, :, : len(EVENTS)].sum(-1)
    tick.bad[:] = tick.group_bad[:, :, : len(EVENTS)].sum(-1)
    tick.requests[:] = tick.trials[:, :, 0]
    tick.values[:] = rng.poisson(0.1, (1, len(VALUES), LEVELS))
    tick.new_users[:] = 3, 1
    return tick


def lived(judge: Judge, ticks: int = 130) -> State:
    rng = np.random.default_rng(1)
    state = judge.begin()
    for _ in range(ticks):
        judge.step(state, some_tick(rng), EVEN)
    return state


def known_latency() -> ControlLatency:
    control = ControlLatency.none()
    control.add(np.arange(control.counts.size, dtype=float)[None], 1)
    return control


def through_json(saved: Saved) -> Saved:
    return msgspec.json.decode(msgspec.json.encode(saved), type=Saved)


def told(requests: int) -> Signals:
    signals = Signals(at=5.0)
    for arm in signals.arms:
        arm.requests = arm.trials[0] = arm.new_users = requests
        arm.bad[0] = requests // 2
        arm.group_trials[0][7], arm.group_bad[0][7] = requests, requests / 2
        arm.latency = {40: requests}
    signals.values[0] = {32: requests}
    return signals


def test_the_next_leader_goes_on_where_the_last_one_was() -> None:
    judge = judge_of()
    state, control = lived(judge), known_latency()
    saved = through_json(saved_of(state, judge, {"a": told(4)}, **ABOUT))
    packed = pack_spread(state, control)
    after, known = restored(saved, judge), ControlLatency.none()
    unpack_spread(packed, after, known)
    assert {name: getattr(saved, name) for name in ABOUT} == ABOUT
    rng_one, rng_other = np.random.default_rng(2), np.random.default_rng(2)
    for _ in range(70):
        judge.step(state, some_tick(rng_one), EVEN)
        judge.step(after, some_tick(rng_other), EVEN)
    assert judge.evidence(after) == pytest.approx(judge.evidence(state), rel=1e-4)
    assert after.deff == pytest.approx(state.deff, rel=1e-4)
    assert after.split_log_r == pytest.approx(state.split_log_r)
    assert np.array_equal(after.has_breached, state.has_breached)
    assert np.array_equal(after.stage.trials, state.stage.trials)
    assert judge.bounds(after).upper == pytest.approx(judge.bounds(state).upper, rel=1e-4)
    assert known.counts == pytest.approx(control.counts)


def test_what_is_saved_is_exactly_what_is_restored() -> None:
    judge = judge_of()
    state = lived(judge)
    state.has_breached[0, 2] = True
    after = restored(through_json(saved_of(state, judge, {}, **ABOUT)), judge)
    for name in ("log_r", "split_log_r", "deff", "rate", "has_breached"):
        assert np.array_equal(getattr(after, name), getattr(state, name)), name
    for name in ("requests", "trials", "bad", "values"):
        assert np.array_equal(getattr(after.stage, name), getattr(state.stage, name)), name


def test_a_state_of_before_the_first_tick_is_json_too() -> None:
    judge = judge_of()
    after = restored(through_json(saved_of(judge.begin(), judge, {}, **ABOUT)), judge)
    assert np.array_equal(after.log_r, judge.begin().log_r)


OTHERS = {
    "one is off": with_overrides(GUARDRAILS, (GuardrailOverride(name="cost", is_on=False),)),
    "another order": GUARDRAILS[::-1],
    "another name": (*GUARDRAILS[:-1], replace(GUARDRAILS[-1], name="dollars")),
    "another limit": with_overrides(GUARDRAILS, (GuardrailOverride(name="errors", limit=0.5),)),
    "another overlap expected": default_guardrails(0.4, expected_overlap=0.7),
}


@pytest.mark.parametrize("guardrails", OTHERS.values(), ids=OTHERS)
def test_a_guardrail_with_another_limit_begins_afresh_with_its_counts_and_no_other_does(
    guardrails: tuple[Guardrail, ...],
) -> None:
    """Evidence, and proof, of one limit is none of another one."""
    before, now = judge_of(), judge_of(guardrails)
    state = lived(before)
    state.has_breached[:] = True
    after = restored(through_json(saved_of(state, before, {}, **ABOUT)), now)
    changed = [place for place, each in enumerate(now.guardrails) if each not in before.guardrails]
    kept = [place for place, each in enumerate(now.guardrails) if each in before.guardrails]
    assert not after.has_breached[0, changed].any()
    assert after.has_breached[0, kept].all()
    assert now.evidence(after)[0, changed] == pytest.approx(now.evidence(now.begin())[0, changed])
    was = {each.name: float(before.evidence(state)[0, place]) for place, each in enumerate(before.guardrails)}
    assert now.evidence(after)[0, kept] == pytest.approx([was[now.guardrails[place].name] for place in kept])
    bounds = now.bounds(after)
    assert (bounds.trials[0, changed] == 0).all()
    assert (bounds.trials[0, kept] > 0).any()


def test_a_state_of_another_shape_is_refused() -> None:
    judge = judge_of()
    saved = saved_of(lived(judge), judge, {}, **ABOUT)
    short = {name: replace(each, log_r=each.log_r[:-2]) for name, each in saved.detectors.items()}
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        restored(replace(saved, detectors=short), judge)
    with pytest.raises(ValueError, match="is not"):
        restored(replace(saved, trials=[each[:-1] for each in saved.trials]), judge)


@pytest.mark.parametrize("text", ['{"rollout": "x"}', "{garbage", "[]"])
def test_a_state_that_cannot_be_read_begins_afresh_and_says_so(text: str) -> None:
    work = Judging(judge_of(), Relative(1.25), "7", text, None)
    assert work.unreadable
    assert work.to_save(None)[:2] == ["7", "8"]


def test_the_spread_comes_back_as_it_was() -> None:
    judge = judge_of()
    state, control = lived(judge, 75), known_latency()
    after, known = judge.begin(), ControlLatency.none()
    unpack_spread(pack_spread(state, control), after, known)
    assert after.spread.ticks[:, 0].tolist() == state.spread.ticks[:, 0].tolist() == [15, 60, 0, 60]
    for name in ("surplus", "expected", "levels", "effect"):
        assert getattr(after.spread, name) == pytest.approx(getattr(state.spread, name), rel=1e-6), name
    for scale, (trials, bad) in enumerate(zip(state.spread.trials, state.spread.bad, strict=True)):
        assert np.array_equal(after.spread.trials[scale], trials)
        assert np.array_equal(after.spread.bad[scale], bad)
    assert after.recent_bad == pytest.approx(state.recent_bad, rel=1e-6)
    assert known.counts == pytest.approx(control.counts)


def unchanged_by(text: str) -> None:
    judge = judge_of()
    state, control = lived(judge, 61), known_latency()
    before, latency = copy.deepcopy(state), control.counts.copy()
    unpack_spread(text, state, control)
    assert state.spread.ticks.tolist() == before.spread.ticks.tolist()
    for name in ("surplus", "expected", "levels", "effect"):
        assert np.array_equal(getattr(state.spread, name), getattr(before.spread, name))
    assert np.array_equal(state.spread.trials[0], before.spread.trials[0])
    assert np.array_equal(state.recent_bad, before.recent_bad)
    assert np.array_equal(control.counts, latency)


def garbled(how: str) -> str:
    judge = judge_of()
    text = pack_spread(lived(judge, 1), ControlLatency.none())
    about, _, packed = text.partition("|")
    other = pack_spread(judge.begin(2), ControlLatency.none(2))
    return {
        "empty": "",
        "bar": "|",
        "words": "not a state at all",
        "not ascii": f"{about}|é{packed}",
        "cut": text[: len(text) // 2],
        "no ticks": f"|{packed}",
        "ticks are words": f'["a"]|{packed}',
        "too few ticks": f"[1]|{packed}",
        "of two runs": other,
        "of nothing": f"{about}|",
    }[how]


@pytest.mark.parametrize(
    "how",
    [
        "empty",
        "bar",
        "words",
        "not ascii",
        "cut",
        "no ticks",
        "ticks are words",
        "too few ticks",
        "of two runs",
        "of nothing",
    ],
)
def test_a_garbled_spread_changes_nothing(how: str) -> None:
    unchanged_by(garbled(how))


@given(st.text(max_size=60))
def test_no_text_brings_down_the_guard(text: str) -> None:
    judge = judge_of()
    state, control = judge.begin(), ControlLatency.none()
    unpack_spread(text, state, control)
    assert state.spread.ticks[:, 0].tolist() == [0, 0, 0, 0]
    assert not control.counts.any()


def test_cursors_are_saved_without_groups_and_latencies() -> None:
    judge = judge_of()
    signals = told(6)
    saved = through_json(saved_of(judge.begin(), judge, {"a": signals}, **ABOUT))
    core = saved.cursors["a"]
    for arm, was in zip(core.arms, signals.arms, strict=True):
        assert (arm.requests, arm.trials, arm.bad, arm.new_users) == (was.requests, was.trials, was.bad, was.new_users)
        assert (arm.group_trials, arm.group_bad, arm.latency) == ([], [], {})
    assert (core.values, core.at) == (signals.values, signals.at)
    assert signals == told(6)


def test_after_a_failover_no_request_is_judged_twice_and_none_is_left_out() -> None:
    judge = judge_of()
    before, now = told(4), told(10)
    saved = through_json(saved_of(judge.begin(), judge, {"a": before}, **ABOUT))
    found, whole = tick_of(*core_tick(now, saved.cursors["a"])), tick_of(now, before)
    for name in ("requests", "trials", "bad", "values", "new_users"):
        assert np.array_equal(getattr(found, name), getattr(whole, name)), name
    assert not found.group_trials.any()
    assert not found.group_bad.any()


def test_a_cursor_that_was_never_saved_is_as_it_is() -> None:
    now, before = told(10), told(4)
    found = core_tick(now, before)
    assert found[0] is now
    assert found[1] is before


def test_sums_that_fell_over_a_failover_are_refused() -> None:
    judge = judge_of()
    saved = through_json(saved_of(judge.begin(), judge, {"a": told(10)}, **ABOUT))
    with pytest.raises(InvalidSignals, match="requests"):
        tick_of(*core_tick(told(4), saved.cursors["a"]))
