from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from flags.gate import GateState
from flags.latch import Latch
from flags.latched_gate import LatchedGate
from flags.pulse import Pulse
from flags.ramp import Phase, Ramp, Rollback, rearm, roll_back
from flags.record import By, RampRecord, Through, changed, with_rollback
from flags.rollout import Rollout
from flags.vocabulary import Arm, Assignment, FlagContext, Reason

if TYPE_CHECKING:
    from pathlib import Path

RECORD = RampRecord(ramp=Ramp(rollout_id="r", group_id="g", share_percent=5), version=3)
ROLLBACK = Rollback(rollback_id="abc", at=9.0, actor="ann", reason="bad", from_share_percent=5)
ROLLED = with_rollback(RECORD, ROLLBACK, 9.0)
REARMED = changed(
    ROLLED, rearm(ROLLED.ramp, 1e9, cool_down_seconds=0.0), By(actor="ann", through=Through.API, reason="fixed")
)


def following(record: RampRecord = RECORD) -> Latch:
    latch = Latch()
    assert latch.take(record)
    return latch


def test_a_latch_that_knows_nothing_is_open() -> None:
    assert not Latch().is_set


def test_a_decision_sets_it_at_once() -> None:
    latch = following()
    latch.decide(ROLLBACK)
    assert latch.is_set
    assert latch.undelivered is ROLLBACK


def test_a_decision_without_any_record_sets_it_too() -> None:
    latch = Latch()
    latch.decide(ROLLBACK)
    assert latch.is_set


def test_a_record_that_is_rolled_back_sets_it_and_one_that_is_rearmed_opens_it() -> None:
    latch = following()
    latch.take(ROLLED)
    assert latch.is_set
    latch.take(REARMED)
    assert not latch.is_set


def test_an_older_record_changes_nothing() -> None:
    latch = following(ROLLED)
    assert not latch.take(RECORD)
    assert latch.is_set


def test_a_newer_record_without_the_rollback_leaves_what_was_decided_here() -> None:
    latch = following()
    latch.decide(ROLLBACK)
    latch.take(replace(RECORD, version=9))
    assert latch.is_set


@pytest.mark.parametrize("newer", [ROLLED, REARMED], ids=["rolled back", "rolled back and re-armed since"])
def test_a_record_that_knows_of_a_rollback_since_delivers_what_was_decided_here(newer: RampRecord) -> None:
    latch = following()
    latch.decide(ROLLBACK)
    latch.take(newer)
    assert latch.undelivered is None


def test_the_first_decision_stays() -> None:
    latch = following()
    latch.decide(ROLLBACK)
    latch.decide(replace(ROLLBACK, rollback_id="xyz"))
    assert latch.undelivered is ROLLBACK


def test_a_restart_keeps_it_set(tmp_path: Path) -> None:
    Latch(tmp_path / "rollout.json").decide(ROLLBACK)
    assert Latch(tmp_path / "rollout.json").undelivered == ROLLBACK
    Latch(tmp_path / "rollout.json").take(ROLLED)
    again = Latch(tmp_path / "rollout.json")
    assert (again.is_set, again.undelivered, again.record) == (True, None, ROLLED)


