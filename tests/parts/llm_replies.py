"""What a language model, and the server before it, can answer: well, badly and not at all."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from tests.parts.http_server import HttpAnswer
from tests.parts.llm import LlmCall, Reply, completion

if TYPE_CHECKING:
    from collections.abc import Callable

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


def overlap(query: str, document: str) -> int:
    """Return 20 a shared word, at most 100."""
    return min(100, 20 * len(set(query.lower().split()) & set(document.lower().split())))


def scores(
    score: Callable[[str, str], float] = overlap,
    *,
    usage: dict[str, Any] | None = USAGE,
    before: str = "",
    after: str = "",
    finish_reason: str = "stop",
) -> Reply:
    """Score every document; *before* and *after* are chatter around the JSON, no *usage* is left out."""

    def reply(call: LlmCall) -> HttpAnswer:
        content = before + json.dumps(_scores(call, score)) + after
        return _json(completion(content, finish_reason=finish_reason, usage=usage))

    return reply


def content(text: str | None, *, finish_reason: str = "stop", refusal: str | None = None) -> Reply:
    """Say *text* where the scores should be."""
    return lambda _: _json(completion(text, finish_reason=finish_reason, refusal=refusal, usage=USAGE))


def garbage() -> Reply:
    return content("I could not find anything relevant, sorry!")


def cut_json() -> Reply:
    """Break off in the middle of the scores, and claim to be done."""
    return _rewritten(lambda text: text[: len(text) // 2])


def cut_off() -> Reply:
    """Run into the limit of output tokens."""
    return content('{"0": 9', finish_reason="length")


def filtered() -> Reply:
    return content(None, finish_reason="content_filter")


def refusal() -> Reply:
    return content(None, refusal="I'm sorry, I can't help with that.")


def wrong_ids() -> Reply:
    """Score documents that do not exist."""
    return _renamed(lambda key: f"doc-{key}")


def shifted_ids() -> Reply:
    """Count from 1."""
    return _renamed(lambda key: str(int(key) + 1))


def missing_ids(count: int) -> Reply:
    """Leave out the last *count* documents."""
    return lambda call: _json(completion(json.dumps(dict([*_scores(call, overlap).items()][:-count])), usage=USAGE))


def doubled_ids() -> Reply:
    """Score the first document twice, the second time with 1."""
    return _rewritten(lambda text: text[:-1] + ', "0": 1}')


def delayed(seconds: float, reply: Reply) -> Reply:
    """Take *seconds* for it."""

    def late(call: LlmCall) -> HttpAnswer:
        time.sleep(seconds)
        return reply(call)

    return late


def error(status: int, code: str | None = None, *, retry_after: str | None = None) -> Reply:
    """Fail as OpenAI's servers do."""
    body = {"error": {"message": f"error {status}", "type": "invalid_request_error", "param": None, "code": code}}
    headers = {"retry-after": retry_after} if retry_after is not None else {}
    return lambda _: _json(body, status, headers)


def rate_limited(retry_after: str = "1") -> Reply:
    return error(429, "rate_limit_exceeded", retry_after=retry_after)


def unknown_model() -> Reply:
    return error(404, "model_not_found")


def wrong_key() -> Reply:
    return error(401, "invalid_api_key")


def no_completion() -> Reply:
    """Answer 200 with a page that is no JSON, as a gateway in between may."""
    return lambda _: HttpAnswer(200, b"<html>It works!</html>", {"content-type": "text/html"})


def odd_completion() -> Reply:
    """Answer 200 with JSON in which nothing is where it should be."""
    return lambda _: _json({"choices": [{"message": {"content": ["?"]}}, 7], "usage": "many"})


def torn() -> Reply:
    """Close the connection in the middle of the answer."""

    def reply(call: LlmCall) -> HttpAnswer:
        whole = _json(completion(json.dumps(_scores(call, overlap)), usage=USAGE))
        return HttpAnswer(whole.status, whole.body, whole.headers, sent_bytes=len(whole.body) // 2)

    return reply


def _scores(call: LlmCall, score: Callable[[str, str], float]) -> dict[str, float]:
    return {key: score(call.query, document) for key, document in call.documents.items()}


def _renamed(rename: Callable[[str], str]) -> Reply:
    def reply(call: LlmCall) -> HttpAnswer:
        found = {rename(key): value for key, value in _scores(call, overlap).items()}
        return _json(completion(json.dumps(found), usage=USAGE))

    return reply


def _rewritten(rewrite: Callable[[str], str]) -> Reply:
    return lambda call: _json(completion(rewrite(json.dumps(_scores(call, overlap))), usage=USAGE))


def _json(body: object, status: int = 200, headers: dict[str, str] | None = None) -> HttpAnswer:
    return HttpAnswer(status, json.dumps(body).encode(), {"content-type": "application/json", **(headers or {})})
