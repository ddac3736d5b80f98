"""Operators who ramp three proxies over a real Unleash and a real Redis, while users ask."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import pytest

from tests.conftest import require_part
from tests.integration.flags import new_flag_name
from tests.parts.callers import Callers, ask_all
from tests.parts.fleet import Fleet, in_group, unleash_env
from tests.parts.programs import eventually
from tests.parts.redis_server import RedisServer, is_redis_here

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.parts.unleash import Unleash

USERS = [f"user-{i}" for i in range(120)]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    require_part("redis-server", found=is_redis_here())
    with RedisServer(tmp_path_factory.mktemp("redis")) as started:
        yield started


class Rollout:
    """A flag, and the fleet that follows it."""

    def __init__(self, unleash: Unleash, fleet: Fleet, flag: str, strategy: str) -> None:
        self.unleash, self.fleet, self.flag, self.strategy = unleash, fleet, flag, strategy

    def begin_at(self, percent: int) -> None:
        """Bring the rollout to a share, whatever it was before."""
        self.fleet.begin_at(percent)

    def in_unleash(self) -> int:
        """Return the effective share as Unleash's admin API has it."""
        found = self.unleash.admin.environment(self.flag)
        return int(found["strategies"][0]["parameters"]["rollout"]) if found["enabled"] else 0


@pytest.fixture(scope="module")
def rollout(unleash: Unleash, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rollout]:
    flag = new_flag_name()
    strategy = unleash.admin.create_rollout(flag, 5)
    env = unleash_env(unleash, flag, redis.url)
    with Fleet(tmp_path_factory.mktemp("fleet"), 3, env, prefix=flag) as fleet:
        yield Rollout(unleash, fleet, flag, strategy)


def candidates(rollout: Rollout, number: int = 0) -> set[str]:
    """Return the users whom one of the proxies gives to the candidate."""
    answers = ask_all(rollout.fleet.proxies[number].url, USERS)
    assert {answer.status for answer in answers} == {200}
    return {answer.user for answer in answers if answer.arm == "candidate"}


def test_the_first_record_is_what_the_flag_says(rollout: Rollout) -> None:
    found = rollout.fleet.rollout()
    assert (found["phase"], found["share_percent"]["desired"], found["stage"]["number"]) == ("ramping", 5, 1)
    assert rollout.fleet.history()[-1]["action"] == "begin"


def test_the_share_is_ramped_by_command_and_who_is_in_stays_in(rollout: Rollout) -> None:
    rollout.begin_at(5)
    before = candidates(rollout)
    with Callers(rollout.fleet.proxies[1].url, USERS, threads=2) as callers:
        for percent in (25, 50, 100):
            done = rollout.fleet.run("ramp", str(percent), "--reason", "all is well", "--yes")
            assert done.code == 0, done.err
            rollout.fleet.wait_until_agreed()
            assert rollout.in_unleash() == percent
            for number in range(3):
                found = candidates(rollout, number)
                assert found == in_group(USERS, rollout.flag, percent)
                assert before <= found
            before = found
    assert callers.failed == []
    newest = next(entry for entry in rollout.fleet.history() if entry["action"] == "ramp")
    assert (newest["actor"], newest["through"], newest["reason"]) == ("adam", "cli", "all is well")
    assert (newest["from_share_percent"], newest["to_share_percent"]) == (50, 100)
    written = next(entry for entry in rollout.fleet.history() if entry["action"] == "flag_written")
    assert int(written["flag_event_id"]) > 0


def test_the_share_is_ramped_in_unleash_itself_and_adopted(rollout: Rollout) -> None:
    rollout.begin_at(5)
    for was, percent in ((5, 25), (25, 50), (50, 100), (100, 30)):
        rollout.unleash.admin.patch_percent(rollout.flag, rollout.strategy, percent, was=was)
        eventually(lambda: rollout.fleet.rollout()["share_percent"]["desired"] == percent)  # noqa: B023 - called at once
        found = rollout.fleet.wait_until_agreed()
        assert candidates(rollout) == in_group(USERS, rollout.flag, percent)
        assert found["stage"] is None if percent == 30 else found["stage"]["share_percent"] == percent
    newest = rollout.fleet.history()[0]
    assert (newest["action"], newest["actor"], newest["through"]) == ("adopt", "unleash", "flag")
    assert "no stage of the plan" in newest["reason"]


def test_a_rollback_takes_everybody_out_everywhere_and_holds(rollout: Rollout) -> None:
    rollout.begin_at(100)
    assert candidates(rollout, 2) == set(USERS)
    done = rollout.fleet.run("rollback", "--reason", "answers are bad", "--yes", "--json")
    assert (done.code, done.json["phase"]) == (0, "rolled_back")
    for number in range(3):
        eventually(lambda: rollout.fleet.rollout(number)["latch"]["is_set"], timeout_seconds=2)  # noqa: B023
        assert candidates(rollout, number) == set()
    rollout.fleet.wait_until_agreed()
    assert rollout.in_unleash() == 0
    title = rollout.unleash.admin.environment(rollout.flag)["strategies"][0]["title"]
    assert title == f"rolled back {done.json['rollback_id']}"
    assert rollout.fleet.history(2)[1]["reason"] == "answers are bad"


