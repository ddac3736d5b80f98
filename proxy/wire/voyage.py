"""Voyage's dialect: ``top_k`` in, ``data`` out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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
    error_body,
)
from proxy.wire.jina import Meta, Usage, envelope

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.settings import Wire


class VoyageRequest(msgspec.Struct, kw_only=True):
    """``POST /v1/rerank`` with ``top_k`` or ``truncation``."""

    query: Query
    documents: list[str]
    model: str | None = None
    top_k: TopN | None = None
    truncation: bool | None = None
    return_documents: bool | None = None


class VoyageResult(msgspec.Struct):
    """One document in its place; the document itself is its text."""

    index: int
    relevance_score: float
    document: str | UnsetType = UNSET


class VoyageResponse(msgspec.Struct):
    """What the voyageai client reads: ``data`` and ``usage.total_tokens``."""

    object: str
    data: list[VoyageResult]
    model: str
    usage: Usage
    id: str
    meta: Meta


class VoyageDialect:
    """Returns no documents unless asked to; answers a broken rule 400 with ``detail``."""

    name = "voyage"
    request_type: type[msgspec.Struct] = VoyageRequest
    response_type: Any = VoyageResponse

    def read(self, body: bytes, wire: Wire) -> RerankCall:
        """Return what *body* asks for."""
        asked = decode(body, VoyageRequest)
        checked_documents(len(asked.documents), wire)
        return RerankCall(
            query=checked_query(asked.query),
            documents=tuple(asked.documents),
            top_n=checked_top_n(asked.top_k, "top_k"),
            return_documents=bool(wire.return_documents if asked.return_documents is None else asked.return_documents),
            truncate=asked.truncation is not False,
            model=asked.model,
        )

    def write(self, call: RerankCall, reply: Reply, wire: Wire) -> object:
        """Return the results as ``data``."""
        common = envelope(call, reply, wire, "1")
        text = call.documents
        return VoyageResponse(
            object="list",
            data=[
                VoyageResult(r.index, r.relevance_score, text[r.index] if call.return_documents else UNSET)
                for r in common.results
            ],
            model=common.model,
            usage=common.usage,
            id=common.id,
            meta=common.meta,
        )

    def write_error(self, error: ProxyError, request_id: str) -> tuple[int, object]:
        """Return status and a body with ``detail``, without ``error``: voyageai up to 0.4 dies on an object there."""
        body = error_body(error, request_id)
        del body["error"]
        return error.status, body
