"""The ramp: rules one by one, and a machine that tries every order of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from msgspec.structs import replace

from flags.bucketing import bucket
from flags.ramp import (
    DEFAULT_PLAN,
    HOUR,
    Phase,
    Ramp,
    Refused,
    Stage,
    Verdict,
    adopt,
    advance,
    begun,
    check_plan,
    cool_down_ends_at,
    hold,
    move,
    rearm,
    replan,
    retire,
    roll_back,
    step,
)

if TYPE_CHECKING:
    from collections.abc import Callable

COOL = 3600.0


def ramp(**fields: Any) -> Ramp:
    return Ramp(**{"rollout_id": "r1", "group_id": "g", **fields})


def at_stage(stage: int, now: float = 0.0) -> Ramp:
    return move(ramp(), DEFAULT_PLAN[stage].share_percent, now)


def judged(state: Ramp, verdict: Verdict, now: float, *, auto_advance: bool = False) -> Ramp:
    return step(state, verdict, now, auto_advance=auto_advance, rollback_id="rb", reason="worse")


def gone(state: Ramp, now: float = 1.0) -> Ramp:
    return roll_back(state, "rb1", now, actor="ada", reason="worse")


@pytest.mark.parametrize("share", [5, 25, 50, 100])
def test_a_stage_of_the_plan_is_entered_with_its_own_bake_time(share: int) -> None:
    state = move(ramp(), share, 7.0)
    assert state.stage is not None
    assert (state.share_percent, state.plan[state.stage].share_percent, state.entered_at) == (share, share, 7.0)
    assert state.baked_seconds_left(7.0) == state.plan[state.stage].bake_seconds


@pytest.mark.parametrize("share", [-1, 101])
def test_a_share_out_of_bounds_is_refused(share: int) -> None:
    with pytest.raises(Refused, match="between 0 and 100"):
        move(ramp(), share, 0.0, force=True)


def test_a_share_that_is_no_stage_needs_force() -> None:
    with pytest.raises(Refused, match="no stage of the plan"):
        move(ramp(), 10, 0.0)
    forced = move(ramp(), 10, 0.0, force=True)
    assert (forced.share_percent, forced.stage) == (10, None)


def test_going_down_to_nobody_is_always_allowed() -> None:
    assert move(at_stage(2), 0, 5.0).share_percent == 0


def test_the_share_it_has_changes_nothing() -> None:
    state = at_stage(1)
    assert move(state, 25, 9.0) is state


def test_advance_waits_for_the_bake_time_unless_forced() -> None:
    state = at_stage(0)
    with pytest.raises(Refused, match="bakes for another 1 h"):
        advance(state, 23 * HOUR)
    assert advance(judged(state, Verdict.ADVANCE, 24 * HOUR), 24 * HOUR).share_percent == 25
    assert advance(state, 0.0, force=True).share_percent == 25


def test_advance_waits_for_proof_unless_forced() -> None:
    state = judged(at_stage(0), Verdict.HOLD, 24 * HOUR)
    with pytest.raises(Refused, match="not proved"):
        advance(state, 24 * HOUR)
    assert advance(state, 24 * HOUR, force=True).share_percent == 25


def test_advance_from_an_adopted_share_goes_to_the_next_stage_above() -> None:
    assert advance(adopt(ramp(), 30, 0.0), 1.0).share_percent == 50


def test_there_is_nothing_after_the_last_stage() -> None:
    with pytest.raises(Refused, match="last stage"):
        advance(at_stage(3), 1e9)


def test_a_held_ramp_goes_on_by_an_operators_word_only() -> None:
    held = hold(at_stage(0))
    assert held.phase is Phase.HELD
    assert judged(held, Verdict.ADVANCE, 1e9, auto_advance=True) is held
    assert move(held, 5, 2.0).phase is Phase.RAMPING
    with pytest.raises(Refused, match="held"):
        advance(held, 30 * HOUR)
    assert advance(held, 30 * HOUR, force=True).share_percent == 25


@pytest.mark.parametrize(
    "state",
    [
        ramp(),
        at_stage(0),
        hold(at_stage(1)),
        ramp(phase=Phase.PROMOTED, share_percent=100, stage=3),
        ramp(phase=Phase.RETIRED),
    ],
    ids=["dark", "ramping", "held", "promoted", "retired"],
)
def test_rollback_is_legal_in_every_phase_and_keeps_why(state: Ramp) -> None:
    for rolled in (gone(state), judged(state, Verdict.ROLLBACK, 1.0)):
        assert (rolled.phase, rolled.share_percent, rolled.stage) == (Phase.ROLLED_BACK, 0, None)
        assert rolled.rollback is not None
        assert rolled.rollback.reason == "worse"
        assert rolled.rollback.from_share_percent == state.share_percent


def test_a_second_rollback_changes_nothing() -> None:
    rolled = gone(at_stage(0))
    assert gone(rolled, 99.0) is rolled
    assert judged(rolled, Verdict.ROLLBACK, 99.0) is rolled


def test_rollback_waits_for_no_bake_time() -> None:
    assert judged(at_stage(0), Verdict.ROLLBACK, 0.001).is_rolled_back


def test_nothing_but_rearm_ends_a_rollback() -> None:
    rolled = gone(at_stage(0))
    assert adopt(rolled, 25, 9.0) is rolled
    assert judged(rolled, Verdict.ADVANCE, 1e9, auto_advance=True) is rolled
    forbidden: list[Callable[[], Ramp]] = [
        lambda: move(rolled, 5, 9.0, force=True),
        lambda: advance(rolled, 9.0, force=True),
        lambda: hold(rolled),
    ]
    for ask in forbidden:
        with pytest.raises(Refused, match="rearm"):
            ask()
    with pytest.raises(Refused):
        retire(rolled, 9.0, force=True)


def test_the_cool_down_doubles_with_each_rollback() -> None:
    state = at_stage(0)
    for n in range(4):
        state = gone(state, 100.0)
        assert cool_down_ends_at(state, COOL) == 100.0 + COOL * 2**n
        with pytest.raises(Refused, match="cools down"):
            rearm(state, 100.0 + COOL * 2**n - 1, cool_down_seconds=COOL)
        state = rearm(state, 100.0 + COOL * 2**n, cool_down_seconds=COOL)


def test_rearming_begins_at_nobody_with_the_same_users_or_fresh_ones() -> None:
    rolled = gone(at_stage(2))
    same = rearm(rolled, 1e9, cool_down_seconds=COOL)
    assert (same.phase, same.share_percent, same.group_id) == (Phase.RAMPING, 0, "g")
    assert rearm(rolled, 1e9, cool_down_seconds=COOL, group_id="g2").group_id == "g2"
    assert rearm(rolled, 2.0, cool_down_seconds=COOL, force=True).phase is Phase.RAMPING


def test_there_is_nothing_to_rearm_but_a_rollback() -> None:
    with pytest.raises(Refused, match="nothing to re-arm"):
        rearm(at_stage(0), 0.0, cool_down_seconds=COOL)


def test_a_passed_stage_waits_for_an_operator_unless_it_advances_by_itself() -> None:
    state = at_stage(0)
    assert judged(state, Verdict.ADVANCE, 23 * HOUR) is state
    ready = judged(state, Verdict.ADVANCE, 24 * HOUR)
    assert (ready.is_ready, ready.share_percent) == (True, 5)
    assert judged(ready, Verdict.ADVANCE, 25 * HOUR) is ready
    assert judged(ready, Verdict.HOLD, 25 * HOUR).is_ready is False
    assert judged(state, Verdict.ADVANCE, 24 * HOUR, auto_advance=True).share_percent == 25


def test_the_last_stage_is_promoted_when_it_has_baked() -> None:
    state = at_stage(3)
    assert judged(state, Verdict.ADVANCE, 13 * 24 * HOUR) is state
    assert judged(state, Verdict.ADVANCE, 14 * 24 * HOUR).phase is Phase.PROMOTED


def test_a_share_set_elsewhere_is_adopted_as_a_stage_or_as_such() -> None:
    assert adopt(ramp(), 25, 3.0).stage == 1
    assert adopt(ramp(), 33, 3.0).stage is None
    state = at_stage(1)
    assert adopt(state, 25, 9.0) is state


def test_retiring_takes_the_whole_time_at_a_hundred() -> None:
    with pytest.raises(Refused, match="not 100 %"):
        retire(at_stage(2), 1e9)
    with pytest.raises(Refused, match="bakes for another 1 d"):
        retire(at_stage(3), 13 * 24 * HOUR)
    promoted = judged(at_stage(3), Verdict.ADVANCE, 14 * 24 * HOUR)
    retired = retire(promoted, 15 * 24 * HOUR)
    assert retired.phase is Phase.RETIRED
    assert retire(retired, 16 * 24 * HOUR) is retired
    assert retire(at_stage(3), 0.0, force=True).phase is Phase.RETIRED
    with pytest.raises(Refused, match="only `rollback`"):
        move(retired, 5, 1.0)


@pytest.mark.parametrize(
    ("shares", "words"),
    [((), "no stage"), ((25, 5, 100), "rise"), ((5, 5, 100), "rise"), ((5, 50), "100 %"), ((5, 100), None)],
)
def test_a_plan_rises_to_a_hundred(shares: tuple[int, ...], words: str | None) -> None:
    found = check_plan(tuple(Stage(share, 1.0) for share in shares))
    assert (found is None) if words is None else (found is not None and words in found)


class RampMachine(RuleBasedStateMachine):
    """Tries operators, verdicts, the flag tool and time in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.state = ramp()
        self.now = 0.0
        self.rollbacks = 0

    def take(self, make: Any) -> None:
        before = self.state
        try:
            self.state = make()
        except Refused:
            self.state = before
        if self.state.is_rolled_back and not before.is_rolled_back:
            self.rollbacks += 1

    @rule(seconds=st.floats(0, 20 * 24 * HOUR))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(share=st.integers(-5, 105), force=st.booleans())
    def operator_moves(self, share: int, force: bool) -> None:  # noqa: FBT001 - drawn
        self.take(lambda: move(self.state, share, self.now, force=force))

    @rule(force=st.booleans())
    def operator_advances(self, force: bool) -> None:  # noqa: FBT001 - drawn
        before = self.state.share_percent
        self.take(lambda: advance(self.state, self.now, force=force))
        assert self.state.share_percent >= before

    @rule()
    def operator_holds(self) -> None:
        self.take(lambda: hold(self.state))

    @rule()
    def operator_rolls_back(self) -> None:
        self.take(lambda: gone(self.state, self.now))
        assert self.state.is_rolled_back

    @rule(force=st.booleans(), group=st.sampled_from([None, "fresh"]))
    def operator_rearms(self, force: bool, group: str | None) -> None:  # noqa: FBT001 - drawn
        self.take(lambda: rearm(self.state, self.now, cool_down_seconds=COOL, group_id=group, force=force))

    @rule(force=st.booleans())
    def operator_retires(self, force: bool) -> None:  # noqa: FBT001 - drawn
        self.take(lambda: retire(self.state, self.now, force=force))

    @rule(share=st.integers(0, 100))
    def flag_tool_is_used(self, share: int) -> None:
        was = self.state.is_rolled_back
        self.take(lambda: adopt(self.state, share, self.now))
        assert self.state.is_rolled_back is was

    @rule(verdict=st.sampled_from(Verdict), auto=st.booleans())
    def guard_judges(self, verdict: Verdict, auto: bool) -> None:  # noqa: FBT001 - drawn
        before = self.state
        self.take(lambda: judged(self.state, verdict, self.now, auto_advance=auto))
        if verdict is Verdict.ROLLBACK:
            assert self.state.is_rolled_back
        if self.state.share_percent > before.share_percent:
            assert auto
            assert not before.baked_seconds_left(self.now)
            assert before.phase is Phase.RAMPING

    @invariant()
    def it_makes_sense(self) -> None:
        state = self.state
        assert 0 <= state.share_percent <= 100
        if state.stage is not None:
            assert state.plan[state.stage].share_percent == state.share_percent
        if state.is_rolled_back:
            assert state.share_percent == 0
            assert state.rollback is not None
        if state.phase in {Phase.PROMOTED, Phase.RETIRED}:
            assert state.share_percent == 100
        assert state.rollbacks == self.rollbacks

    @invariant()
    def every_state_has_an_exit(self) -> None:
        assert gone(self.state, self.now).is_rolled_back
        if self.state.is_rolled_back:
            assert (
                rearm(self.state, self.now + 1e9 * 2.0**self.state.rollbacks, cool_down_seconds=COOL) is not self.state
            )


