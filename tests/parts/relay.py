"""Stands between the proxy and a real server, and breaks its answers when told to."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

import httpx

from tests.parts.http_server import HttpAnswer, HttpRequest, HttpServer

if TYPE_CHECKING:
    from collections.abc import Callable

_OWN_HEADERS = {"host", "connection", "content-length", "transfer-encoding", "content-encoding", "keep-alive", "date"}


class Relay:
    """Passes everything on to *upstream* until it is given a fault."""

    def __init__(self, upstream: str, host: str = "127.0.0.1") -> None:
        self._client = httpx.Client(base_url=upstream, timeout=30)
        self._server = HttpServer(self._answer, host)
        self._fault: Callable[[HttpRequest], HttpAnswer] | None = None
        self._released = threading.Event()
        self.url = f"http://{host}:{self._server.port}"
        self.broken = 0
        """Requests that were answered by the fault."""

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.mend()
        self.stop()
        self._client.close()

    def start(self) -> None:
        """Listen."""
        self._server.start()

    def stop(self) -> None:
        """Listen no more, as a server that was killed."""
        self._server.stop()

    def break_with(self, answer: HttpAnswer) -> None:
        """Answer every request like this from now on."""
        self._fault = lambda _: answer

    def hang(self) -> None:
        """Answer nothing until mended."""
        self._released.clear()
        self._fault = self._wait

    def hang_changes(self) -> None:
        """Let questions through and answer no change until mended."""
        self._released.clear()
        self._fault = lambda request: self._pass_on(request) if request.method == "GET" else self._wait(request)

    def mend(self) -> None:
        self._fault = None
        self._released.set()

    def _wait(self, request: HttpRequest) -> HttpAnswer:
        self._released.wait(60)
        return self._pass_on(request)

    def _answer(self, request: HttpRequest) -> HttpAnswer:
        fault = self._fault
        if fault is None:
            return self._pass_on(request)
        self.broken += 1
        return fault(request)

    def _pass_on(self, request: HttpRequest) -> HttpAnswer:
        headers = {name: value for name, value in request.headers.items() if name not in _OWN_HEADERS}
        found = self._client.request(request.method, request.path, headers=headers, content=request.body)
        kept = {name: value for name, value in found.headers.items() if name not in _OWN_HEADERS}
        return HttpAnswer(found.status_code, found.content, kept)
