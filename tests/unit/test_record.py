from __future__ import annotations

import pytest
from msgspec.structs import replace

from flags.ramp import DEFAULT_PLAN, Phase, Ramp, Rollback, move, rearm, roll_back
from flags.record import (
    By,
    RampRecord,
    Request,
    Through,
    changed,
    entry_of,
    record_from_flag,
    title_of,
    wins,
    with_rollback,
)

AT_5 = RampRecord(ramp=move(Ramp(rollout_id="r", group_id="g"), 5, 0.0), version=3)
ROLLBACK = Rollback(rollback_id="abc", at=9.0, actor="ann", reason="bad", from_share_percent=5, request_id="q1")


def rolled_back() -> RampRecord:
    return with_rollback(AT_5, ROLLBACK, 9.0)


def test_a_change_of_share_is_the_next_version_and_waits_for_the_flag() -> None:
    after = changed(
        AT_5, move(AT_5.ramp, 25, 1.0), By(actor="ann", through=Through.API, reason="fine", request_id="q7")
    )
    assert (after.version, after.is_pending, after.flag_share_percent) == (4, True, 5)
    assert after.requests == (Request("q7", ""),)


def test_a_change_that_moves_no_share_writes_no_flag() -> None:
    after = changed(AT_5, replace(AT_5.ramp, phase=Phase.HELD), By(actor="ann", through=Through.API, reason=""))
    assert not after.is_pending


def test_another_group_is_written_to_the_flag() -> None:
    assert changed(AT_5, replace(AT_5.ramp, group_id="g2"), By(actor="ann", through=Through.API, reason="")).is_pending


def test_a_rollback_at_0_percent_is_written_to_the_flag_too() -> None:
    at_0 = replace(AT_5, ramp=replace(AT_5.ramp, share_percent=0))
    after = with_rollback(at_0, ROLLBACK, 9.0)
    assert after.is_pending
    assert title_of(after) == "rolled back abc"


def test_a_rollback_is_written_whatever_the_flag_says() -> None:
    assert rolled_back().flag_share_percent is None


def test_a_second_rollback_is_the_first() -> None:
    first = rolled_back()
    assert with_rollback(first, replace(ROLLBACK, rollback_id="xyz"), 10.0) is first


def test_no_more_than_a_few_requests_are_remembered() -> None:
    record = AT_5
    for number in range(200):
        record = changed(record, record.ramp, By(actor="a", through=Through.API, reason="", request_id=str(number)))
    assert len(record.requests) == 64
    assert record.action_of("199") == ""
    assert record.action_of("1") is None


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        pytest.param(4, 3, True, id="the store is older"),
        pytest.param(3, 4, False, id="the store is newer"),
        pytest.param(3, 3, False, id="the same"),
    ],
)
def test_the_higher_version_wins(mine: int, theirs: int, expected: bool) -> None:  # noqa: FBT001 - a parameter
    assert wins(replace(AT_5, version=mine), replace(AT_5, version=theirs)) is expected


def test_of_one_version_the_rollback_wins() -> None:
    mine, theirs = rolled_back(), replace(AT_5, version=4)
    assert (wins(mine, theirs), wins(theirs, mine)) == (True, False)


def test_what_a_flag_says_after_a_rollback_is_a_rollback() -> None:
    lost = rolled_back()
    found = record_from_flag(flag="r", group_id="g", share_percent=0, title=title_of(lost), plan=DEFAULT_PLAN, now=20.0)
    assert found.is_rolled_back
    assert found.ramp.rollback is not None
    assert found.ramp.rollback.rollback_id == "abc"


@pytest.mark.parametrize(("share", "stage"), [(0, None), (5, 0), (30, None), (100, 3)])
def test_what_a_flag_says_is_adopted(share: int, stage: int | None) -> None:
    found = record_from_flag(flag="r", group_id="g", share_percent=share, title="x", plan=DEFAULT_PLAN, now=20.0)
    assert (found.ramp.share_percent, found.ramp.stage, found.is_rolled_back) == (share, stage, False)


