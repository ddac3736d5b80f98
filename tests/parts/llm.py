"""An OpenAI-compatible server over real sockets, whose answers a test writes call by call."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Self

import msgspec

from tests.parts.http_server import HttpAnswer, HttpRequest, HttpServer


class LlmCall(msgspec.Struct, frozen=True):
    """One call as it came in."""

    body: dict[str, Any]
    headers: dict[str, str]
    query: str
    documents: dict[str, str]
    """By the ids that the answer is to use: "0", "1", ..."""


Reply = Callable[[LlmCall], HttpAnswer]


class ScriptedLlm:
    """Answers the next calls by the replies it was given, each once, and all others by `always`.

    See tests/parts/llm_replies.py for what there is to answer.
    """

    def __init__(self, always: Reply) -> None:
        self.always = always
        self.calls: list[LlmCall] = []
        self._next: deque[Reply] = deque()
        self._lock = threading.Lock()
        self._server = HttpServer(self._answer)
        self.base_url = f"http://127.0.0.1:{self._server.port}/v1"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    @property
    def env(self) -> dict[str, str]:
        """The variables that send a proxy's ``gpt`` back end here."""
        return {"OPENAI_BASE_URL": self.base_url, "OPENAI_API_KEY": "sk-of-the-tests"}

    def next(self, *replies: Reply) -> None:
        """Answer the next calls like this, one each."""
        with self._lock:
            self._next.extend(replies)

    def _answer(self, request: HttpRequest) -> HttpAnswer:
        if request.method != "POST" or not request.path.endswith("/chat/completions"):
            return HttpAnswer(404, b'{"error": {"message": "no such route"}}', {"content-type": "application/json"})
        body = json.loads(request.body)
        asked = json.loads(body["messages"][-1]["content"])
        call = LlmCall(body, request.headers, asked["query"], asked["documents"])
        with self._lock:
            self.calls.append(call)
            reply = self._next.popleft() if self._next else self.always
        return reply(call)


def completion(
    content: str | None,
    *,
    finish_reason: str = "stop",
    refusal: str | None = None,
    usage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the body of a chat completion."""
    body: dict[str, Any] = {
        "id": "chatcmpl-of-the-tests",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "finish_reason": finish_reason,
                "message": {"role": "assistant", "content": content, "refusal": refusal},
            }
        ],
    }
    return body if usage is None else body | {"usage": usage}
