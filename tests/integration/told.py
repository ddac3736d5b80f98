"""One run with every kind of request in it, each full of words that must not be told to anybody."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import httpx
import msgspec

from flags.bucketing import bucket
from tests.parts import llm_replies
from tests.parts.http_server import HttpAnswer

if TYPE_CHECKING:
    from tests.parts.llm import LlmCall, ScriptedLlm
    from tests.running import Proxy

QUERY, DOCUMENT, SESSION, KEY = "xylophonequery", "quokkadocument", "narwhalsession", "axolotlkey"
USER = "platypus"
"""In every raw user id."""
SECRETS = (QUERY, DOCUMENT, USER, SESSION, KEY)
PARENT_TRACE, PARENT_SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


class Told(msgspec.Struct):
    """What was asked."""

    request_ids: dict[str, str] = {}
    """Of the requests that were ranked, or that an arm was to rank, by what they are about."""
    by_arm: dict[str, int] = {}
    seen_by_the_model: list[str] = []


def _echo(status: int) -> Any:
    """Return a reply that fails and quotes what it was asked, as providers do."""

    def reply(call: LlmCall) -> HttpAnswer:
        error = {"message": f"cannot rank {call.query} {json.dumps(call.documents)}", "code": call.query}
        return HttpAnswer(status, json.dumps({"error": error}).encode(), {"content-type": "application/json"})

    return reply


def _quote(call: LlmCall) -> HttpAnswer:
    return llm_replies.content(f'{{"{call.query}": "{DOCUMENT}"}} I read: {DOCUMENT}')(call)


def tell_everything(proxy: Proxy, llm: ScriptedLlm) -> Told:
    """Ask for rankings that go well, badly and not at all."""
    told = Told(by_arm={"candidate": 0, "control": 0})
    users = {arm: _user_in(arm) for arm in told.by_arm}

    def ask(about: str, arm: str, documents: list[Any], *, status: int = 200, **fields: Any) -> httpx.Response:
        headers = {
            "x-user-id": users[arm],
            "x-session-id": SESSION,
            "authorization": f"Bearer {KEY}",
            "x-request-id": f"{arm}-{len(told.request_ids)}",
            "traceparent": f"00-{PARENT_TRACE}-{PARENT_SPAN}-01" if about == "candidate" else "",
        }
        found = proxy.rerank(f"{QUERY} of cats", documents, headers=headers, **fields)
        assert found.status_code == status, f"{about}: {found.status_code} {found.text[:300]}"
        told.request_ids[about] = found.headers["x-request-id"]
        told.by_arm[arm] += 1
        return found

    sure = [f"{QUERY} of cats", f"{DOCUMENT}"]
    ask("candidate", "candidate", sure)
    ask("control", "control", sure)
    assert ask("low score", "candidate", ["mountains", DOCUMENT]).headers["x-rerank-served-by"] == "fallback"
    for number, reply in enumerate(
        (_echo(500), _echo(400), _echo(401), _quote, llm_replies.garbage(), llm_replies.torn())
    ):
        llm.next(reply)
        rescued = ask("control fails" if number == 0 else f"control fails {number}", "control", [*sure, f"{number}"])
        assert rescued.headers["x-rerank-served-by"] == "candidate"
        llm.next(llm_replies.scores())
        ask(f"control is well {number}", "control", sure)  # closes the breaker again
    llm.next(_echo(500))
    ask("the fallback fails", "candidate", ["rivers", DOCUMENT])
    ask("too long", "candidate", [f"{DOCUMENT} " * 1000], status=400, truncation=False, model="rerank-2.5")
    _ask_what_is_refused(proxy, users["candidate"])
    told.seen_by_the_model = [json.dumps(call.body) for call in llm.calls]
    return told


def _user_in(arm: str) -> str:
    """Return a raw user id that the default flag, at 5 %, gives to *arm*."""
    users = (f"{USER}-{i}" for i in range(1000))
    return next(user for user in users if (bucket("rerank-canary", user) <= 5) == (arm == "candidate"))


def _ask_what_is_refused(proxy: Proxy, user: str) -> None:
    """Send what never becomes a ranking; every part of it is full of words."""
    url = f"{proxy.url}/v1/rerank"
    headers = {"x-user-id": user, "authorization": f"Bearer {KEY}"}
    good = {"query": QUERY, "documents": [DOCUMENT]}
    for found in (
        httpx.post(url, content=f'{{"query": "{QUERY}", "documents": ["{DOCUMENT}"', headers=headers),
        httpx.post(url, json={"query": [QUERY], "documents": DOCUMENT}, headers=headers),
        httpx.post(url, json={**good, "top_n": DOCUMENT}, headers=headers),
        httpx.post(url, json={**good, "documents": [DOCUMENT] * 2000}, headers=headers),
        httpx.post(url, json=good, headers=headers | {"x-rerank-force-arm": DOCUMENT}),
        httpx.get(f"{proxy.url}/{QUERY}/{DOCUMENT}?q={QUERY}", headers=headers),
        httpx.get(f"{url}?query={QUERY}", headers=headers),
        httpx.get(f"{proxy.control_url}/status", headers=headers),
    ):
        assert found.is_client_error, found.text[:300]