def test_a_rolled_back_rollout_cannot_be_ramped_by_command_or_in_unleash(rollout: Rollout) -> None:
    rollout.begin_at(25)
    assert rollout.fleet.run("rollback", "--yes").code == 0
    rollout.fleet.wait_until_agreed()
    refused = rollout.fleet.run("ramp", "5", "--force", "--yes")
    assert (refused.code, "rearm" in refused.err) == (1, True)
    rollout.unleash.admin.patch_percent(rollout.flag, rollout.strategy, 50, was=0)
    rollout.unleash.admin.switch(rollout.flag, "on")
    with Callers(rollout.fleet.proxies[0].url, USERS, threads=2) as callers:
        eventually(lambda: rollout.fleet.history()[0]["action"] == "flag_written" and rollout.in_unleash() == 0)
    assert {answer.arm for answer in callers.answers} == {"control"}
    assert "flag_overruled" in {entry["action"] for entry in rollout.fleet.history()[:4]}


@pytest.mark.parametrize(("fresh", "same"), [([], True), (["--fresh-users"], False)], ids=["same users", "fresh users"])
def test_a_rearmed_rollout_begins_at_0_with_the_users_asked_for(
    rollout: Rollout,
    fresh: list[str],
    same: bool,  # noqa: FBT001 - a parameter
) -> None:
    rollout.begin_at(25)
    before = candidates(rollout)
    rollout.fleet.run("rollback", "--yes")
    done = rollout.fleet.run("rearm", "--reason", "mended", "--yes", "--json", *fresh)
    assert (done.code, done.json["share_percent"], done.json["is_latched"]) == (0, 0, False)
    rollout.fleet.wait_until_agreed()
    assert candidates(rollout) == set()
    rollout.begin_at(25)
    assert (candidates(rollout) == before) is same


def test_two_operators_at_once_leave_one_record_and_both_in_the_trail(rollout: Rollout) -> None:
    rollout.begin_at(5)
    with ThreadPoolExecutor(2) as pool:
        done = list(
            pool.map(lambda n: rollout.fleet.run("ramp", ("25", "50")[n], "--yes", number=n, actor="olga"), (0, 1))
        )
    assert [each.code for each in done] == [0, 0]
    found = rollout.fleet.wait_until_agreed()["share_percent"]["desired"]
    assert found == rollout.in_unleash()
    ramped = [entry["to_share_percent"] for entry in rollout.fleet.history()[:6] if entry["action"] == "ramp"]
    assert sorted(ramped[:2]) == [25, 50]
    assert ramped[0] == found


def test_a_command_sent_twice_with_one_request_id_is_done_once(rollout: Rollout) -> None:
    rollout.begin_at(5)
    body = {"share_percent": 25, "request_id": "the-same", "reason": "once"}
    headers = {"Authorization": "Bearer olga-key"}
    for proxy in rollout.fleet.proxies:
        assert httpx.post(f"{proxy.control_url}/ramp", json=body, headers=headers).status_code == 200
        rollout.fleet.run("ramp", "50", "--yes") if proxy is rollout.fleet.proxies[0] else None
    assert rollout.fleet.wait_until_agreed()["share_percent"]["desired"] == 50
    assert sum(entry["request_id"] == "the-same" for entry in rollout.fleet.history()) == 1


@pytest.mark.parametrize(
    ("actor", "command", "code"),
    [
        ("vera", ["status"], 0),
        ("vera", ["history"], 0),
        ("vera", ["hold"], 4),
        ("vera", ["rollback", "--yes"], 4),
        ("olga", ["hold"], 0),
        ("olga", ["rearm", "--reason", "x", "--yes"], 4),
        ("olga", ["retire", "--yes"], 4),
        ("nobody", ["status"], 4),
        ("adam", ["ramp", "101", "--yes"], 2),
        ("adam", ["ramp", "-1", "--yes"], 2),
        ("adam", ["ramp", "5.5", "--yes"], 2),
        ("adam", ["ramp", "30", "--yes"], 1),
        ("adam", ["retire", "--yes"], 1),
        ("adam", ["rearm", "--reason", "nothing to re-arm", "--yes"], 1),
    ],
)
def test_who_may_do_what_shows_in_the_exit_code(rollout: Rollout, actor: str, command: list[str], code: int) -> None:
    rollout.begin_at(5)
    done = rollout.fleet.run(*command, actor=actor)
    assert done.code == code, done.out + done.err
    assert "Traceback" not in done.err