def test_a_title_of_a_rollback_beside_a_share_is_none() -> None:
    found = record_from_flag(
        flag="r", group_id="g", share_percent=25, title="rolled back abc", plan=DEFAULT_PLAN, now=20.0
    )
    assert not found.is_rolled_back


def test_an_audit_entry_says_who_what_from_and_to() -> None:
    after = rolled_back()
    by = By(actor="bob", through=Through.GUARD, reason="too slow", evidence="p99 3 s")
    entry = entry_of(AT_5, after, by, at=9.0, action="rollback")
    assert (entry.actor, entry.reason, entry.through) == ("bob", "too slow", "guard")
    assert (entry.from_share_percent, entry.to_share_percent) == (5, 0)
    assert (entry.rollback_id, entry.version, entry.evidence) == ("abc", 4, "p99 3 s")


def test_a_rearmed_record_names_no_rollback_in_the_flag() -> None:
    after = rolled_back()
    ramp = rearm(after.ramp, 1e9, cool_down_seconds=1.0)
    again = changed(after, ramp, By(actor="ann", through=Through.API, reason="fixed"))
    assert title_of(again) == "0 % by ann: fixed"
    assert roll_back(again.ramp, "b", 1e9, actor="x", reason="").rollbacks == 2


def test_a_second_change_before_the_first_is_written_still_expects_what_the_flag_said_before_both() -> None:
    first = changed(AT_5, move(AT_5.ramp, 25, 1.0), By(actor="ann", through=Through.API, reason=""))
    second = changed(first, move(first.ramp, 50, 2.0), By(actor="bob", through=Through.API, reason=""))
    assert (second.flag_share_percent, second.passed_shares) == (5, (25,))


def test_a_rearm_before_the_rollback_is_written_leaves_it_to_be_written_whatever_the_flag_says() -> None:
    after = changed(
        rolled_back(),
        rearm(rolled_back().ramp, 10.0, cool_down_seconds=0),
        By(actor="ann", through=Through.API, reason="mended"),
    )
    assert (after.is_pending, after.flag_share_percent) == (True, None)


def rearmed() -> RampRecord:
    ramp = rearm(rolled_back().ramp, 1e9, cool_down_seconds=0)
    return changed(rolled_back(), ramp, By(actor="ann", through=Through.API, reason="mended"))


def test_a_rollback_keeps_who_decided_it_when_and_why() -> None:
    rollback = rolled_back().ramp.rollback
    assert rollback == ROLLBACK
    late = with_rollback(AT_5, ROLLBACK, 99.0)
    assert late.ramp.rollback is not None
    assert (late.ramp.rollback.at, late.ramp.entered_at) == (9.0, 99.0)


@pytest.mark.parametrize("version", [1, 5, 900])
def test_a_store_from_before_a_rollback_does_not_undo_it_however_far_it_went_on(version: int) -> None:
    older = replace(AT_5, version=version)
    assert wins(rolled_back(), older)
    assert not wins(older, rolled_back())


@pytest.mark.parametrize("version", [1, 900])
def test_a_rollback_of_the_store_holds_against_a_copy_of_another_past(version: int) -> None:
    copy = replace(rearmed(), version=version, rollback_ids=("of another past",), ramp=replace(AT_5.ramp, rollbacks=7))
    assert not wins(copy, rolled_back())
    assert wins(rolled_back(), copy)


def test_a_rollback_that_was_ended_since_does_not_come_back() -> None:
    asleep = replace(rolled_back(), version=900)
    assert wins(rearmed(), asleep)
    assert not wins(asleep, rearmed())


def test_a_rearm_has_the_flag_written_again_so_that_it_names_the_rollback_no_more() -> None:
    written = replace(rolled_back(), is_pending=False)
    after = changed(
        written, rearm(written.ramp, 1e9, cool_down_seconds=0), By(actor="ann", through=Through.API, reason="mended")
    )
    assert after.is_pending
    assert title_of(after) == "0 % by ann: mended"
