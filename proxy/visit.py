"""One HTTP request as its caller sees it: the id, and what every answer says beside its body."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any, Protocol, cast
from urllib.parse import quote
from uuid import uuid4

from litestar.utils.path import normalize_path

from proxy.wire.detect import TEI

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from litestar.types import ASGIApp, HTTPScope, Message, Receive, Scope, Send

    from proxy.errors import ProxyError
    from proxy.exposure import Attempt, Exposure

_REQUEST_ID = re.compile(rb"[\w.:\-]{1,128}")
_NOT_ANSWERED = 499
_ON_CUDA = "-cuda"
"""How the name of an engine on a GPU ends."""


class Speaker(Protocol):
    """A dialect as far as failures go."""

    name: str

    def write_error(self, error: ProxyError, request_id: str) -> tuple[int, object]:
        """Return status and body of a failure."""


class Visit:
    """What is known of one request by the time it is answered."""

    def __init__(self, scope: HTTPScope) -> None:
        self.began = time.perf_counter()
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        self.request_id = given.decode() if _REQUEST_ID.fullmatch(given) else uuid4().hex
        """The caller's own, or one made here."""
        self.method: str = scope["method"]
        self.scheme: str = scope["scheme"]
        self.route: str | None = None
        """The path, where it is one of ours."""
        self.status = _NOT_ANSWERED
        self.speaker: Speaker | None = None
        """The dialect, once it is known."""
        self.beginning: bytes | None = None
        """The first piece of the body, once it is there."""
        self.error_code: str | None = None
        self.exposure: Exposure | None = None
        """None: refused before anybody was assigned an arm."""
        self.warnings: tuple[str, ...] = ()
        self.feedback: str | None = None
        """By what the caller may say something of the ranking later."""
        self.timings: list[tuple[str, float]] = []
        """What took how many seconds before anybody ranked."""
        self.afterwards: list[Callable[[], None]] = []
        """What is to be done once the answer is sent; returns at once and raises nothing."""

    @property
    def seconds(self) -> float:
        """How long it takes by now."""
        return time.perf_counter() - self.began

    def headers(self, *, is_ranking: bool) -> list[tuple[bytes, bytes]]:
        """Return what is added to the answer; where something ranks, who did, even if nobody did."""
        total = self.seconds * 1000
        exposure = self.exposure
        attempts = exposure.attempts if exposure else ()
        timing = [f"total;dur={total:.2f}"]
        timing += [f"{name};dur={seconds * 1000:.2f}" for name, seconds in self.timings]
        timing += [f'{a.role};dur={a.seconds * 1000:.2f};desc="{a.outcome}"' for a in attempts]
        headers = {"x-request-id": self.request_id, "server-timing": ", ".join(timing)}
        if is_ranking:
            headers |= _who(exposure)
            if self.warnings:
                headers["x-rerank-warnings"] = "; ".join(dict.fromkeys(self.warnings))
            if self.feedback is not None:
                headers["x-rerank-feedback"] = self.feedback
            if self.speaker is TEI:
                headers |= _tei_headers(total, attempts[-1] if attempts else None)
        return [(name.encode(), header_value(value)) for name, value in headers.items()]


class Visits:
    """Stands before an application: gives every request its `Visit` and every answer its headers."""

    def __init__(
        self, app: ASGIApp, paths: Iterable[str], ranking_paths: Iterable[str], note: Callable[[Visit], None]
    ) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._ranking_paths = frozenset(ranking_paths)
        self._note = note

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Take one request through the application, and note what became of it."""
        visit = Visit(cast("HTTPScope", scope))  # nothing here takes a web socket
        scope["state"]["visit"] = visit

        async def hear() -> Any:
            message = await receive()
            if visit.beginning is None:
                visit.beginning = message.get("body", b"")  # type: ignore[assignment]  # of a request, not a socket
            return message

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                visit.status, visit.route = message["status"], self._route(scope)
                is_ranking = visit.route in self._ranking_paths
                message["headers"] = [*message["headers"], *visit.headers(is_ranking=is_ranking)]
            await send(message)

        try:
            await self._app(scope, hear, answer)
        finally:
            self._note(visit)
            for follow in visit.afterwards:
                follow()

    def _route(self, scope: Scope) -> str | None:
        """Return the path as a label, from a closed set."""
        path = scope.get("path_template") or normalize_path(scope["path"])
        return path if path in self._paths else None


def visit_of(scope: Scope) -> Visit:
    """Return the visit that a request belongs to."""
    visit: Visit = scope["state"]["visit"]
    return visit


def header_value(text: str) -> bytes:
    """Return *text* as a header may hold it: percent-encoded where it is not plain ASCII."""
    return (text if text.isascii() and text.isprintable() else quote(text, safe=" /@:;,=")).encode()


def _who(exposure: Exposure | None) -> dict[str, str]:
    if exposure is None:
        return {"x-rerank-arm": "none", "x-rerank-served-by": "nobody", "x-rerank-bucket": "none"}
    assignment = exposure.assignment
    return {
        "x-rerank-arm": assignment.arm.value,
        "x-rerank-served-by": exposure.served_by.value,
        "x-rerank-bucket": "none" if assignment.bucket is None else str(assignment.bucket),
        "x-rerank-model": exposure.model,
        "x-rerank-reason": assignment.reason.value,
    }


def _tei_headers(total_ms: float, answered: Attempt | None) -> dict[str, str]:
    """Return the timings as TEI gives them, in whole milliseconds, of the attempt that answered."""
    parts = {
        "x-tokenization-time": answered.tokenize_seconds if answered else 0.0,
        "x-queue-time": answered.queue_seconds if answered else 0.0,
        "x-inference-time": answered.inference_seconds if answered else 0.0,
    }
    headers = {name: str(round(seconds * 1000)) for name, seconds in parts.items()}
    headers["x-total-time"] = headers["x-compute-time"] = str(round(total_ms))
    headers["x-compute-type"] = _compute_type(answered)
    headers["x-compute-tokens"] = str(answered.tokens if answered else 0)
    return headers


def _compute_type(answered: Attempt | None) -> str:
    if answered is None:
        return "none"
    if answered.kind != "cross-encoder":
        return "remote"
    return "gpu" if answered.model.endswith(_ON_CUDA) else "cpu"
