"""A cross-encoder behind a server, in the API of text-embeddings-inference, that can be made to fail."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.parts.http_server import HttpAnswer, HttpRequest, HttpServer

if TYPE_CHECKING:
    from collections.abc import Callable


class CrossEncoderServer:
    """Ranks by words in common, unless a test writes the answer."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.fault: Callable[[dict[str, Any]], HttpAnswer] | None = None
        self.server = HttpServer(self._answer, host)

    def _answer(self, request: HttpRequest) -> HttpAnswer:
        if request.path == "/health":
            return HttpAnswer(200)
        if request.path == "/info":
            return json_answer({"model_id": "scripted", "max_client_batch_size": 32})
        body = json.loads(request.body)
        return self.fault(body) if self.fault else json_answer(by_words(body))


def by_words(body: dict[str, Any]) -> list[dict[str, float]]:
    wanted = set(body["query"].split())
    return [{"index": i, "score": len(wanted & set(text.split()))} for i, text in enumerate(body["texts"])]


def json_answer(body: object, status: int = 200, **headers: str) -> HttpAnswer:
    return HttpAnswer(status, json.dumps(body).encode(), {"content-type": "application/json", **headers})
