from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flags.rollout import InvalidFlags, Rollout, assign, read_rollout
from flags.vocabulary import Arm, FlagContext, Reason

USER = FlagContext("u7")
SPLIT = Rollout(is_enabled=True, share_percent=5, group_id="rerank-canary", stickiness="userId", splits=True)


def state(*strategies: dict[str, Any], enabled: bool = True, name: str = "f") -> str:
    return json.dumps({"version": 2, "features": [{"name": name, "enabled": enabled, "strategies": strategies}]})


def flexible(**parameters: str) -> dict[str, Any]:
    return {"name": "flexibleRollout", "parameters": parameters, "constraints": [{"contextName": "x"}]}


def test_share_group_and_stickiness_are_those_of_the_first_rollout_strategy() -> None:
    text = state({"name": "userWithId"}, flexible(rollout="25", groupId="g", stickiness="sessionId"), flexible())
    assert read_rollout(text, "f") == Rollout(
        is_enabled=True, share_percent=25, group_id="g", stickiness="sessionId", splits=True
    )


def test_the_group_is_the_flag_itself_unless_named() -> None:
    found = read_rollout(state(flexible(rollout="5")), "f")
    assert found is not None
    assert (found.group_id, found.stickiness) == ("f", "default")


def test_a_disabled_strategy_does_not_count() -> None:
    found = read_rollout(state(flexible(rollout="50") | {"disabled": True}, flexible(rollout="5")), "f")
    assert found is not None
    assert found.share_percent == 5


@pytest.mark.parametrize("text", ["5.5", "-1", "101", "", "abc", "\u0665"])
def test_a_percentage_that_is_no_whole_number_means_nobody(text: str) -> None:
    found = read_rollout(state(flexible(rollout=text)), "f")
    assert found is not None
    assert found.share_percent == 0


def test_a_flag_without_strategies_is_for_everybody() -> None:
    found = read_rollout(state(), "f")
    assert found is not None
    assert (found.share_percent, found.splits) == (100, False)


def test_an_unknown_flag_is_none() -> None:
    assert read_rollout(state(name="other"), "f") is None


@pytest.mark.parametrize("text", ["", "[]", '{"features": 1}', '{"features": [{"enabled": true}]}', b"\xff"])
def test_what_is_no_flag_state_is_refused(text: str | bytes) -> None:
    with pytest.raises(InvalidFlags):
        read_rollout(text, "f")


@pytest.mark.parametrize(
    ("stickiness", "key"),
    [("userId", "u"), ("default", "u"), ("sessionId", "s"), ("tenant", "t"), ("random", None), ("absent", None)],
)
def test_the_bucket_follows_the_stickiness(stickiness: str, key: str | None) -> None:
    rollout = Rollout(is_enabled=True, share_percent=5, group_id="g", stickiness=stickiness, splits=True)
    context = FlagContext("u", "s", None, {"tenant": "t"})
    alone = Rollout(is_enabled=True, share_percent=5, group_id="g", stickiness="userId", splits=True)
    assert rollout.bucket_of(context) == (alone.bucket_of(FlagContext(key)) if key else None)


def test_a_flag_never_seen_is_control() -> None:
    found = assign(is_on=True, rollout=None, was_seen=False, context=USER)
    assert (found.arm, found.reason) == (Arm.CONTROL, Reason.NEVER_SEEN)


def test_a_flag_that_the_server_does_not_know_is_control() -> None:
    found = assign(is_on=True, rollout=None, was_seen=True, context=USER)
    assert (found.arm, found.reason) == (Arm.CONTROL, Reason.NO_FLAG)


@pytest.mark.parametrize(
    ("rollout", "reason"),
    [
        (SPLIT, Reason.SPLIT),
        (Rollout(is_enabled=False, share_percent=5, group_id="g", stickiness="userId", splits=True), Reason.DISABLED),
        (Rollout(is_enabled=True, share_percent=0, group_id="g", stickiness="userId", splits=False), Reason.TARGETED),
    ],
    ids=["split", "disabled", "targeted"],
)
def test_the_reason_says_what_decided(rollout: Rollout, reason: Reason) -> None:
    assert assign(is_on=False, rollout=rollout, was_seen=True, context=USER).reason is reason


@given(st.booleans(), st.text(min_size=1))
def test_the_engine_decides_and_the_bucket_only_explains(is_on: bool, user: str) -> None:  # noqa: FBT001 - drawn
    found = assign(is_on=is_on, rollout=SPLIT, was_seen=True, context=FlagContext(user))
    assert (found.arm is Arm.CANDIDATE) is is_on
    assert found.bucket == SPLIT.bucket_of(FlagContext(user))