@pytest.mark.parametrize("content", [b"", b"{", b'{"record": 7}'])
def test_a_copy_that_cannot_be_read_is_no_copy(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rollout.json").write_bytes(content)
    assert not Latch(tmp_path / "rollout.json").is_set


def test_a_copy_that_cannot_be_written_costs_nothing_now(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    latch = Latch(tmp_path / "file" / "rollout.json")
    latch.decide(ROLLBACK)
    assert latch.is_set


def test_listeners_hear_of_each_change_and_of_no_repetition() -> None:
    latch = Latch()
    heard: list[bool] = []
    latch.on_change(lambda: heard.append(latch.is_set))
    latch.take(RECORD)
    latch.take(RECORD)
    latch.take(ROLLED)
    assert heard == [False, True]


class Everybody:
    """A gate that gives everybody one arm."""

    def __init__(self, arm: Arm, fresh_at: float | None = None) -> None:
        self.arm = arm
        self.state = GateState(source="file", flag="f", rollout=None, fresh_at=fresh_at, changed_at=None)

    def assign(self, context: FlagContext) -> Assignment:
        del context
        return Assignment(self.arm, Reason.SPLIT, 7, 25)

    async def start(self) -> None: ...

    async def close(self) -> None: ...


@pytest.mark.parametrize(
    ("record", "flag", "arm", "reason"),
    [
        pytest.param(RECORD, Arm.CANDIDATE, Arm.CANDIDATE, Reason.SPLIT, id="open"),
        pytest.param(ROLLED, Arm.CANDIDATE, Arm.CONTROL, Reason.LATCHED, id="rolled back"),
        pytest.param(
            replace(RECORD, ramp=replace(RECORD.ramp, phase=Phase.RETIRED)),
            Arm.CONTROL,
            Arm.CANDIDATE,
            Reason.RETIRED,
            id="retired",
        ),
    ],
)
def test_the_gate_gives_what_the_latch_lets_through(record: RampRecord, flag: Arm, arm: Arm, reason: Reason) -> None:
    found = LatchedGate(Everybody(flag), following(record), Pulse()).assign(FlagContext("ann"))
    assert (found.arm, found.reason, found.bucket, found.share_percent) == (arm, reason, 7, 25)


def test_a_rollback_decided_without_a_record_is_not_taken_for_an_older_one_of_the_store() -> None:
    latch = Latch()
    decided = Rollback(rollback_id="new", at=100.0, actor="ann", reason="bad", from_share_percent=0)
    latch.decide(decided)
    rearmed = roll_back(Ramp(rollout_id="r", group_id="g"), "old", 50.0, actor="guard", reason="x")
    rearmed = rearm(rearmed, 60.0, cool_down_seconds=0)
    latch.take(RampRecord(ramp=rearmed, version=9))
    assert latch.is_set
    assert latch.undelivered == decided


def test_a_rollback_that_was_ended_after_it_was_decided_here_is_over_here_too() -> None:
    latch = Latch()
    latch.decide(Rollback(rollback_id="mine", at=100.0, actor="ann", reason="bad", from_share_percent=0))
    later = roll_back(Ramp(rollout_id="r", group_id="g"), "mine", 101.0, actor="guard", reason="x")
    rearmed = rearm(later, 102.0, cool_down_seconds=0)
    latch.take(RampRecord(ramp=rearmed, version=9, rollback_ids=("mine",)))
    assert not latch.is_set


def test_nobody_has_the_candidate_while_it_is_not_known_whether_a_rollback_holds() -> None:
    latch = Latch()
    gate = LatchedGate(Everybody(Arm.CANDIDATE), latch, Pulse())
    assert (gate.assign(FlagContext("ann")).arm, gate.shut_by()) == (Arm.CONTROL, Reason.UNSURE)
    latch.hear()
    assert (gate.assign(FlagContext("ann")).arm, gate.shut_by()) == (Arm.CANDIDATE, None)


def test_after_a_rearm_a_flag_that_was_last_read_before_it_gives_nothing() -> None:
    latch = following(ROLLED)
    latch.take(REARMED)
    assert latch.opened_at is not None
    stale, fresh = latch.opened_at - 1, latch.opened_at + 1
    assert LatchedGate(Everybody(Arm.CANDIDATE, stale), latch, Pulse()).shut_by() is Reason.LATCHED
    assert LatchedGate(Everybody(Arm.CANDIDATE, fresh), latch, Pulse()).shut_by() is None


def test_after_a_rearm_a_flag_server_that_still_answers_the_old_share_gives_nothing() -> None:
    latch = following(ROLLED)
    latch.take(REARMED)
    assert latch.opened_at is not None
    flag = Everybody(Arm.CANDIDATE)
    gate = LatchedGate(flag, latch, Pulse())

    def says(share_percent: int) -> Reason | None:
        rollout = Rollout(is_enabled=True, share_percent=share_percent, group_id="f", stickiness="userId", splits=True)
        flag.state = replace(flag.state, rollout=rollout, fresh_at=time.time() + 1)
        return gate.shut_by()

    assert [says(25), says(25), says(0), says(25)] == [Reason.LATCHED, Reason.LATCHED, None, None]


def test_after_a_rearm_for_fresh_users_a_flag_that_still_names_the_old_ones_gives_nothing() -> None:
    latch = following(ROLLED)
    latch.take(REARMED)
    fresh = replace(REARMED.ramp, group_id="g-2", share_percent=25)
    latch.take(changed(REARMED, fresh, By(actor="ann", through=Through.API, reason="again")))
    flag = Everybody(Arm.CANDIDATE)
    gate = LatchedGate(flag, latch, Pulse())

    def says(group_id: str) -> Reason | None:
        rollout = Rollout(is_enabled=True, share_percent=25, group_id=group_id, stickiness="userId", splits=True)
        flag.state = replace(flag.state, rollout=rollout, fresh_at=time.time() + 1)
        return gate.shut_by()

    assert [says("g"), says("g-2")] == [Reason.LATCHED, None]


def test_a_rollback_that_was_over_before_it_was_heard_of_makes_the_flag_say_the_share_first() -> None:
    latch = following(replace(RECORD, ramp=replace(RECORD.ramp, share_percent=25)))
    before = latch.opened_at
    assert before is None
    latch.take(REARMED)
    assert latch.opened_at is not None
    flag = Everybody(Arm.CANDIDATE, latch.opened_at + 1)
    rollout = Rollout(is_enabled=True, share_percent=25, group_id="f", stickiness="userId", splits=True)
    flag.state = replace(flag.state, rollout=rollout)
    assert LatchedGate(flag, latch, Pulse()).shut_by() is Reason.LATCHED


def test_a_copy_is_read_from_its_own_file_only(tmp_path: Path) -> None:
    Latch(tmp_path / "a.json").take(ROLLED)
    assert Latch(tmp_path / "b.json").record is None
