"""DESIGN's table of failures, over sockets: a language model and a cross-encoder that fail in every way there is.

The language model scores the documents in the order received, the cross-encoder by how many of the query's
words they have, so that an order tells who made it.
"""

from __future__ import annotations

import itertools
import json
import math
import time
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.pages import metric, samples, status
from tests.parts import llm_replies as llm_says
from tests.parts.cross_encoder import CrossEncoderServer, by_words, json_answer
from tests.parts.http_server import HttpAnswer
from tests.parts.llm import ScriptedLlm
from tests.running import Proxy, user_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import httpx

    from tests.parts.llm import Reply

CANDIDATE, CONTROL = ({"x-user-id": user_of(arm)} for arm in ("candidate", "control"))
QUERY = "vaccines virus immune"
DOCUMENTS = ["stock prices fell", "flour and milk", "vaccines and virus", "vaccines virus immune system"]
BY_LLM, BY_CROSS_ENCODER = [0, 1, 2, 3], [3, 2]
"""The order of the first is a whole one; of the second the two documents that matter come first."""
DEADLINE = {
    "RERANK_CANARY__DEADLINE__TOTAL_SECONDS": "2.0",
    "RERANK_CANARY__DEADLINE__CANDIDATE_SECONDS": "0.6",
    "RERANK_CANARY__DEADLINE__RESERVE_SECONDS": "1.0",
}
PATIENT = {"RERANK_CANARY__FALLBACK__BREAKER_FAILURES": "1000"}
TEI = '[backends.cross-encoder]\nkind = "remote"\napi = "tei"\nbase_url = "http://127.0.0.1:{port}"\n'


def in_the_order_received(_: str, document: str) -> float:
    return 90.0 - 20 * DOCUMENTS.index(document)


WELL = llm_says.scores(in_the_order_received)


@pytest.fixture(scope="module")
def llm() -> Iterator[ScriptedLlm]:
    with ScriptedLlm(WELL) as started:
        yield started


