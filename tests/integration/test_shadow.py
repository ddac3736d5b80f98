"""Shadows over sockets: a language model as control, a reranking server or the shipped model as candidate."""

from __future__ import annotations

import os
import subprocess
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.conftest import require_part
from tests.integration.pages import metric, samples, status
from tests.parts import llm_replies
from tests.parts.callers import QUICK
from tests.parts.cross_encoder import CrossEncoderServer, by_words, json_answer
from tests.parts.llm import ScriptedLlm
from tests.parts.programs import eventually
from tests.parts.redis_server import RedisServer, is_redis_here
from tests.running import ROOT, Proxy, user_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.parts.http_server import HttpAnswer

CANDIDATE, CONTROL = ({"x-user-id": user_of(arm)} for arm in ("candidate", "control"))
WORDS = "vaccines virus immune system cells blood nine"
DOCUMENTS = [" ".join(WORDS.split()[:count]) for count in (3, 1, 7, 5, 2, 6, 4)]
"""Seven with another number of the query's words each; the LLM scores as many words, 20 points each up to 100."""
ALL = {
    **QUICK,
    "RERANK_CANARY__SHADOW__IS_ON": "true",
    "RERANK_CANARY__SHADOW__CONTROL_PERCENT": "100",
    "RERANK_CANARY__SHADOW__CANDIDATE_PERCENT": "100",
}
WAIT = 30.0


def reversed_order(body: dict[str, Any]) -> HttpAnswer:
    return json_answer([{**each, "score": -each["score"]} for each in by_words(body)])


def remote(server: CrossEncoderServer) -> dict[str, str]:
    return {
        "RERANK_CANARY__BACKENDS__CE__KIND": "remote",
        "RERANK_CANARY__BACKENDS__CE__API": "tei",
        "RERANK_CANARY__BACKENDS__CE__BASE_URL": f"http://127.0.0.1:{server.server.port}",
        "RERANK_CANARY__ARMS__CANDIDATE": "ce",
    }


@pytest.fixture(scope="module")
def candidate() -> Iterator[CrossEncoderServer]:
    made = CrossEncoderServer()
    with made.server:
        yield made


