"""A Redis by URL, as replicas share it: what they count together, and what happens while it is away."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.conftest import require_part
from tests.integration.pages import metric, status
from tests.parts import llm_replies
from tests.parts.callers import QUICK, Callers, ask_all
from tests.parts.llm import ScriptedLlm
from tests.parts.programs import eventually
from tests.parts.redis_server import RedisServer, is_redis_here
from tests.running import Proxy, user_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    import httpx

pytestmark = pytest.mark.part("redis")
CANDIDATE = user_of("candidate")
UNSURE = {**QUICK, "LLM_FALLBACK_THRESHOLD": "0.5", "RERANK_CANARY__FALLBACK__MAX_SHARE": "0.5"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    require_part("redis-server", found=is_redis_here())
    with RedisServer(tmp_path_factory.mktemp("redis")) as started:
        yield started


@pytest.fixture(scope="module")
def replicas(server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Proxy]]:
    """Return two proxies that share the server, and a language model that costs something."""
    with ScriptedLlm(llm_replies.scores()) as llm:
        env = UNSURE | llm.env | {"REDIS_URL": server.url}
        with Proxy(tmp_path_factory.mktemp("a"), env) as first, Proxy(tmp_path_factory.mktemp("b"), env) as second:
            yield [first, second]


def ask_doubtful(proxy: Proxy) -> httpx.Response:
    """Ask for a ranking that the candidate doubts."""
    return proxy.rerank("cats", ["mountains", "rivers"], headers={"x-user-id": CANDIDATE})


def spend(proxy: Proxy) -> dict[str, int]:
    found: dict[str, int] = status(proxy)["fallback"]["last_hour"]
    return found


def test_the_fallbacks_of_one_replica_count_for_the_other(replicas: list[Proxy]) -> None:
    first, second = replicas
    before = spend(second)["low_scores"]
    served = [ask_doubtful(first).headers["x-rerank-served-by"] for _ in range(3)]
    assert served == ["fallback"] * 3
    eventually(lambda: spend(second)["low_scores"] == before + 3)


def test_the_dollars_of_one_replica_count_for_the_other(replicas: list[Proxy]) -> None:
    first, second = replicas
    before = spend(second)["microdollars"]
    ask_doubtful(first)
    eventually(lambda: spend(second)["microdollars"] > before)
    eventually(lambda: spend(first) == spend(second))


def test_a_budget_spent_by_one_replica_binds_the_other(replicas: list[Proxy]) -> None:
    first, second = replicas
    while ask_doubtful(first).headers["x-rerank-served-by"] == "fallback":
        pass
    eventually(lambda: status(second)["fallback"]["budget_exceeded"])
    answer = ask_doubtful(second)
    assert answer.headers["x-rerank-served-by"] == "candidate"
    assert any("budget" in warning for warning in answer.json()["meta"]["warnings"])


def test_no_store_of_its_own_is_started_beside_a_redis(replicas: list[Proxy]) -> None:
    assert [(p.folder / "var/store").exists() for p in replicas] == [False, False]


def test_a_redis_that_hangs_costs_no_request(server: RedisServer, replicas: list[Proxy]) -> None:
    first = replicas[0]
    with Callers(first.url, ["ann", CANDIDATE], threads=2) as callers:
        server.program.freeze()
        try:
            eventually(lambda: metric(first, "rerank_store_up") == 0)
            eventually(lambda: status(first)["store"]["error"])
        finally:
            server.program.thaw()
        eventually(lambda: metric(first, "rerank_store_up") == 1)
    assert callers.failed == []
    assert max(answer.seconds for answer in callers.answers) < 1


def test_a_redis_that_is_killed_and_started_again_costs_no_request(server: RedisServer, replicas: list[Proxy]) -> None:
    first = replicas[0]
    with Callers(first.url, ["ann", CANDIDATE], threads=2) as callers:
        server.program.stop(signal.SIGKILL)
        try:
            eventually(lambda: metric(first, "rerank_store_up") == 0)
        finally:
            server.start()
        eventually(lambda: metric(first, "rerank_store_up") == 1)
    assert callers.failed == []


def test_what_is_counted_while_redis_is_away_is_sent_once_when_it_is_back(
    server: RedisServer, replicas: list[Proxy]
) -> None:
    first, second = replicas
    eventually(lambda: spend(first) == spend(second))
    before = spend(second)["requests"]
    server.program.stop(signal.SIGKILL)
    try:
        eventually(lambda: metric(first, "rerank_store_up") == 0)
        ask_all(first.url, [CANDIDATE] * 9)
    finally:
        server.start()
    eventually(lambda: spend(second)["requests"] == before + 9)


def test_what_is_counted_while_redis_hangs_is_sent_once_when_it_goes_on(
    server: RedisServer, replicas: list[Proxy]
) -> None:
    first, second = replicas
    eventually(lambda: spend(first) == spend(second))
    before = spend(second)["requests"]
    server.program.freeze()
    try:
        ask_all(first.url, [CANDIDATE] * 9)
        eventually(lambda: metric(first, "rerank_store_up") == 0)
    finally:
        server.program.thaw()
    eventually(lambda: metric(first, "rerank_store_up") == 1)
    eventually(lambda: spend(first) == spend(second))
    assert spend(second)["requests"] == before + 9


def test_a_proxy_starts_and_serves_without_its_redis(tmp_path_factory: pytest.TempPathFactory) -> None:
    env = QUICK | {"REDIS_URL": "redis://127.0.0.1:1/0"}
    with Proxy(tmp_path_factory.mktemp("alone"), env) as proxy:
        answers = ask_all(proxy.url, ["ann", CANDIDATE])
        up = metric(proxy, "rerank_store_up")
    assert [answer.status for answer in answers] == [200, 200]
    assert up == 0
