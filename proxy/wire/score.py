"""vLLM's ``/score``: pairs in, scores in the order of the pairs out.

One text against many is one ranking. Lists of equal length are pairs: one ranking for each distinct query.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from proxy.errors import InvalidRequest
from proxy.wire.canonical import Reply, RerankCall, checked_query, decode, error_body
from proxy.wire.jina import Usage

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.errors import ProxyError

Texts = str | list[str]


class ScoreRequest(msgspec.Struct, kw_only=True):
    """``POST /score`` and ``/v1/score``, under each of vLLM's names for the two sides."""

    queries: Texts | None = None
    text_1: Texts | None = None
    data_1: Texts | None = None
    documents: Texts | None = None
    items: Texts | None = None
    text_2: Texts | None = None
    data_2: Texts | None = None
    model: str | None = None
    use_activation: bool | None = None
    user: Annotated[Any, msgspec.Meta(description="Who asks; a text or a number")] = None


class PairScore(msgspec.Struct):
    """The score of one pair."""

    index: int
    object: str
    score: float


class ScoreResponse(msgspec.Struct):
    """All pairs, in the order received."""

    id: str
    object: str
    created: int
    model: str
    data: list[PairScore]
    usage: Usage


class PairCalls(msgspec.Struct, frozen=True):
    """The rankings that a list of pairs comes down to."""

    calls: list[RerankCall]
    places: list[list[int]]
    """For each ranking: which pair each of its documents belongs to."""
    queries_field: str
    """What the caller calls the queries."""


class ScoreDialect:
    """Answers a broken rule 400 with an OpenAI-style ``error``."""

    name = "vllm-score"
    request_type: type[msgspec.Struct] = ScoreRequest
    response_type: Any = ScoreResponse

    def read(self, body: bytes) -> PairCalls:
        """Return the rankings that *body* asks for.

        Raises:
            MalformedBody: it is no JSON.
            InvalidRequest: a side is missing, blank, or the two do not pair up; names the field.

        """
        asked = decode(body, ScoreRequest)
        left_name, left = _side(asked, ("queries", "text_1", "data_1"))
        right_name, right = _side(asked, ("documents", "items", "text_2", "data_2"))
        if len(left) == 1:
            left *= len(right)
        if len(left) != len(right):
            reason = f"{right_name}: {len(right)} texts cannot be paired with {len(left)} of {left_name}"
            raise InvalidRequest(reason, field=right_name)
        pairs: dict[str, list[int]] = {}
        for place, query in enumerate(left):
            pairs.setdefault(checked_query(query, left_name), []).append(place)
        calls = [
            RerankCall(
                query=query,
                query_field=left_name,
                documents=tuple(right[place] for place in places),
                documents_field=right_name,
                raw_scores=asked.use_activation is False,
                model=asked.model,
            )
            for query, places in pairs.items()
        ]
        return PairCalls(calls, list(pairs.values()), left_name)

    def write(self, asked: PairCalls, replies: Sequence[Reply]) -> ScoreResponse:
        """Return the score of every pair, in the order received."""
        data = []
        for call, places, reply in zip(asked.calls, asked.places, replies, strict=True):
            for ranked in reply.results:
                score = ranked.logit if call.raw_scores else ranked.score
                data.append(PairScore(places[ranked.index], "score", score))
        data.sort(key=lambda pair: pair.index)
        tokens = sum(reply.tokens for reply in replies)
        first = replies[0]
        return ScoreResponse(first.request_id, "list", first.created, first.model, data, Usage(tokens, tokens))

    def write_error(self, error: ProxyError, request_id: str) -> tuple[int, object]:
        """Return status and body."""
        return error.status, error_body(error, request_id)


def _side(asked: ScoreRequest, names: Sequence[str]) -> tuple[str, list[str]]:
    for name in names:
        texts: Texts | None = getattr(asked, name)
        if texts is not None:
            found = [texts] if isinstance(texts, str) else texts
            if not found:
                raise InvalidRequest(f"{name}: must not be empty", field=name)
            return name, found
    raise InvalidRequest(f"{names[0]}: is missing (or one of {', '.join(names[1:])})", field=names[0])
