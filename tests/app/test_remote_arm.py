"""The remote arm against servers that are small, full or wrong, over real sockets."""

from __future__ import annotations

import asyncio
import json
import math
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import pytest

from proxy.arms.remote import RemoteArm
from proxy.attempts import BoundArm, Trier
from proxy.breaker import Breaker
from proxy.errors import BackendError, DeadlineExceeded, InvalidAnswer, InvalidScores, Overloaded
from proxy.exposure import Outcome, Role
from proxy.settings import RemoteBackend

if TYPE_CHECKING:
    from collections.abc import Callable


class Tei:
    """A server that answers ``/rerank`` as told."""

    def __init__(self, answer: Callable[[dict[str, Any]], tuple[int, Any, dict[str, str]]], batch: int = 32) -> None:
        self.asked: list[dict[str, Any]] = []
        self.health = 200
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/health":
                    self._send(owner.health, {}, {})
                else:
                    self._send(200, {"model_id": "tiny", "max_client_batch_size": batch}, {})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                owner.asked.append(body)
                self._send(*answer(body))

            def _send(self, status: int, body: Any, headers: dict[str, str]) -> None:
                content = body if isinstance(body, bytes) else json.dumps(body).encode()
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None:
                """Keep quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def by_length(body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
    texts = body["texts"]
    return 200, [{"index": i, "score": float(len(text))} for i, text in reversed(list(enumerate(texts)))], {}


async def ask(
    server: Tei, texts: list[str], *, seconds: float = 5.0, max_tokens: int | None = None, **settings: Any
) -> tuple[float, ...]:
    arm = RemoteArm(RemoteBackend(api="tei", base_url=server.url, **settings))
    await arm.start()
    try:
        answer = await arm.score("q", texts, deadline=time.monotonic() + seconds, max_document_tokens=max_tokens)
    finally:
        await arm.close()
    return answer.logits


async def test_a_batch_over_the_servers_limit_is_split_and_put_together_again() -> None:
    texts = ["x" * (i % 7 + 1) for i in range(10)]
    with Tei(by_length, batch=4) as server:
        assert await ask(server, texts) == tuple(float(len(text)) for text in texts)
    assert sorted(len(body["texts"]) for body in server.asked) == [2, 4, 4]
    assert all(body["raw_scores"] is True for body in server.asked)


LONG = "word " * 600


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        pytest.param({}, 600, id="by the server"),
        pytest.param({"tokenizer": "shipped"}, 512, id="by a tokenizer of ours"),
        pytest.param({"max_tokens": 100}, 100, id="where the caller says so"),
        pytest.param({"tokenizer": "shipped", "max_tokens": 100}, 100, id="by the tighter of both"),
    ],
)
async def test_long_documents_are_cut(asked: dict[str, Any], sent: int) -> None:
    with Tei(by_length) as server:
        await ask(server, ["short", LONG], **asked)
    [body] = server.asked
    assert body["truncate"] is True
    assert [len(text.split()) for text in body["texts"]] == [1, sent]


async def test_a_full_server_is_waited_for_within_the_deadline() -> None:
    left = iter([2, 1])

    def full(body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        return (429, {"error": "full"}, {"retry-after": "0.05"}) if next(left, 0) else by_length(body)

    with Tei(full) as server:
        assert await ask(server, ["a"]) == (1.0,)
    assert len(server.asked) == 3


async def test_a_server_that_stays_full_fails_before_the_deadline() -> None:
    with Tei(lambda _: (429, {}, {"retry-after": "30"})) as server, pytest.raises(BackendError, match="full"):
        await ask(server, ["a"], seconds=2)


async def test_a_full_server_can_be_passed_on_to_the_caller() -> None:
    with Tei(lambda _: (429, {}, {"retry-after": "7"})) as server, pytest.raises(Overloaded) as caught:
        await ask(server, ["a"], on_overload="pass")
    assert caught.value.retry_after_seconds == 7


@pytest.mark.parametrize(
    "answer",
    [
        b"no json",
        {"results": []},
        [],
        [{"index": 0, "score": 1.0}],
        [{"index": 0, "score": 1.0}, {"index": 0, "score": 2.0}],
        [{"index": 0, "score": 1.0}, {"index": 2, "score": 2.0}],
        [{"index": 0, "score": 1.0}, {"index": 1, "score": 1.0}, {"index": 1, "score": 1.0}],
        [{"index": 0, "score": None}, {"index": 1, "score": 1.0}],
    ],
    ids=["no json", "other shape", "empty", "one short", "doubled", "invented", "one over", "null"],
)
async def test_an_answer_that_is_no_ranking_is_refused(answer: Any) -> None:
    with Tei(lambda _: (200, answer, {})) as server, pytest.raises(InvalidAnswer):
        await ask(server, ["a", "b"])


APIS = ["tei", "infinity", "vllm", "cohere", "jina"]


def scores_of(*scores: float) -> Callable[[dict[str, Any]], tuple[int, Any, dict[str, str]]]:
    """Answer with these scores, in the shape of every server at once."""
    results = [{"index": i, "score": s, "relevance_score": s} for i, s in enumerate(scores)]
    return lambda body: (200, results if "texts" in body else {"results": results}, {})


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
async def test_a_score_that_is_not_finite_is_refused(api: str, score: float) -> None:
    with Tei(scores_of(0.5, score)) as server:
        arm = RemoteArm(RemoteBackend(api=api, base_url=server.url))  # type: ignore[arg-type]
        await arm.start()
        with pytest.raises(InvalidScores):
            await arm.score("q", ["a", "b"], deadline=time.monotonic() + 5)
        bound = BoundArm(arm, "remote", Breaker(5, 10))
        tried = await Trier({Role.CANDIDATE: bound}).try_arm(
            Role.CANDIDATE, "q", ["a", "b"], deadline=time.monotonic() + 5, max_document_tokens=None
        )
        assert tried.outcome is Outcome.INVALID
        await arm.close()


@pytest.mark.parametrize("api", ["vllm", "cohere", "jina"])
async def test_scores_that_cannot_be_probabilities_are_read_as_logits_in_their_order(api: str) -> None:
    with Tei(scores_of(7.5, 0.4, 5.1, -2.0)) as server:
        arm = RemoteArm(RemoteBackend(api=api, base_url=server.url))  # type: ignore[arg-type]
        await arm.start()
        answer = await arm.score("q", ["a", "b", "c", "d"], deadline=time.monotonic() + 5)
        await arm.close()
    assert answer.logits == (7.5, 0.4, 5.1, -2.0)
    assert answer.probabilities == pytest.approx([1 / (1 + math.exp(-z)) for z in answer.logits])


async def test_probabilities_are_served_as_they_are() -> None:
    with Tei(scores_of(1.0000000001, 0.25, 0.0)) as server:
        arm = RemoteArm(RemoteBackend(api="cohere", base_url=server.url))
        await arm.start()
        answer = await arm.score("q", ["a", "b", "c"], deadline=time.monotonic() + 5)
        await arm.close()
    assert answer.probabilities == (1.0, 0.25, 0.0)


async def test_calls_that_were_answered_are_paid_for_when_another_one_fails() -> None:
    def third_fails(body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        if body["texts"] == ["c"]:
            time.sleep(0.3)
            return 500, {}, {}
        return by_length(body)

    with Tei(third_fails, batch=1) as server, pytest.raises(BackendError) as caught:
        await ask(server, ["a", "b", "c"], dollars_per_search=0.002)
    assert caught.value.usage is not None
    assert caught.value.usage.cost_dollars == pytest.approx(0.004)


async def test_a_call_that_fails_leaves_no_other_running() -> None:
    def first_fails(body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        if body["texts"] == ["a"]:
            return 500, {}, {}
        time.sleep(0.5)
        return by_length(body)

    with Tei(first_fails, batch=1) as server:
        arm = RemoteArm(RemoteBackend(api="tei", base_url=server.url))
        await arm.start()
        before = asyncio.all_tasks()
        with pytest.raises(BackendError):
            await arm.score("q", ["a", "b", "c"], deadline=time.monotonic() + 5)
        assert asyncio.all_tasks() == before
        await arm.close()


async def test_a_server_that_is_away_is_not_well_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proxy.arms.remote_health._PROBE_SECONDS", 0.02)
    with Tei(lambda _: (500, {}, {}), batch=7) as server:
        server.health = 503
        arm = RemoteArm(RemoteBackend(api="tei", base_url=server.url))
        await arm.start()
        assert (arm.is_ready, arm.is_well) == (True, False)
        server.health = 200
        await until(lambda: arm.is_well)
        assert (arm.model, arm._batch) == ("tiny/tei", 7)
        server.health = 503
        with pytest.raises(BackendError):
            await arm.score("q", ["a"], deadline=time.monotonic() + 5)
        await until(lambda: not arm.is_well)
        await arm.close()


async def test_a_request_that_fails_does_not_make_a_healthy_server_look_down() -> None:
    with Tei(lambda _: (500, {}, {})) as server:
        arm = RemoteArm(RemoteBackend(api="tei", base_url=server.url))
        await arm.start()
        for _ in range(3):
            with pytest.raises(BackendError):
                await arm.score("q", ["a"], deadline=time.monotonic() + 5)
            await asyncio.sleep(0.05)
            assert arm.is_well
        await arm.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not holds():  # noqa: ASYNC110 - what is waited for happens in a server's thread
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("status", [400, 424, 500, 503])
async def test_an_error_of_the_server_is_a_failure_of_the_arm(status: int) -> None:
    with Tei(lambda _: (status, {"error": "secret words"}, {})) as server, pytest.raises(BackendError) as caught:
        await ask(server, ["a"])
    assert "secret" not in str(caught.value)


async def test_a_server_that_is_slow_is_given_up_at_the_deadline() -> None:
    def slow(body: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        time.sleep(1.0)
        return by_length(body)

    with Tei(slow) as server:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await ask(server, ["a"], seconds=0.2)
        assert time.monotonic() - began < 0.8


async def test_a_server_that_is_away_fails_at_once_and_may_come_up_later() -> None:
    arm = RemoteArm(RemoteBackend(api="tei", base_url="http://127.0.0.1:1"))
    await arm.start()
    with pytest.raises(BackendError, match="cannot be reached"):
        await arm.score("q", ["a"], deadline=time.monotonic() + 5)
    await arm.close()