@pytest.fixture(scope="module")
def dark(candidate: CrossEncoderServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy whose candidate has no user: both arms are servers that go by the words in common."""
    with ScriptedLlm(llm_replies.scores()) as llm:
        env = ALL | llm.env | remote(candidate) | {"RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "0"}
        with Proxy(tmp_path_factory.mktemp("dark"), env) as proxy:
            yield proxy


def ask(proxy: Proxy, headers: dict[str, str]) -> None:
    response = proxy.rerank(WORDS, DOCUMENTS, headers=headers)
    assert response.status_code == 200, response.text


def overlap(proxy: Proxy, name: str) -> tuple[float, float]:
    """Return the sum and the count of one measure."""
    found = {
        kind: sum(
            s.value
            for s in samples(proxy, f"rerank_overlap_{kind}")
            if s.labels["rerank_overlap_metric"] == name and s.labels["rerank_arm"] == "control"
        )
        for kind in ("sum", "count")
    }
    return found["sum"], found["count"]


def pairs_of(proxy: Proxy) -> int:
    found: int = status(proxy)["shadow"]["overlap_at_5"]["pairs"]
    return found


def mean_of_next(proxy: Proxy, name: str, count: int = 5) -> float:
    """Ask a few times, and return the mean of a measure over their shadows."""
    total, before = overlap(proxy, name)
    for number in range(count):
        ask(proxy, {"x-user-id": f"user-{number}"})
    eventually(lambda: overlap(proxy, name)[1] == before + count, timeout_seconds=WAIT)
    return (overlap(proxy, name)[0] - total) / count


def test_a_candidate_without_users_is_seen_to_agree_and_then_not_to(dark: Proxy, candidate: CrossEncoderServer) -> None:
    candidate.fault = None
    assert mean_of_next(dark, "overlap_at_5") == pytest.approx(1)
    assert mean_of_next(dark, "rbo") > 0.9
    candidate.fault = reversed_order
    assert mean_of_next(dark, "overlap_at_5") == pytest.approx(3 / 5)  # of seven, three are in both middles
    assert mean_of_next(dark, "top_1") == 0
    candidate.fault = None
    assert {s.labels["rerank_arm"] for s in samples(dark, "rerank_requests_total")} == {"control"}


def test_a_shadow_that_hangs_delays_nobody(dark: Proxy, candidate: CrossEncoderServer) -> None:
    released = threading.Event()

    def hangs(body: dict[str, Any]) -> HttpAnswer:
        released.wait(WAIT)
        return json_answer(by_words(body))

    candidate.fault = hangs
    pairs = pairs_of(dark)
    for number in range(4):
        ask(dark, {"x-user-id": f"user-{number}"})
    eventually(lambda: status(dark)["shadow"]["under_way"] == 4, timeout_seconds=WAIT)
    assert pairs_of(dark) == pairs
    released.set()
    eventually(lambda: pairs_of(dark) == pairs + 4, timeout_seconds=WAIT)
    candidate.fault = None


def test_the_status_command_says_what_shadows_came_to(dark: Proxy) -> None:
    ask(dark, CONTROL)
    eventually(lambda: pairs_of(dark) > 0, timeout_seconds=WAIT)
    done = subprocess.run(
        [str(ROOT / ".venv/bin/rerank-canary"), "status", "--url", dark.control_url],
        env={"PATH": os.environ["PATH"], "COLUMNS": "200", "RERANK_CANARY__DATA_DIR": str(dark.folder / "var")},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    [line] = [line for line in done.stdout.splitlines() if line.startswith("shadow")]
    assert "in the last minute" in line
    assert "of $1 this hour" in line
    assert "overlap@5" in line


def test_a_candidate_that_shadows_found_bad_in_the_dark_is_out_again_at_its_first_user(
    candidate: CrossEncoderServer, tmp_path: Path
) -> None:
    """Nobody has it, so nothing is rolled back; but it is said, and whoever ramps it all the same is not let down."""
    env = {
        "RERANK_CANARY__GUARD__IS_ON": "true",
        "RERANK_CANARY__SHADOW__EXPECTED_OVERLAP": "0.95",
        "RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "0",
    }
    candidate.fault = reversed_order
    with (
        ScriptedLlm(llm_replies.scores()) as llm,
        Proxy(tmp_path / "proxy", ALL | llm.env | remote(candidate) | env) as proxy,
    ):
        for number in range(120):
            ask(proxy, {"x-user-id": f"user-{number}"})
        reason = "nobody has the candidate, and it would be rolled back: overlap"
        eventually(lambda: status(proxy)["guard"]["reason"] == reason, timeout_seconds=2 * WAIT)
        assert not status(proxy)["rollout"]["latch"]["is_set"]
        token = (proxy.folder / "var/control.token").read_text().strip()
        order = {"share_percent": 5, "reason": "a test", "force": True}
        answer = httpx.post(f"{proxy.control_url}/ramp", json=order, headers={"Authorization": f"Bearer {token}"})
        assert answer.is_success, answer.text
        eventually(lambda: status(proxy)["rollout"]["latch"]["is_set"], timeout_seconds=WAIT)
        assert status(proxy)["rollout"]["latch"]["rollback"]["actor"] == "guard"
        shadows = metric(proxy, "rerank_shadow_requests_total")
        ask(proxy, CONTROL)
        eventually(lambda: status(proxy)["shadow"]["skipped"].get("rolled_back"), timeout_seconds=WAIT)
        assert metric(proxy, "rerank_shadow_requests_total") == shadows
    candidate.fault = None


def test_a_shutdown_waits_for_no_shadow(tmp_path: Path) -> None:
    released = threading.Event()
    candidate = CrossEncoderServer()

    def hangs(body: dict[str, Any]) -> HttpAnswer:
        released.wait(60)
        return json_answer(by_words(body))

    candidate.fault = hangs
    env = {"RERANK_CANARY__FLAG__INITIAL_SHARE_PERCENT": "0", "RERANK_CANARY__SHADOW__DEADLINE_SECONDS": "3600"}
    with candidate.server, ScriptedLlm(llm_replies.scores()) as llm:
        proxy = Proxy(tmp_path / "proxy", ALL | llm.env | remote(candidate) | env)
        with proxy:
            ask(proxy, CONTROL)
            eventually(lambda: status(proxy)["shadow"]["under_way"] == 1, timeout_seconds=WAIT)
            assert proxy.stop() == 0
        released.set()


def test_the_shipped_model_twice_reads_one(tmp_path: Path) -> None:
    arms = {f"RERANK_CANARY__ARMS__{role}": "cross-encoder" for role in ("CONTROL", "CANDIDATE", "FALLBACK")}
    with Proxy(tmp_path / "proxy", ALL | arms) as proxy:
        for name in ("overlap_at_5", "rbo", "top_1"):
            assert mean_of_next(proxy, name) == pytest.approx(1)
        assert metric(proxy, "rerank_shadow_skipped_total") == 0


@pytest.mark.part("redis")
def test_what_one_replica_spends_on_shadows_binds_the_other(tmp_path: Path) -> None:
    require_part("redis-server", found=is_redis_here())
    with RedisServer(tmp_path / "redis") as redis, ScriptedLlm(llm_replies.scores()) as llm:
        budget = {"RERANK_CANARY__SHADOW__MAX_DOLLARS_PER_HOUR": "0.0006"}
        env = ALL | llm.env | {"REDIS_URL": redis.url} | budget
        with Proxy(tmp_path / "a", env) as first, Proxy(tmp_path / "b", env) as second:
            for number in range(3):  # 0.00021 dollars each
                ask(first, CANDIDATE)
                done = number + 1
                eventually(lambda done=done: pairs_of(first) == done, timeout_seconds=WAIT)  # type: ignore[misc]
            eventually(lambda: status(second)["shadow"]["is_budget_spent"], timeout_seconds=WAIT)
            calls = len(llm.calls)
            ask(second, CANDIDATE)
            eventually(lambda: status(second)["shadow"]["skipped"] == {"budget": 1}, timeout_seconds=WAIT)
            assert len(llm.calls) == calls
            assert status(second)["fallback"]["last_hour"]["microdollars"] == 0
            assert not status(second)["fallback"]["budget_exceeded"]
