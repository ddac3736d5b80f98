"""Whoever is told of alerts, over real sockets: a PagerDuty, a Slack, a webhook, whose answers a test writes."""

from __future__ import annotations

import json
import threading
from collections import deque
from typing import Any, Self

from tests.parts.http_server import HttpAnswer, HttpRequest, HttpServer

GARBAGE = HttpAnswer(200, b"<html>" + b"\x00\xff" * 5000)
"""What a captive portal says to everything."""


class ScriptedReceiver:
    """Answers the next requests by the answers it was given, each once, and all others by `always`."""

    def __init__(self, always: HttpAnswer) -> None:
        self.always = always
        self.requests: list[HttpRequest] = []
        self._next: deque[HttpAnswer] = deque()
        self._lock = threading.Lock()
        self._is_open = threading.Event()
        self._is_open.set()
        self._server = HttpServer(self._answer)
        self.url = f"http://127.0.0.1:{self._server.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mend()
        self.stop()

    def start(self) -> None:
        self._server.start()

    def stop(self) -> None:
        """Listen no more."""
        self._server.stop()

    def next(self, *answers: HttpAnswer) -> None:
        """Answer the next requests like this, one each."""
        with self._lock:
            self._next.extend(answers)

    def hang(self) -> None:
        """Take requests and answer none until mended."""
        self._is_open.clear()

    def mend(self) -> None:
        self._is_open.set()

    @property
    def bodies(self) -> list[Any]:
        """The requests' bodies, read as JSON."""
        return [json.loads(request.body) for request in self.requests]

    def _answer(self, request: HttpRequest) -> HttpAnswer:
        with self._lock:
            self.requests.append(request)
            answer = self._next.popleft() if self._next else self.always
        self._is_open.wait(60)
        return answer
