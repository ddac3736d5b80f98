"""The data plane: every dialect's paths, one way through."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol
from uuid import uuid4

import msgspec
import toktok
from litestar import MediaType, Request, Response, post

from flags.vocabulary import Arm
from proxy.arms.llm import ENCODING
from proxy.errors import InvalidRequest, ProxyError, TooManyDocuments, Unauthorized
from proxy.identity import hash_user, identify
from proxy.keys import presented_key
from proxy.secrets import hash_key
from proxy.service import Caller, Refused
from proxy.wire.detect import COHERE_V1, COHERE_V2, DIALECTS, JINA, NIM, TEI, VOYAGE, by_body, by_headers
from proxy.wire.limits import check_limits
from proxy.wire.openapi import EXAMPLES, STATUSES, error_responses, operation
from proxy.wire.score import ScoreDialect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from litestar.handlers import HTTPRouteHandler

    from proxy.exposure import Exposure
    from proxy.parts import Parts
    from proxy.wire.canonical import Dialect, RerankCall

_Answer = tuple[object, "list[Exposure]"]
_Handler = Callable[["_Entry", bytes], Awaitable[_Answer]]

SCORE = ScoreDialect()
_SMALL_BODY_BYTES = 65_536
_REQUEST_ID = re.compile(r"[\w.:\-]{1,128}")
_SHARED_PATHS = ["/v1/rerank", "/rerank", "/v1/v1/rerank", "/cohere/v1/rerank"]
_COHERE_V2_PATHS = ["/v2/rerank", "/v1/v2/rerank", "/cohere/v2/rerank"]


class _Speaker(Protocol):
    """A dialect as far as failures go."""

    def write_error(self, error: ProxyError, request_id: str) -> tuple[int, object]:
        """Return status and body of a failure."""


class _Entry:
    """What is known of a request before its body is understood."""

    def __init__(self, request: Request[Any, Any, Any], speaker: _Speaker) -> None:
        self.parts: Parts = request.app.state.parts
        self.speaker = speaker
        self.status = 500
        self.route = request.scope["path"]
        self.headers: Mapping[str, str] = request.headers
        self.key = presented_key(request.headers)
        self.remote_address = request.client.host if request.client else None
        given = request.headers.get("x-request-id", "")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else uuid4().hex
        self.began = time.perf_counter()

    def forced_arm(self) -> Arm | None:
        """Return the arm that a tester asks for.

        Raises:
            Unauthorized: without a key of the control plane.
            InvalidRequest: there is no such arm.

        """
        name = self.headers.get("x-rerank-force-arm")
        if name is None:
            return None
        if self.parts.keys.actor(self.headers.get("x-rerank-control-key", "")) is None:
            raise Unauthorized("x-rerank-force-arm needs a control token in x-rerank-control-key")
        if name not in set(Arm):
            raise InvalidRequest("x-rerank-force-arm: is neither control nor candidate", field="x-rerank-force-arm")
        return Arm(name)

    def caller(self, call: RerankCall, dialect: str) -> Caller:
        """Return who asks."""
        who = identify(
            self.parts.settings.identity,
            self.headers,
            call.body_fields,
            query=call.query,
            api_key=self.key,
            remote_address=self.remote_address,
        )
        return Caller(
            request_id=self.request_id,
            route=self.route,
            dialect=dialect,
            who=who,
            user_hash=hash_user(who.context.user_id, self.parts.salt),
            traceparent=self.headers.get("traceparent"),
            forced=self.forced_arm(),
        )


async def _answer(request: Request[Any, Any, Any], handler: _Handler, default: _Speaker) -> Response[bytes]:
    """Take a request through its handler, and answer whatever happens in the dialect it speaks."""
    entry = _Entry(request, by_headers(request.headers) or default)
    parts = entry.parts
    try:
        await _check_key(request, entry, default)
        with parts.in_flight:
            answer, exposures = await handler(entry, await request.body())
        return _response(entry, 200, answer, exposures)
    except Refused as exc:
        return _refusal(entry, exc.error, [exc.exposure])
    except ProxyError as exc:
        return _refusal(entry, exc, [])
    finally:
        parts.telemetry.http(entry.route, entry.status, time.perf_counter() - entry.began)


async def _check_key(request: Request[Any, Any, Any], entry: _Entry, default: _Speaker) -> None:
    """Pass a caller with a key; who has none is told so in his dialect, if a small body tells which that is.

    Raises:
        Unauthorized: the key is missing or wrong.

    """
    try:
        entry.parts.keys.check_data(entry.key)
    except Unauthorized:
        length = request.headers.get("content-length", "")
        if default is JINA and length.isdecimal() and int(length) <= _SMALL_BODY_BYTES:
            entry.speaker = by_body(await request.body(), request.headers)
        raise


async def _rank(entry: _Entry, body: bytes, dialect: Dialect) -> _Answer:
    """Answer one ranking."""
    entry.speaker = dialect
    parts = entry.parts
    call = dialect.read(body, parts.settings.wire)
    check_limits(call, parts.settings.limits, _count_tokens, len(body))
    served = await parts.service.serve(call, entry.caller(call, dialect.name))
    return dialect.write(call, served.reply, parts.settings.wire), [served.exposure]


async def _rank_by_body(entry: _Entry, body: bytes) -> _Answer:
    """Answer one ranking in the dialect that the configuration, or the body, says."""
    named = entry.parts.settings.wire.dialects
    name = named.get(entry.route) or (named.get(hash_key(entry.key)) if named and entry.key else None)
    return await _rank(entry, body, DIALECTS[name] if name else by_body(body, entry.headers))


async def _score(entry: _Entry, body: bytes) -> _Answer:
    """Answer pairs, in their order."""
    parts = entry.parts
    asked = SCORE.read(body)
    limits = parts.settings.limits
    if len(asked.calls) > limits.max_queries:
        reason = f"queries: {len(asked.calls)} distinct ones, at most {limits.max_queries} are allowed"
        raise TooManyDocuments(reason, field="queries")
    for call in asked.calls:
        check_limits(call, limits, _count_tokens, len(body))
    callers = [entry.caller(call, SCORE.name) for call in asked.calls]
    served = await asyncio.gather(*map(parts.service.serve, asked.calls, callers))
    return SCORE.write(asked, [one.reply for one in served]), [one.exposure for one in served]


def _count_tokens(texts: Sequence[str]) -> int:
    return sum(toktok.batch_count(texts, ENCODING))


def _response(entry: _Entry, status: int, body: object, exposures: Sequence[Exposure]) -> Response[bytes]:
    entry.status = status
    return Response(
        msgspec.json.encode(body),
        status_code=status,
        media_type=MediaType.JSON,
        headers=_headers(entry, exposures),
    )


def _refusal(entry: _Entry, error: ProxyError, exposures: Sequence[Exposure]) -> Response[bytes]:
    status, body = entry.speaker.write_error(error, entry.request_id)
    response = _response(entry, status, body, exposures)
    if error.retry_after_seconds is not None or status in {429, 503}:
        # whole seconds, at least one: cohere's SDK ignores 0 and misreads retry-after-ms
        wait = max(1, math.ceil(error.retry_after_seconds or 1))
        response.headers["Retry-After"] = str(wait)
        response.headers["X-RateLimit-Reset"] = str(int(time.time()) + wait)
    return response


def _headers(entry: _Entry, exposures: Sequence[Exposure]) -> dict[str, str]:
    total = (time.perf_counter() - entry.began) * 1000
    timing = [f"total;dur={total:.2f}"]
    headers = {"x-request-id": entry.request_id}
    if exposures:
        first = exposures[0]
        headers["x-rerank-arm"] = first.assignment.arm.value
        headers["x-rerank-served-by"] = first.served_by.value
        headers["x-rerank-model"] = first.model
        headers["x-rerank-reason"] = first.assignment.reason.value
        if first.assignment.bucket is not None:
            headers["x-rerank-bucket"] = str(first.assignment.bucket)
        timing += [f'{a.role};dur={a.seconds * 1000:.2f};desc="{a.outcome}"' for a in first.attempts]
        if entry.speaker is TEI:
            headers |= _tei_headers(total, first)
    headers["Server-Timing"] = ", ".join(timing)
    return headers


def _tei_headers(total_ms: float, exposure: Exposure) -> dict[str, str]:
    """Return the timings as TEI gives them, in whole milliseconds, of the attempt that answered."""
    answered = exposure.attempts[-1] if exposure.attempts else None
    parts = {
        "x-tokenization-time": answered.tokenize_seconds if answered else 0.0,
        "x-queue-time": answered.queue_seconds if answered else 0.0,
        "x-inference-time": answered.inference_seconds if answered else 0.0,
    }
    headers = {name: str(round(seconds * 1000)) for name, seconds in parts.items()}
    headers["x-total-time"] = headers["x-compute-time"] = str(round(total_ms))
    headers["x-compute-type"] = "cpu"
    headers["x-compute-tokens"] = str(answered.tokens if answered else 0)
    return headers


def _route(
    paths: list[str], name: str, handler: _Handler, dialects: Sequence[Dialect | ScoreDialect]
) -> HTTPRouteHandler:
    """Return the handler of paths, with the schemas of its *dialects* on the OpenAPI page; failures speak the first."""
    default = dialects[0]
    examples = {dialect.name: EXAMPLES[dialect.name] for dialect in dialects}
    requests = [dialect.request_type for dialect in dialects]
    responses = list(dict.fromkeys(dialect.response_type for dialect in dialects))

    @post(
        paths,
        name=name,
        status_code=200,
        operation_class=operation(requests, responses, examples),
        responses=error_responses(STATUSES, speaks_tei=TEI in dialects),
        operation_id=lambda _, __, path: f"{name}{''.join(str(p) for p in path).replace('/', '_')}",
        summary=name.replace("-", " "),
        opt={"speaker": default},
    )
    async def handle(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await _answer(request, handler, default)

    return handle


def data_routes() -> list[HTTPRouteHandler]:
    """Return every route that ranks."""

    async def cohere_v2(entry: _Entry, body: bytes) -> _Answer:
        return await _rank(entry, body, COHERE_V2)

    async def nim(entry: _Entry, body: bytes) -> _Answer:
        return await _rank(entry, body, NIM)

    return [
        _route(_SHARED_PATHS, "rerank", _rank_by_body, [JINA, COHERE_V1, VOYAGE, TEI, NIM]),
        _route(_COHERE_V2_PATHS, "rerank-v2", cohere_v2, [COHERE_V2]),
        _route(["/v1/ranking"], "ranking", nim, [NIM]),
        _route(["/score", "/v1/score"], "score", _score, [SCORE]),
    ]