@pytest.fixture(scope="module")
def proxy(llm: ScriptedLlm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy with the language model as control and fallback, and its own cross-encoder."""
    with Proxy(tmp_path_factory.mktemp("fallback"), DEADLINE | PATIENT | llm.env) as started:
        yield started


def ask(proxy: Proxy, headers: dict[str, str], **fields: Any) -> httpx.Response:
    return proxy.rerank(QUERY, DOCUMENTS, headers=headers, **fields)


def order(response: httpx.Response) -> list[int]:
    return [result["index"] for result in response.json()["results"]]


def warnings(response: httpx.Response) -> str:
    return " | ".join(response.json()["meta"].get("warnings", []))


def fallbacks(proxy: Proxy, arm: str, reason: str) -> float:
    wanted = {"rerank_arm": arm, "rerank_fallback_reason": reason}
    return sum(s.value for s in samples(proxy, "rerank_fallbacks_total") if wanted.items() <= s.labels.items())


def is_whole(response: httpx.Response) -> bool:
    """Tell whether every document is there once, each score finite, in [0, 1] and not above the one before it."""
    results = response.json()["results"]
    scores = [result["relevance_score"] for result in results]
    in_order = all(a >= b for a, b in itertools.pairwise(scores))
    return sorted(order(response)) == [0, 1, 2, 3] and in_order and all(0 <= s <= 1 for s in scores)


@pytest.mark.parametrize(
    ("reply", "outcome"),
    [
        pytest.param(llm_says.delayed(4, WELL), "timeout", id="delay"),
        pytest.param(llm_says.rate_limited(), "error", id="429"),
        pytest.param(llm_says.error(500), "error", id="500"),
        pytest.param(llm_says.error(503, retry_after="60"), "error", id="503"),
        pytest.param(llm_says.wrong_key(), "error", id="401"),
        pytest.param(llm_says.unknown_model(), "error", id="404"),
        pytest.param(llm_says.garbage(), "invalid", id="garbage"),
        pytest.param(llm_says.cut_json(), "invalid", id="cut JSON"),
        pytest.param(llm_says.cut_off(), "invalid", id="cut off"),
        pytest.param(llm_says.filtered(), "invalid", id="filtered"),
        pytest.param(llm_says.refusal(), "invalid", id="refusal"),
        pytest.param(llm_says.wrong_ids(), "invalid", id="wrong ids"),
        pytest.param(llm_says.missing_ids(3), "invalid", id="missing ids"),
        pytest.param(llm_says.no_completion(), "invalid", id="a web page"),
        pytest.param(llm_says.odd_completion(), "invalid", id="odd JSON"),
        pytest.param(llm_says.torn(), "error", id="torn connection"),
    ],
)
def test_a_language_model_that_fails_is_answered_by_the_cross_encoder(
    proxy: Proxy, llm: ScriptedLlm, reply: Reply, outcome: str
) -> None:
    before = fallbacks(proxy, "control", outcome)
    llm.next(reply)
    began = time.monotonic()
    response = ask(proxy, CONTROL)
    assert (response.status_code, time.monotonic() - began < 2.5) == (200, True)
    assert (response.headers["x-rerank-arm"], response.headers["x-rerank-served-by"]) == ("control", "candidate")
    assert is_whole(response)
    assert order(response)[:2] == BY_CROSS_ENCODER
    assert "answered by the candidate: the control arm" in warnings(response)
    assert fallbacks(proxy, "control", outcome) == before + 1


@pytest.mark.parametrize(
    ("reply", "repair"),
    [
        pytest.param(
            llm_says.scores(in_the_order_received, before="Sure!\n```json\n", after="\n```"), None, id="chatter"
        ),
        pytest.param(llm_says.scores(lambda q, d: 3 * in_the_order_received(q, d)), None, id="scores out of range"),
        pytest.param(llm_says.scores(in_the_order_received, usage=None), None, id="no usage"),
    ],
)
def test_an_answer_that_can_be_read_is_served(proxy: Proxy, llm: ScriptedLlm, reply: Reply, repair: str | None) -> None:
    llm.next(reply)
    response = ask(proxy, CONTROL)
    assert response.headers["x-rerank-served-by"] == "control"
    assert is_whole(response)
    assert order(response)[-1] == 3
    assert repair is None or repair in warnings(response)


@pytest.mark.parametrize(
    ("reply", "repair"),
    [
        pytest.param(llm_says.missing_ids(1), "left out: 1", id="one missing"),
        pytest.param(llm_says.doubled_ids(), "scored twice: 1", id="one doubled"),
        pytest.param(llm_says.shifted_ids(), "invented: 1", id="counted from 1"),
    ],
)
def test_an_answer_that_is_nearly_right_is_repaired_and_says_so(
    proxy: Proxy, llm: ScriptedLlm, reply: Reply, repair: str
) -> None:
    documents = [f"document {i}" for i in range(20)]
    llm.next(reply)
    response = proxy.rerank(QUERY, documents, headers=CONTROL)
    assert response.headers["x-rerank-served-by"] == "control"
    assert sorted(order(response)) == list(range(20))
    assert repair in warnings(response)


def test_a_language_model_that_is_gone_is_answered_by_the_cross_encoder(proxy: Proxy, llm: ScriptedLlm) -> None:
    llm.stop()
    try:
        response = ask(proxy, CONTROL)
    finally:
        llm.start()
    assert response.headers["x-rerank-served-by"] == "candidate"
    assert ask(proxy, CONTROL).headers["x-rerank-served-by"] == "control"


@pytest.fixture(scope="module")
def cross_encoder() -> Iterator[CrossEncoderServer]:
    made = CrossEncoderServer()
    with made.server:
        yield made


@pytest.fixture(scope="module")
def remote(
    llm: ScriptedLlm, cross_encoder: CrossEncoderServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    """Return a proxy whose cross-encoder is a server, which can be broken."""
    config = TEI.format(port=cross_encoder.server.port)
    with Proxy(tmp_path_factory.mktemp("remote"), DEADLINE | PATIENT | llm.env, config=config) as started:
        yield started


def _late(body: dict[str, Any]) -> HttpAnswer:
    time.sleep(1.5)
    return json_answer(by_words(body))


def _with_score(score: float) -> Callable[[dict[str, Any]], HttpAnswer]:
    return lambda body: json_answer([*by_words(body)[:-1], {"index": 3, "score": score}])


@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        pytest.param(_late, "timeout", id="delay"),
        pytest.param(lambda _: json_answer({"error": "boom"}, 500), "error", id="500"),
        pytest.param(lambda _: json_answer({"error": "full"}, 429, **{"retry-after": "9"}), "error", id="429"),
        pytest.param(lambda _: HttpAnswer(200, b"<html>"), "invalid", id="garbage"),
        pytest.param(lambda body: json_answer(by_words(body)[1:]), "invalid", id="missing"),
        pytest.param(
            lambda body: json_answer([*by_words(body)[1:], {"index": 9, "score": 1}]), "invalid", id="invented"
        ),
        pytest.param(_with_score(math.nan), "invalid", id="NaN"),
        pytest.param(_with_score(math.inf), "invalid", id="infinite"),
        pytest.param(
            lambda body: HttpAnswer(200, json.dumps(by_words(body)).encode(), sent_bytes=9), "error", id="torn"
        ),
    ],
)
def test_a_cross_encoder_that_fails_is_answered_by_the_language_model(
    remote: Proxy, cross_encoder: CrossEncoderServer, fault: Callable[[dict[str, Any]], HttpAnswer], outcome: str
) -> None:
    assert order(ask(remote, CANDIDATE))[:2] == BY_CROSS_ENCODER
    before = fallbacks(remote, "candidate", outcome)
    cross_encoder.fault = fault
    began = time.monotonic()
    try:
        response = ask(remote, CANDIDATE)
    finally:
        cross_encoder.fault = None
    assert (response.status_code, time.monotonic() - began < 2.5) == (200, True)
    assert (response.headers["x-rerank-arm"], response.headers["x-rerank-served-by"]) == ("candidate", "fallback")
    assert is_whole(response)
    assert order(response) == BY_LLM
    assert "answered by the fallback: the candidate arm" in warnings(response)
    assert fallbacks(remote, "candidate", outcome) == before + 1


@pytest.mark.parametrize("headers", [CANDIDATE, CONTROL], ids=["candidate", "control"])
def test_when_both_fail_it_is_503_with_retry_after_and_counted(
    remote: Proxy, cross_encoder: CrossEncoderServer, llm: ScriptedLlm, headers: dict[str, str]
) -> None:
    before = metric(remote, "rerank_requests_total")
    cross_encoder.fault = lambda _: HttpAnswer(500)
    llm.next(llm_says.error(500))
    try:
        response = ask(remote, headers)
    finally:
        cross_encoder.fault = None
    assert (response.status_code, response.headers["x-rerank-served-by"]) == (503, "nobody")
    assert int(response.headers["retry-after"]) >= 1
    assert metric(remote, "rerank_requests_total") == before + 1


def test_the_order_received_is_the_last_resort_where_configured(
    llm: ScriptedLlm, cross_encoder: CrossEncoderServer, tmp_path: Path
) -> None:
    resort = {"RERANK_CANARY__FALLBACK__LAST_RESORT": "received"}
    config = TEI.format(port=cross_encoder.server.port)
    with Proxy(tmp_path, DEADLINE | PATIENT | resort | llm.env, config=config) as proxy:
        cross_encoder.fault = lambda _: HttpAnswer(500)
        llm.next(llm_says.error(500))
        try:
            response = ask(proxy, CANDIDATE)
        finally:
            cross_encoder.fault = None
    assert (response.status_code, response.headers["x-rerank-served-by"]) == (200, "received")
    assert order(response) == [0, 1, 2, 3]
    assert "not ranked" in warnings(response)


def test_a_cross_encoder_of_our_own_that_is_late_is_answered_by_the_language_model(
    llm: ScriptedLlm, tmp_path: Path
) -> None:
    hurry = {"RERANK_CANARY__DEADLINE__CANDIDATE_SECONDS": "0.0005"}
    with Proxy(tmp_path, DEADLINE | PATIENT | llm.env | hurry) as proxy:
        response = ask(proxy, CANDIDATE)
        counted = fallbacks(proxy, "candidate", "timeout")
    assert (response.headers["x-rerank-served-by"], counted) == ("fallback", 1)
    assert order(response) == BY_LLM


@pytest.fixture(scope="module")
def doubtful(llm: ScriptedLlm, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Return a proxy whose cross-encoder is never sure enough, and whose budget is 40 % of the requests."""
    doubts = {
        "LLM_FALLBACK_THRESHOLD": "0.97",
        "RERANK_CANARY__FALLBACK__MAX_SHARE": "0.4",
        "RERANK_CANARY__FALLBACK__MIN_REQUESTS": "5",
    }
    with Proxy(tmp_path_factory.mktemp("doubtful"), DEADLINE | PATIENT | llm.env | doubts) as started:
        yield started


def test_a_low_score_is_left_to_the_language_model_until_the_budget_is_spent(doubtful: Proxy, llm: ScriptedLlm) -> None:
    answers = [ask(doubtful, CANDIDATE) for _ in range(8)]
    served_by = [answer.headers["x-rerank-served-by"] for answer in answers]
    assert served_by == ["fallback"] * 5 + ["candidate"] * 3
    assert order(answers[0]) == BY_LLM
    assert order(answers[-1])[:2] == BY_CROSS_ENCODER
    assert "budget of 40% of the requests is spent" in warnings(answers[-1])
    assert status(doubtful)["fallback"]["budget_exceeded"]
    assert fallbacks(doubtful, "candidate", "low_score") == 5
    assert llm.calls


def test_a_low_score_is_served_with_a_warning_when_the_language_model_fails(llm: ScriptedLlm, tmp_path: Path) -> None:
    with Proxy(tmp_path, DEADLINE | PATIENT | llm.env | {"LLM_FALLBACK_THRESHOLD": "0.97"}) as proxy:
        llm.next(llm_says.error(500))
        response = ask(proxy, CANDIDATE)
    assert response.headers["x-rerank-served-by"] == "candidate"
    assert order(response)[:2] == BY_CROSS_ENCODER
    assert "the fallback arm failed" in warnings(response)


def test_an_arm_that_keeps_failing_is_spared_and_tried_again(
    llm: ScriptedLlm, cross_encoder: CrossEncoderServer, tmp_path: Path
) -> None:
    breaker = {"RERANK_CANARY__FALLBACK__BREAKER_FAILURES": "3", "RERANK_CANARY__FALLBACK__BREAKER_SECONDS": "1"}
    config = TEI.format(port=cross_encoder.server.port)
    with Proxy(tmp_path, DEADLINE | llm.env | breaker, config=config) as proxy:
        cross_encoder.fault = lambda _: HttpAnswer(500)
        try:
            for _ in range(4):
                assert ask(proxy, CANDIDATE).headers["x-rerank-served-by"] == "fallback"
        finally:
            cross_encoder.fault = None
        spared = fallbacks(proxy, "candidate", "breaker")
        time.sleep(1.1)
        served_by = ask(proxy, CANDIDATE).headers["x-rerank-served-by"]
    assert (spared, served_by) == (1, "candidate")
