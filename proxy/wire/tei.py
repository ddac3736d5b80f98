"""The dialect of Hugging Face's text-embeddings-inference: ``texts`` in, a bare array out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec
from msgspec import UNSET, UnsetType

from proxy.wire.canonical import (
    Query,
    Reply,
    RerankCall,
    TopN,
    checked_documents,
    checked_query,
    checked_top_n,
    decode,
)

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.settings import Wire


class TeiRequest(msgspec.Struct, kw_only=True):
    """``POST /rerank`` with ``texts``. `top_n` is not TEI's; LiteLLM sends it and means it."""

    query: Query
    texts: list[str]
    truncate: bool | None = None
    truncation_direction: str | None = None
    raw_scores: bool | None = None
    return_text: bool | None = None
    top_n: TopN | None = None


class TeiRank(msgspec.Struct):
    """One text in its place."""

    index: int
    score: float
    text: str | UnsetType = UNSET


class TeiError(msgspec.Struct):
    """What TEI answers instead."""

    error: str
    error_type: str


class TeiDialect:
    """Statuses and error types of TEI 1.9."""

    name = "tei"
    request_type: type[msgspec.Struct] = TeiRequest
    response_type: Any = list[TeiRank]

    _errors: ClassVar[dict[int, tuple[int, str]]] = {
        400: (422, "Validation"),
        401: (401, "Validation"),
        413: (413, "Validation"),
        422: (422, "Validation"),
        429: (429, "Overloaded"),
        502: (424, "Backend"),
        503: (503, "Unhealthy"),
        504: (504, "Backend"),
    }

    def read(self, body: bytes, wire: Wire) -> RerankCall:
        """Return what *body* asks for."""
        asked = decode(body, TeiRequest)
        checked_documents(len(asked.texts), wire, "texts")
        cuts_left = (asked.truncation_direction or "").lower() == "left"
        return RerankCall(
            query=checked_query(asked.query),
            documents=tuple(asked.texts),
            documents_field="texts",
            top_n=checked_top_n(asked.top_n),
            return_documents=bool(asked.return_text),
            raw_scores=bool(asked.raw_scores),
            truncate=asked.truncate is not False,
            warnings=("truncation_direction Left is not supported: long texts lose their end",) if cuts_left else (),
        )

    def write(self, call: RerankCall, reply: Reply, wire: Wire) -> object:
        """Return the bare array."""
        del wire
        return [
            TeiRank(
                r.index,
                r.logit if call.raw_scores else r.score,
                call.documents[r.index] if call.return_documents else UNSET,
            )
            for r in reply.results
        ]

    def write_error(self, error: ProxyError, request_id: str) -> tuple[int, object]:
        """Return TEI's status, and its ``error`` and ``error_type``."""
        del request_id
        if error.code == "malformed_body":
            return 400, TeiError(error.message, "Validation")
        status, kind = self._errors.get(error.status, (error.status, "Backend"))
        return status, TeiError(error.message, kind)
