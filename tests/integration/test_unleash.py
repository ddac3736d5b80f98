"""Who gets the candidate, decided by a flag on a real Unleash server."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import msgspec
import pytest

from flags.vocabulary import Arm, FlagContext
from tests.integration.flags import (
    USERS,
    Rollout,
    candidates,
    following,
    new_flag_name,
    shows,
    unleash_env,
    unleash_gate,
)
from tests.integration.pages import status
from tests.parts.callers import ask, ask_all
from tests.parts.programs import eventually
from tests.parts.unleash import Unleash, constraint
from tests.running import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.part("unleash")
STAGES = (5, 25, 50, 100)
SIGMAS = 4
VECTORS = msgspec.json.decode((Path(__file__).parents[1] / "vectors/unleash_buckets.json").read_bytes())


async def test_each_stage_gives_its_share_of_ten_thousand_users_to_the_candidate(
    unleash: Unleash, tmp_path: Path, record_testsuite_property: Callable[[str, object], None]
) -> None:
    rollout = Rollout(unleash, STAGES[0])
    async with following(unleash_gate(rollout.flag, unleash.url, tmp_path)) as gate:
        for percent in STAGES:
            if percent != rollout.percent:
                rollout.set_percent(percent)
            await shows(gate, percent)
            share = len(candidates(gate, USERS)) / len(USERS)
            record_testsuite_property(f"share_at_{percent}", share)
            expected = percent / 100
            sigma = math.sqrt(expected * (1 - expected) / len(USERS))
            assert abs(share - expected) <= SIGMAS * sigma, f"{share} at {percent} %"


async def test_each_stage_keeps_the_users_of_the_one_before(unleash: Unleash, tmp_path: Path) -> None:
    rollout = Rollout(unleash, STAGES[0])
    before: set[str] = set()
    async with following(unleash_gate(rollout.flag, unleash.url, tmp_path)) as gate:
        for percent in STAGES:
            if percent != rollout.percent:
                rollout.set_percent(percent)
            await shows(gate, percent)
            now = candidates(gate, USERS)
            assert before < now, f"{len(before - now)} users lost at {percent} %"
            before = now


@pytest.mark.parametrize("percent", STAGES, ids="{} %".format)
async def test_the_split_is_the_one_of_the_published_hash(unleash: Unleash, tmp_path: Path, percent: int) -> None:
    rollout = Rollout(unleash, percent)
    async with following(unleash_gate(rollout.flag, unleash.url, tmp_path), percent=percent) as gate:
        assert candidates(gate, USERS) == {user for user in USERS if rollout.gives_candidate(user)}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: f"{v['group_id']}:{v['key']}")
async def test_a_user_comes_in_at_the_percentage_of_the_pinned_bucket(
    unleash: Unleash, tmp_path: Path, vector: dict[str, Any]
) -> None:
    arms = []
    for percent in (vector["bucket"] - 1, vector["bucket"]):
        flag = new_flag_name()
        unleash.admin.create_flag(flag)
        unleash.admin.add_strategy(flag, percent, group_id=vector["group_id"])
        unleash.admin.switch(flag, "on")
        async with following(unleash_gate(flag, unleash.url, tmp_path), percent=percent) as gate:
            arms.append(gate.assign(FlagContext(vector["key"])).arm)
    assert arms == [Arm.CONTROL, Arm.CANDIDATE]


@pytest.fixture(scope="module")
def rollout(unleash: Unleash) -> Rollout:
    return Rollout(unleash, STAGES[0])


@pytest.fixture(scope="module")
def proxy(rollout: Rollout, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy that follows `rollout`."""
    with Proxy(tmp_path_factory.mktemp("proxy"), rollout.env()) as started:
        yield started


def wait_for(proxy: Proxy, percent: int) -> None:
    eventually(lambda: share_of(proxy) == percent)


def share_of(proxy: Proxy) -> object:
    rollout = status(proxy)["flag"]["rollout"]
    return rollout and rollout["share_percent"]


@pytest.mark.parametrize("percent", STAGES, ids="{} %".format)
def test_requests_are_split_as_the_flag_says(rollout: Rollout, proxy: Proxy, percent: int) -> None:
    if rollout.percent != percent:
        rollout.set_percent(percent)
    wait_for(proxy, percent)
    answers = ask_all(proxy.url, USERS[:400])
    wrong = [a for a in answers if (a.arm == "candidate") != rollout.gives_candidate(a.user) or a.reason != "split"]
    assert wrong[:5] == []


def test_the_bucket_header_is_the_published_hash(rollout: Rollout, proxy: Proxy) -> None:
    answers = ask_all(proxy.url, USERS[:100])
    assert [answer.bucket for answer in answers] == [rollout.bucket(user) for user in USERS[:100]]


def test_a_change_in_unleash_reaches_requests_within_three_seconds(
    rollout: Rollout, proxy: Proxy, record_testsuite_property: Callable[[str, object], None]
) -> None:
    user = next(user for user in USERS if rollout.bucket(user) == 40)
    found = []
    with httpx.Client(base_url=proxy.url) as client:
        for percent in (39, 40, 39, 40, 39):
            rollout.set_percent(percent)
            began = time.monotonic()
            arm = "candidate" if percent == 40 else "control"
            eventually(lambda: ask(client, user).arm == arm, every_seconds=0.01)  # noqa: B023 - called at once
            found.append(round(time.monotonic() - began, 3))
    record_testsuite_property("propagation_seconds", found)
    assert max(found) < 3, found


def test_an_environment_that_is_off_sends_everybody_to_control(rollout: Rollout, proxy: Proxy) -> None:
    unleash = rollout.unleash
    unleash.admin.switch(rollout.flag, "off")
    try:
        eventually(lambda: status(proxy)["flag"]["rollout"]["is_enabled"] is False)
        answers = ask_all(proxy.url, USERS[:100])
    finally:
        unleash.admin.switch(rollout.flag, "on")
    assert {(answer.arm, answer.reason) for answer in answers} == {("control", "disabled")}


@pytest.fixture(scope="module")
def targeted(unleash: Unleash, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy whose flag is on for one user, for one client application and for one segment."""
    flag = new_flag_name()
    testers = unleash.admin.create_segment(f"testers-{flag}", [constraint("userId", ["bea"])])
    unleash.admin.create_flag(flag)
    unleash.admin.add_strategy(flag, constraints=[constraint("userId", ["ann"])])
    unleash.admin.add_strategy(flag, constraints=[constraint("client", ["shop"])])
    unleash.admin.add_strategy(flag, segments=[testers])
    unleash.admin.switch(flag, "on")
    with Proxy(tmp_path_factory.mktemp("targeted"), unleash_env(flag, unleash.url)) as proxy:
        eventually(lambda: share_of(proxy) is not None)
        yield proxy


@pytest.mark.parametrize(
    ("user", "client", "arm"),
    [
        pytest.param("ann", "site", "candidate", id="the user of a constraint"),
        pytest.param("bea", "site", "candidate", id="the user of a segment"),
        pytest.param("cem", "shop", "candidate", id="the client of a property constraint"),
        pytest.param("cem", "site", "control", id="nobody in particular"),
    ],
)
def test_constraints_and_segments_choose_the_arm(targeted: Proxy, user: str, client: str, arm: str) -> None:
    [answer] = ask_all(targeted.url, [user], {"x-client-name": client})
    assert answer.arm == arm
