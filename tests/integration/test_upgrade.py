"""A new version in the middle of a ramp: its process starts beside the old one, over one Redis, and takes over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.conftest import require_part
from tests.integration.pages import status
from tests.integration.test_guard_alone import SPLIT, USERS, env_of, failing, is_rolled_back
from tests.parts.callers import Callers, ask_all
from tests.parts.cross_encoder import CrossEncoderServer
from tests.parts.programs import eventually
from tests.parts.redis_server import RedisServer, is_redis_here
from tests.running import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NEW = {"RERANK_CANARY__TELEMETRY__LOG_LEVEL": "debug", "RERANK_CANARY__DEADLINE__CANDIDATE_SECONDS": "4"}
"""Settings of the new version that are others than the old one's."""


@pytest.fixture
def candidate() -> Iterator[CrossEncoderServer]:
    made = CrossEncoderServer()
    with made.server:
        yield made


@pytest.fixture
def env(tmp_path: Path, candidate: CrossEncoderServer) -> Iterator[dict[str, str]]:
    require_part("redis-server", found=is_redis_here())
    with RedisServer(tmp_path / "redis") as redis:
        yield env_of(candidate, tmp_path / "flags.json", SPLIT, REDIS_URL=redis.url)


def judged(by: Proxy) -> dict[str, float]:
    """Return how many requests each guardrail was judged by in this stage, once *by* is who judges."""
    instance_id = status(by)["instance_id"]

    def found() -> dict[str, float] | None:
        report: dict[str, Any] | None = by.control("/guard").json()["report"]
        if report is None or report["leader"] != instance_id:
            return None
        return {each["guardrail"]: each["trials"] for each in report["findings"]}

    return eventually(found) or {}


def arms(proxy: Proxy) -> dict[str, str | None]:
    return {answer.user: answer.arm for answer in ask_all(proxy.url, USERS)}


def test_the_split_and_the_evidence_outlive_the_version(tmp_path: Path, env: dict[str, str]) -> None:
    with Proxy(tmp_path / "old", env) as old:
        with Callers(old.url, USERS, threads=4) as callers:
            eventually(lambda: len(callers.answers) > 300 and judged(old)["errors"] > 100)
        before, record = arms(old), status(old)["rollout"]
        seen = judged(old)
        with Proxy(tmp_path / "new", env | NEW) as new:
            assert arms(new) == before
            old.stop()
            now = judged(new)
            assert arms(new) == before
            after = status(new)["rollout"]
    assert set(before.values()) == {"control", "candidate"}
    assert callers.failed == []
    assert {name: count for name, count in now.items() if count < seen[name]} == {}
    assert (after["phase"], after["record_version"]) == (record["phase"], record["record_version"])


def test_a_rollback_holds_on_a_version_that_starts_while_it_does(
    tmp_path: Path, env: dict[str, str], candidate: CrossEncoderServer
) -> None:
    with Proxy(tmp_path / "old", env) as old:
        with Callers(old.url, USERS, threads=4) as callers:
            eventually(lambda: len(callers.answers) > 100)
            candidate.fault = failing
            eventually(lambda: is_rolled_back(old))
        rollback = status(old)["rollout"]["latch"]["rollback"]
        candidate.fault = None
        with Proxy(tmp_path / "new", env | NEW) as new:
            assert set(arms(new).values()) == {"control"}  # from its first request on
            old.stop()
            judged(new)
            latch = status(new)["rollout"]["latch"]
            assert set(arms(new).values()) == {"control"}
    assert latch["is_set"]
    assert latch["rollback"]["rollback_id"] == rollback["rollback_id"]
    assert callers.failed == []
