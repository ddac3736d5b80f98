"""One proxy whose store loses the record, gets an old one back, or is not what it was: what a rollback survives."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import require_part
from tests.integration.pages import status
from tests.parts.callers import QUICK, ask_all
from tests.parts.programs import eventually
from tests.parts.redis_server import RedisServer, is_redis_here
from tests.running import ROOT, Proxy, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USERS = [f"user-{i}" for i in range(8)]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    require_part("redis-server", found=is_redis_here())
    with RedisServer(tmp_path / "redis") as started:
        yield started


def proxy_on(folder: Path, url: str, **env: str) -> Proxy:
    return Proxy(folder, {**QUICK, "REDIS_URL": url, "RERANK_CANARY__RAMP__COOL_DOWN_SECONDS": "0", **env})


def rollout(proxy: Proxy) -> dict[str, Any]:
    found: dict[str, Any] = status(proxy)["rollout"]
    return found


def token(proxy: Proxy) -> str:
    return (proxy.folder / "var/control.token").read_text().strip()


def order(proxy: Proxy, path: str, **fields: object) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token(proxy)}"}
    answer = httpx.post(f"{proxy.control_url}/{path}", json=fields, headers=headers, timeout=30)
    assert answer.is_success, answer.text
    found: dict[str, Any] = answer.json()
    return found


def given(proxy: Proxy) -> set[tuple[str | None, str | None]]:
    """Return the arms and reasons of some users."""
    return {(answer.arm, answer.reason) for answer in ask_all(proxy.url, USERS)}


def test_an_older_copy_of_the_store_that_went_on_does_not_undo_a_rollback(tmp_path: Path, redis: RedisServer) -> None:
    with proxy_on(tmp_path, redis.url) as proxy, redis.client() as client:
        eventually(lambda: rollout(proxy)["record_version"])
        order(proxy, "ramp", share_percent=100, force=True)
        [key] = client.keys("*:ramp")
        older = json.loads(client.get(key))
        decided = order(proxy, "rollback", reason="answers are bad")["rollback_id"]
        client.set(key, json.dumps(older | {"version": older["version"] + 50}))
        eventually(lambda: json.loads(client.get(key))["version"] > older["version"] + 50, timeout_seconds=30)
        assert rollout(proxy)["latch"]["rollback"]["rollback_id"] == decided
        assert given(proxy) == {("control", "latched")}
        restored = json.loads(client.get(key))["ramp"]["rollback"]
        assert (restored["rollback_id"], restored["reason"]) == (decided, "answers are bad")


def test_a_record_that_nobody_can_read_stops_no_rollback(tmp_path: Path, redis: RedisServer) -> None:
    with proxy_on(tmp_path, redis.url) as proxy, redis.client() as client:
        eventually(lambda: rollout(proxy)["record_version"])
        order(proxy, "ramp", share_percent=100, force=True)
        [key] = client.keys("*:ramp")
        client.set(key, "{garbage")
        eventually(lambda: rollout(proxy)["record_error"], timeout_seconds=30)
        assert status(proxy)["store"]["error"] is None
        ran = subprocess.run(
            [ROOT / ".venv/bin/rerank-canary", "rollback", "--yes", "--reason", "bad", "--url", proxy.control_url],
            env={"PATH": os.environ["PATH"], "RERANK_CANARY_TOKEN": token(proxy)},
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert ran.returncode == 5, ran.stdout + ran.stderr
        assert given(proxy) == {("control", "latched")}
        flags = json.loads((tmp_path / "var/flags.json").read_text())["features"][0]
        assert flags["enabled"] is False
        client.delete(key)
        eventually(lambda: rollout(proxy)["phase"] == "rolled_back", timeout_seconds=30)
        last = rollout(proxy)["latch"]
        assert (last["is_delivered"], last["rollback"]["reason"], last["rollback"]["through"]) == (True, "bad", "cli")


def test_nobody_has_the_candidate_of_a_proxy_that_never_reached_its_store(tmp_path: Path) -> None:
    with proxy_on(tmp_path, f"redis://127.0.0.1:{free_port()}/0") as proxy:
        assert given(proxy) == {("control", "unsure")}
        assert (rollout(proxy)["latch"]["is_known"], rollout(proxy)["share_percent"]["effective"]) == (False, 0)


def test_another_flag_on_the_same_store_is_another_rollout(tmp_path: Path, redis: RedisServer) -> None:
    with proxy_on(tmp_path, redis.url) as proxy:
        eventually(lambda: rollout(proxy)["record_version"])
        order(proxy, "rollback", reason="of the first model")
    with proxy_on(tmp_path, redis.url, RERANK_CANARY__FLAG__KEY="second-model") as proxy:
        eventually(lambda: rollout(proxy)["record_version"])
        assert not rollout(proxy)["latch"]["is_set"]
    with proxy_on(tmp_path, redis.url) as proxy:
        assert rollout(proxy)["latch"]["rollback"]["reason"] == "of the first model"


def test_another_plan_in_the_settings_is_followed_at_the_share_where_it_is(tmp_path: Path, redis: RedisServer) -> None:
    with proxy_on(tmp_path, redis.url) as proxy:
        eventually(lambda: rollout(proxy)["record_version"])
        order(proxy, "ramp", share_percent=25)
    stages = [{"share_percent": share, "bake_seconds": 3600} for share in (10, 25, 100)]
    with proxy_on(tmp_path, redis.url, RERANK_CANARY__RAMP__STAGES=json.dumps(stages)) as proxy:
        eventually(lambda: len(rollout(proxy)["plan"]) == 3, timeout_seconds=30)
        found = rollout(proxy)
        assert (found["stage"]["number"], found["stage"]["of"], found["share_percent"]["desired"]) == (2, 3, 25)