TestRampMachine = RampMachine.TestCase


def test_users_at_five_percent_are_still_in_at_every_later_stage() -> None:
    users = [f"user-{i}" for i in range(5000)]
    within = [{u for u in users if bucket("g", u) <= stage.share_percent} for stage in DEFAULT_PLAN]
    assert within[0] < within[1] < within[2] < within[3] == set(users)


def test_a_held_stage_goes_on_baking() -> None:
    held = hold(at_stage(0))
    assert held.baked_seconds_left(60.0) == at_stage(0).baked_seconds_left(60.0)
    assert move(held, held.share_percent, 60.0).entered_at == held.entered_at


def test_another_plan_keeps_the_share_and_finds_its_stage() -> None:
    plan = (Stage(1, 0.0), Stage(5, 60.0), Stage(100, 60.0))
    found = replan(at_stage(0), plan)
    assert (found.share_percent, found.stage, found.plan) == (5, 1, plan)
    assert replan(found, plan) is found


def test_another_hash_group_in_the_flag_is_adopted_and_bakes_anew() -> None:
    found = adopt(at_stage(0), 5, 70.0, group_id="others")
    assert (found.group_id, found.share_percent, found.entered_at) == ("others", 5, 70.0)


def test_a_stage_begins_when_the_flag_says_it_and_a_rollback_when_it_was_decided() -> None:
    assert begun(at_stage(0), 70.0).entered_at == 70.0
    rolled = roll_back(at_stage(0), "a", 50.0, actor="x", reason="")
    assert begun(rolled, 70.0).entered_at == 50.0


def test_the_cool_down_stops_doubling_after_ten_times() -> None:
    rolled = replace(roll_back(at_stage(0), "a", 0.0, actor="x", reason=""), rollbacks=5000)
    assert cool_down_ends_at(rolled, 60.0) == 60.0 * 1024