def test_a_dangerous_command_asks_first(rollout: Rollout) -> None:
    rollout.begin_at(5)
    done = rollout.fleet.run("rollback")
    assert done.code == 1
    assert "Take the candidate out" in done.err
    assert not rollout.fleet.rollout()["latch"]["is_set"]


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("ramp", {"share_percent": 101}, "share_percent"),
        ("ramp", {"share_percent": 5.5}, "share_percent"),
        ("ramp", {"share_percent": "many"}, "share_percent"),
        ("ramp", {}, "share_percent"),
        ("ramp", {"share_percent": 5, "percent": 5}, "percent"),
        ("rearm", {"reason": " "}, "reason"),
        ("hold", {"reason": "x" * 501}, "reason"),
    ],
)
def test_a_bad_order_is_refused_by_the_name_of_its_field(
    rollout: Rollout, path: str, body: dict[str, object], field: str
) -> None:
    url = f"{rollout.fleet.proxies[0].control_url}/{path}"
    found = httpx.post(url, json=body, headers={"Authorization": "Bearer adam-key"})
    assert found.status_code == 400
    assert field in found.json()["message"]


def test_a_redis_that_is_flushed_gets_the_record_back(rollout: Rollout, redis: RedisServer) -> None:
    rollout.begin_at(25)
    rollout.fleet.run("rollback", "--reason", "before the flush", "--yes")
    before = rollout.fleet.wait_until_agreed()
    with Callers(rollout.fleet.proxies[1].url, USERS, threads=2) as callers, redis.client() as client:
        client.flushall()
        eventually(lambda: client.keys("*:ramp"))
        found = rollout.fleet.wait_until_agreed()
    assert {answer.arm for answer in callers.answers} == {"control"}
    assert found["latch"]["rollback"] == before["latch"]["rollback"]
    assert "restore" in {entry["action"] for entry in rollout.fleet.history()}


def test_a_fleet_restarted_with_an_empty_redis_reads_the_rollback_off_the_flag(
    rollout: Rollout, redis: RedisServer
) -> None:
    rollout.begin_at(25)
    done = rollout.fleet.run("rollback", "--reason", "before all is lost", "--yes", "--json")
    rollout.fleet.wait_until_agreed()
    for proxy in rollout.fleet.proxies:
        proxy.stop()
        (proxy.folder / f"var/rollouts/{rollout.flag}.json").unlink()
    with redis.client() as client:
        client.flushall()
    for proxy in rollout.fleet.proxies:
        proxy.start()
    found = rollout.fleet.wait_until_agreed()
    assert found["latch"]["is_set"]
    assert found["latch"]["rollback"]["rollback_id"] == done.json["rollback_id"]
    assert candidates(rollout) == set()


def test_status_shows_every_replica_and_the_share_that_requests_really_had(rollout: Rollout) -> None:
    rollout.begin_at(100)
    time.sleep(1.2)
    ask_all(rollout.fleet.proxies[0].url, USERS)
    eventually(lambda: rollout.fleet.rollout(1)["share_percent"]["observed_requests"] >= len(USERS))
    done = rollout.fleet.run("status", number=1)
    assert done.code == 0
    assert "desired 100 %" in done.out
    assert len([each for each in rollout.fleet.rollout(1)["replicas"] if not each["is_gone"]]) == 3
    assert json.loads(rollout.fleet.run("status", "--json").out)["rollout"]["phase"] == "ramping"


def test_a_retired_arm_is_a_fallback_only(rollout: Rollout) -> None:
    rollout.begin_at(100)
    early = rollout.fleet.run("retire", "--yes")
    assert (early.code, "bakes for another" in early.err) == (1, True)
    done = rollout.fleet.run("retire", "--force", "--yes")
    assert done.code == 0
    assert "What can go" in done.out
    rollout.fleet.wait_until_agreed()
    answers = ask_all(rollout.fleet.proxies[2].url, USERS[:20])
    assert {(answer.arm, answer.reason) for answer in answers} == {("candidate", "retired")}
    assert rollout.fleet.run("rollback", "--yes").code == 0
    assert {answer.arm for answer in ask_all(rollout.fleet.proxies[0].url, USERS[:20])} == {"control"}


def test_a_control_plane_that_is_away_is_an_exit_code_of_its_own(rollout: Rollout) -> None:
    away = Fleet(rollout.fleet.proxies[0].folder / "away", 1, {}, prefix="away")
    done = away.run("status")
    assert (done.code, "cannot be reached" in done.err) == (3, True)


def test_the_store_sees_one_round_trip_a_replica_second_whatever_is_asked(rollout: Rollout, redis: RedisServer) -> None:
    rollout.begin_at(25)
    with redis.client() as client, Callers(rollout.fleet.proxies[0].url, USERS, threads=3) as callers:
        time.sleep(1)
        before, began = client.info("stats")["total_reads_processed"], time.monotonic()
        time.sleep(8)
        reads = client.info("stats")["total_reads_processed"] - before - 1  # the question itself
        seconds = time.monotonic() - began
    assert len(callers.answers) > 100
    assert reads / seconds / 3 <= 1.05
