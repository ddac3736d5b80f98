"""Feedback over sockets: two replicas over one Redis, a Redis that goes away, and a candidate that users turn down."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import cohere
import httpx
import pytest

from tests.conftest import require_part
from tests.integration.pages import status
from tests.integration.test_shadow import DOCUMENTS, WORDS, remote, reversed_order
from tests.parts import llm_replies
from tests.parts.callers import QUICK
from tests.parts.cross_encoder import CrossEncoderServer
from tests.parts.llm import ScriptedLlm
from tests.parts.programs import eventually
from tests.parts.redis_server import RedisServer, is_redis_here
from tests.running import Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BEST = 2
HEADER = "x-rerank-feedback"


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    require_part("redis-server", found=is_redis_here())
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def replicas(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Proxy, Proxy]]:
    env = QUICK | {"REDIS_URL": redis_server.url}
    folder = tmp_path_factory.mktemp("replicas")
    with Proxy(folder / "one", env) as one, Proxy(folder / "two", env) as two:
        yield one, two


def token_of(proxy: Proxy, user: str = "user-1") -> str:
    answer = proxy.rerank(WORDS, DOCUMENTS, headers={"x-user-id": user})
    assert answer.status_code == 200, answer.text
    return str(answer.headers[HEADER])


def say(proxy: Proxy, request_id: str, **said: Any) -> dict[str, Any]:
    answer = httpx.post(f"{proxy.url}/v1/feedback", json={"request_id": request_id, **said}, timeout=30)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_any_replica_takes_what_another_served_and_knows_what_that_was_told(replicas: tuple[Proxy, Proxy]) -> None:
    one, two = replicas
    request_id = token_of(one)
    assert say(two, request_id, clicked=[BEST]) == {"counted": 1, "double": 0}
    assert say(one, request_id, clicked=[BEST, 1]) == {"counted": 1, "double": 1}
    assert say(two, request_id, clicked=[1]) == {"counted": 0, "double": 1}


def test_the_cohere_sdk_which_hides_headers_has_it_too(replicas: tuple[Proxy, Proxy]) -> None:
    with httpx.Client() as http:
        client = cohere.ClientV2(api_key="any", base_url=replicas[0].url, httpx_client=http)
        answer = client.rerank(model="any", query=WORDS, documents=DOCUMENTS)
    assert answer.meta is not None
    request_id = answer.meta.feedback  # type: ignore[attr-defined]  # what it does not know it keeps
    assert say(replicas[1], request_id, clicked=[answer.results[0].index]) == {"counted": 1, "double": 0}


def test_what_is_remembered_is_forgotten_with_the_window(
    replicas: tuple[Proxy, Proxy], redis_server: RedisServer
) -> None:
    say(replicas[0], token_of(replicas[0]), clicked=[BEST])
    with redis_server.client() as client:
        keys = list(client.scan_iter("*:feedback:*"))
        assert keys
        assert all(0 < client.ttl(key) <= 86400 for key in keys)


def test_many_at_once_are_each_counted_once(replicas: tuple[Proxy, Proxy]) -> None:
    one, two = replicas
    tokens = [token_of(one, f"user-{number}") for number in range(20)]
    events = [{"request_id": token, "clicked": [place]} for token in tokens for place in range(5)] * 3
    random.Random(1).shuffle(events)  # noqa: S311 - an order
    found = []
    for proxy, part in ((one, events[:150]), (two, events[150:])):
        answer = httpx.post(f"{proxy.url}/v1/feedback", json={"events": part}, timeout=60)
        found += answer.raise_for_status().json()["results"]
    assert sum(each["counted"] for each in found) == 100
    assert sum(each["double"] for each in found) == 200


def test_without_the_store_each_replica_still_takes_it_once(
    replicas: tuple[Proxy, Proxy], redis_server: RedisServer
) -> None:
    one, two = replicas
    request_id = token_of(one)
    redis_server.program.stop()
    try:
        assert say(one, request_id, clicked=[BEST]) == {"counted": 1, "double": 0}
        assert say(one, request_id, clicked=[BEST]) == {"counted": 0, "double": 1}
        assert say(two, token_of(one), clicked=[BEST]) == {"counted": 1, "double": 0}
    finally:
        redis_server.start()
    eventually(lambda: status(one)["store"]["error"] is None)
    assert say(one, request_id, clicked=[BEST]) == {"counted": 0, "double": 1}
    assert say(one, request_id, clicked=[1]) == {"counted": 1, "double": 0}


def test_a_store_that_lost_everything_is_told_the_key_again(
    replicas: tuple[Proxy, Proxy], redis_server: RedisServer, tmp_path: Path
) -> None:
    request_id = token_of(replicas[0])
    with redis_server.client() as client:
        key = client.get("{rerank-canary:rerank-canary}:feedback-key")
        assert key
        client.flushall()
        eventually(lambda: client.get("{rerank-canary:rerank-canary}:feedback-key") == key)
    with Proxy(tmp_path, QUICK | {"REDIS_URL": redis_server.url}) as late:
        assert say(late, request_id, clicked=[BEST])["counted"] == 1


@pytest.mark.parametrize("is_bad", [True, False], ids=["turned round", "as good"])
def test_a_candidate_whose_users_choose_from_further_down_is_taken_out(tmp_path: Path, *, is_bad: bool) -> None:
    """The users take what is best, wherever it stands: with the order turned round that is the last of seven."""
    candidate = CrossEncoderServer()
    candidate.fault = reversed_order if is_bad else None
    env = {
        "RERANK_CANARY__GUARD__IS_ON": "true",
        "RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "50",
        "RERANK_CANARY__FEEDBACK__JUDGE": "true",
        # what the users say is all that is judged here: a busy machine may be late
        "RERANK_CANARY__GUARD__GUARDRAILS": json.dumps(
            [{"name": name, "is_on": False} for name in ("p95", "p95_relative")]
        ),
    }
    with (
        candidate.server,
        ScriptedLlm(llm_replies.scores()) as llm,
        Proxy(tmp_path, QUICK | llm.env | remote(candidate) | env) as proxy,
    ):
        eventually(lambda: status(proxy)["roles"]["candidate"]["is_ready"])
        arms = {"control": 0, "candidate": 0}
        for number in range(400):
            answer = proxy.rerank(WORDS, DOCUMENTS, headers={"x-user-id": f"user-{number}"})
            arms[answer.headers["x-rerank-arm"]] += 1
            say(proxy, answer.headers[HEADER], cited=[BEST])
            if is_bad and number % 20 == 0 and status(proxy)["rollout"]["latch"]["is_set"]:
                break
        if is_bad:
            eventually(lambda: status(proxy)["rollout"]["latch"]["is_set"], timeout_seconds=60)
            assert "misses_relative" in status(proxy)["rollout"]["latch"]["rollback"]["reason"]
        else:
            assert min(arms.values()) > 100
            assert not status(proxy)["rollout"]["latch"]["is_set"]
            assert "misses_relative" not in status(proxy)["guard"]["reason"].partition("not proved")[0]
