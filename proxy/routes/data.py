"""The data plane: every dialect's paths, one way through."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import toktok
from litestar import MediaType, Request, Response, post

from flags.vocabulary import Arm
from proxy.arms.llm import ENCODING
from proxy.errors import InvalidRequest, ProxyError, TooManyDocuments, Unauthorized
from proxy.identity import BodyFields, BodyReader, hash_user, identify
from proxy.keys import presented_key
from proxy.routes.body import body_of
from proxy.secrets import hash_key
from proxy.service import Caller, Refused
from proxy.visit import Speaker, visit_of
from proxy.wire.detect import (
    COHERE_V1,
    COHERE_V2,
    DIALECTS,
    JINA,
    NIM,
    TEI,
    VOYAGE,
    by_beginning,
    by_body,
)
from proxy.wire.limits import check_limits
from proxy.wire.openapi import EXAMPLES, STATUSES, error_responses, operation
from proxy.wire.score import PairCalls, ScoreDialect

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from litestar.handlers import HTTPRouteHandler

    from proxy.parts import Parts
    from proxy.service import Served
    from proxy.wire.canonical import Dialect, RerankCall

_T = TypeVar("_T")
_Handler = Callable[["Entry", bytes], Awaitable[object]]

SCORE = ScoreDialect()
_LARGE_BODY_BYTES = 1_000_000
"""Longer ones are understood off the event loop, which they would hold for several milliseconds."""
_BEGINNING_BYTES = 65_536
_BEGINNING_SECONDS = 1.0
_SHARED_PATHS = ["/v1/rerank", "/rerank", "/v1/v1/rerank", "/cohere/v1/rerank"]
_COHERE_V2_PATHS = ["/v2/rerank", "/v1/v2/rerank", "/cohere/v2/rerank"]
_NIM_PATHS = ["/v1/ranking"]
_SCORE_PATHS = ["/score", "/v1/score"]
RANKING_PATHS = (*_SHARED_PATHS, *_COHERE_V2_PATHS, *_NIM_PATHS, *_SCORE_PATHS)


class Entry:
    """What is known of a request before its body is understood."""

    def __init__(self, request: Request[Any, Any, Any]) -> None:
        self.parts: Parts = request.app.state.parts
        self.visit = visit_of(request.scope)
        self.route = request.scope["path"]
        self.headers: Mapping[str, str] = request.headers
        self.key = presented_key(request.headers)
        self.remote_address = request.client.host if request.client else None
        self._body_reader: BodyReader = request.app.state.body_reader

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

    def follow(self, served: Served) -> None:
        """See to what happens with a served request once the answer is sent."""
        if self.parts.shadower is not None:
            self.visit.afterwards.append(partial(self.parts.shadower.offer, served.asked))

    def named_dialect(self) -> Dialect | None:
        """Return the dialect that the configuration binds to the path or the key."""
        named = self.parts.settings.wire.dialects
        if not named:
            return None
        name = named.get(self.route) or (named.get(hash_key(self.key)) if self.key else None)
        return DIALECTS[name] if name else None

    def caller(self, body: bytes, query: str, dialect: str) -> Caller:
        """Return who asks; *query* stands for a user whom nothing names."""
        who = identify(
            self.parts.settings.identity,
            self.headers,
            BodyFields(self._body_reader, body),
            query=query,
            api_key=self.key,
            remote_address=self.remote_address,
        )
        return Caller(
            request_id=self.visit.request_id,
            route=self.route,
            dialect=dialect,
            who=who,
            user_hash=hash_user(who.context.user_id, self.parts.salt),
            traceparent=self.headers.get("traceparent"),
            forced=self.forced_arm(),
        )


async def _answer(request: Request[Any, Any, Any], handler: _Handler, default: Speaker) -> Response[bytes]:
    """Take a request through its handler, and answer whatever happens in the dialect it speaks."""
    entry = Entry(request)
    try:
        entry.parts.keys.check_data(entry.key)
        with entry.parts.in_flight:
            body = await body_of(request)
            return _response(200, await handler(entry, body))
    except Refused as exc:
        entry.visit.exposure = exc.exposure
        error = exc.error
    except ProxyError as exc:
        error = exc
    return _refusal(entry, error, await _speaker(request, entry, default))


async def _speaker(request: Request[Any, Any, Any], entry: Entry, default: Speaker) -> Speaker:
    """Return the dialect of a refused request: where its body was not read, what the beginning of it tells."""
    visit = entry.visit
    if visit.speaker is not None:
        return visit.speaker
    if default is not JINA:
        return default
    if visit.beginning is None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BEGINNING_SECONDS):
                await request.receive()
    beginning = (visit.beginning or b"")[:_BEGINNING_BYTES]
    return entry.named_dialect() or by_beginning(beginning, entry.headers)


async def off_loop(body: bytes, work: Callable[[], _T]) -> _T:
    """Return what *work* makes of *body*: in a thread if it is large, so that probes and telemetry go on."""
    return await asyncio.to_thread(work) if len(body) > _LARGE_BODY_BYTES else work()


async def _rank(entry: Entry, body: bytes, dialect: Dialect | None = None) -> object:
    """Answer one ranking, in the dialect that the path, the configuration or else the body says."""
    wire = entry.parts.settings.wire

    def understand() -> tuple[Dialect, RerankCall, Caller]:
        spoken = dialect or entry.named_dialect() or by_body(body, entry.headers)
        entry.visit.speaker = spoken
        call = spoken.read(body, wire)
        check_limits(call, entry.parts.settings.limits, count_tokens, len(body))
        return spoken, call, entry.caller(body, call.query, spoken.name)

    return await ranked(entry, *await off_loop(body, understand))


async def ranked(entry: Entry, spoken: Dialect, call: RerankCall, caller: Caller) -> object:
    """Rank one call, take note of it, and return the answer's body."""
    served = await entry.parts.service.serve(call, caller)
    entry.visit.exposure, entry.visit.warnings = served.exposure, served.reply.warnings
    reply = served.reply
    if (feedback := entry.parts.feedback) is not None:
        entry.visit.feedback = feedback.intake.issue(call, served.exposure, reply.results)
        reply = msgspec.structs.replace(reply, feedback=entry.visit.feedback)
    entry.follow(served)
    return spoken.write(call, reply, entry.parts.settings.wire)


