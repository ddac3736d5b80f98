"""NVIDIA NIM's dialect: ``passages`` in, ``rankings`` of raw logits out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import msgspec

from proxy.wire.canonical import Reply, RerankCall, checked_documents, checked_query, decode, error_body
from proxy.wire.jina import TextObject

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.settings import Wire


class Passage(msgspec.Struct):
    """A text to rank, blank ones too."""

    text: str


class NimRequest(msgspec.Struct, kw_only=True):
    """``POST /v1/ranking``."""

    query: TextObject
    passages: list[Passage]
    model: str | None = None
    truncate: Literal["NONE", "END"] | None = None


class NimRank(msgspec.Struct):
    """One passage in its place."""

    index: int
    logit: float


class NimResponse(msgspec.Struct):
    """All passages, best first."""

    rankings: list[NimRank]


class NimDialect:
    """Always raw logits; answers a broken rule 422."""

    name = "nim"
    request_type: type[msgspec.Struct] = NimRequest
    response_type: Any = NimResponse

    def read(self, body: bytes, wire: Wire) -> RerankCall:
        """Return what *body* asks for."""
        asked = decode(body, NimRequest)
        checked_documents(len(asked.passages), wire, "passages")
        return RerankCall(
            query=checked_query(asked.query.text, "query.text"),
            documents=tuple(passage.text for passage in asked.passages),
            query_field="query.text",
            documents_field="passages",
            raw_scores=True,
            truncate=asked.truncate != "NONE",
            model=asked.model,
        )

    def write(self, call: RerankCall, reply: Reply, wire: Wire) -> object:
        """Return the rankings."""
        del call, wire
        return NimResponse([NimRank(r.index, r.logit) for r in reply.results])

    def write_error(self, error: ProxyError, request_id: str) -> tuple[int, object]:
        """Return status and a body with ``detail``."""
        return 422 if error.code == "invalid_request" else error.status, error_body(error, request_id)
