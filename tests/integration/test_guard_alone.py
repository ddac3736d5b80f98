"""One proxy whose candidate fails, in ways in which the guard could overlook it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import require_part
from tests.integration.pages import status
from tests.parts.callers import QUICK, Callers
from tests.parts.cross_encoder import CrossEncoderServer
from tests.parts.http_server import HttpAnswer
from tests.parts.programs import eventually
from tests.parts.redis_server import RedisServer, is_redis_here
from tests.running import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

USERS = [f"user-{i}" for i in range(60)]


@pytest.fixture
def candidate() -> Iterator[CrossEncoderServer]:
    made = CrossEncoderServer()
    with made.server:
        yield made


def env_of(candidate: CrossEncoderServer, flags: Path, strategy: dict[str, Any], **more: str) -> dict[str, str]:
    feature = {"name": "rerank-canary", "enabled": True, "strategies": [strategy]}
    flags.write_text(json.dumps({"version": 2, "features": [feature]}))
    return {
        **QUICK,
        "RERANK_CANARY__FLAG__FILE": str(flags),
        "RERANK_CANARY__GUARD__IS_ON": "true",
        "RERANK_CANARY__BACKENDS__CE__KIND": "remote",
        "RERANK_CANARY__BACKENDS__CE__API": "tei",
        "RERANK_CANARY__BACKENDS__CE__BASE_URL": f"http://{candidate.server.host}:{candidate.server.port}",
        "RERANK_CANARY__ARMS__CANDIDATE": "ce",
        **more,
    }


def failing(_: dict[str, Any]) -> HttpAnswer:
    return HttpAnswer(500, b'{"error": "down", "error_type": "Backend"}')


def is_rolled_back(proxy: Proxy) -> bool:
    return bool(status(proxy)["rollout"]["latch"]["is_set"])


SPLIT = {"name": "flexibleRollout", "parameters": {"rollout": "50", "stickiness": "userId", "groupId": "g"}}
TARGETED = {"name": "userWithId", "parameters": {"userIds": ",".join(USERS)}}


def test_users_whom_another_strategy_names_are_judged_too(tmp_path: Path, candidate: CrossEncoderServer) -> None:
    env = env_of(candidate, tmp_path / "flags.json", TARGETED)
    with Proxy(tmp_path, env) as proxy, Callers(proxy.url, USERS, threads=4) as callers:
        eventually(lambda: {answer.arm for answer in callers.answers[-20:]} == {"candidate"})
        candidate.fault = failing
        eventually(lambda: is_rolled_back(proxy))
        found = status(proxy)["rollout"]["latch"]["rollback"]
        eventually(lambda: {answer.arm for answer in callers.answers[-20:]} == {"control"})
    assert callers.failed == []
    assert found["actor"] == "guard"


def test_a_state_that_cannot_be_read_costs_its_memory_and_not_the_guard(
    tmp_path: Path, candidate: CrossEncoderServer
) -> None:
    require_part("redis-server", found=is_redis_here())
    with RedisServer(tmp_path / "redis") as redis, redis.client() as client:
        env = env_of(candidate, tmp_path / "flags.json", SPLIT, REDIS_URL=redis.url)
        with Proxy(tmp_path, env) as proxy, Callers(proxy.url, USERS, threads=4) as callers:
            eventually(lambda: client.keys("*:guard"))
            [key] = client.keys("*:guard")
            eventually(lambda: client.hget(key, "state"))
            client.hset(key, mapping={"version": "999", "state": '{"rollout": "x"}', "report": "[]"})
            eventually(lambda: proxy.logged("guard.state_unreadable"))
            assert status(proxy)["store"]["error"] is None
            candidate.fault = failing
            eventually(lambda: is_rolled_back(proxy))
        assert callers.failed == []


def test_a_candidate_that_was_never_there_is_taken_out(tmp_path: Path, candidate: CrossEncoderServer) -> None:
    env = env_of(candidate, tmp_path / "flags.json", SPLIT)
    candidate.server.stop()
    with Proxy(tmp_path, env) as proxy, Callers(proxy.url, USERS, threads=2) as callers:
        eventually(lambda: is_rolled_back(proxy))
    assert callers.failed == []