async def _score(entry: Entry, body: bytes) -> object:
    """Answer pairs, in their order: all of one caller, who has one arm whatever the queries."""
    entry.visit.speaker = SCORE

    def understand() -> tuple[PairCalls, Caller]:
        asked = SCORE.read(body)
        limits = entry.parts.settings.limits
        if len(asked.calls) > limits.max_queries:
            reason = f"{len(asked.calls)} distinct ones, at most {limits.max_queries} are allowed"
            raise TooManyDocuments(f"{asked.queries_field}: {reason}", field=asked.queries_field)
        for call in asked.calls:
            check_limits(call, limits, count_tokens, len(body))
        return asked, entry.caller(body, asked.calls[0].query, SCORE.name)

    asked, caller = await off_loop(body, understand)
    # the first ranking goes by the request's own id, each of the others by one of its own
    ids = [caller.request_id, *(f"{caller.request_id}.{i + 2}" for i in range(len(asked.calls) - 1))]
    callers = [msgspec.structs.replace(caller, request_id=request_id) for request_id in ids]
    done = await asyncio.gather(*map(entry.parts.service.serve, asked.calls, callers), return_exceptions=True)
    served = [_raised(one) for one in done]
    for one in served:
        entry.follow(one)
    entry.visit.exposure = served[0].exposure
    entry.visit.warnings = tuple(warning for one in served for warning in one.reply.warnings)
    return SCORE.write(asked, [one.reply for one in served])


def _raised(found: _T | BaseException) -> _T:
    if isinstance(found, BaseException):
        raise found
    return found


def count_tokens(texts: Sequence[str]) -> int:
    """Return how many tokens of the language model's *texts* have."""
    return sum(toktok.batch_count(texts, ENCODING))


def _response(status: int, body: object) -> Response[bytes]:
    return Response(msgspec.json.encode(body), status_code=status, media_type=MediaType.JSON)


def _refusal(entry: Entry, error: ProxyError, speaker: Speaker) -> Response[bytes]:
    entry.visit.speaker, entry.visit.error_code = speaker, error.code
    status, body = speaker.write_error(error, entry.visit.request_id)
    response = _response(status, body)
    if error.retry_after_seconds is not None or status in {429, 503}:
        # whole seconds, at least one: cohere's SDK ignores 0 and misreads retry-after-ms
        wait = max(1, math.ceil(error.retry_after_seconds or 1))
        response.headers["Retry-After"] = str(wait)
        response.headers["X-RateLimit-Reset"] = str(int(time.time()) + wait)
    return response


def route_of(
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
    count_tokens([""])  # loads the encoding now: it takes half a second, and no request may wait for it

    async def cohere_v2(entry: Entry, body: bytes) -> object:
        return await _rank(entry, body, COHERE_V2)

    async def nim(entry: Entry, body: bytes) -> object:
        return await _rank(entry, body, NIM)

    return [
        route_of(_SHARED_PATHS, "rerank", _rank, [JINA, COHERE_V1, VOYAGE, TEI, NIM]),
        route_of(_COHERE_V2_PATHS, "rerank-v2", cohere_v2, [COHERE_V2]),
        route_of(_NIM_PATHS, "ranking", nim, [NIM]),
        route_of(_SCORE_PATHS, "score", _score, [SCORE]),
    ]
