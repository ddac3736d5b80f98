"""Cohere's dialects, v1 and v2; v2 takes what LiteLLM and others send to it beyond its own fields."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta

from proxy.wire.canonical import (
    Documents,
    Query,
    Reply,
    RerankCall,
    TopN,
    checked_documents,
    checked_query,
    checked_tokens,
    checked_top_n,
    decode,
    echoes_of,
    error_body,
    listed,
    texts_of,
)
from proxy.wire.jina import RerankResponse, envelope

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.settings import Wire


class CohereRequest(msgspec.Struct, kw_only=True):
    """``POST /v1/rerank`` and ``/v2/rerank`` as the cohere SDKs 5 to 7 send them; null means absent."""

    query: Query
    documents: Documents
    model: str | None = None
    top_n: TopN | None = None
    rank_fields: list[str] | None = None
    return_documents: bool | None = None
    max_chunks_per_doc: int | None = None
    max_tokens_per_doc: Annotated[int, Meta(extra_json_schema={"minimum": 1})] | None = None
    priority: int | None = None
    relevant_spans: dict[str, Any] | None = None


class CohereDialect:
    """Returns no documents unless asked to; answers a broken rule 400."""

    request_type: type[msgspec.Struct] = CohereRequest
    response_type: Any = RerankResponse

    def __init__(self, version: str) -> None:
        self.name = f"cohere-v{version}"
        self._version = version

    def read(self, body: bytes, wire: Wire) -> RerankCall:
        """Return what *body* asks for."""
        asked = decode(body, CohereRequest)
        documents = listed(asked.documents)
        checked_documents(len(documents), wire)
        texts = texts_of(documents, asked.rank_fields or ())
        spans = asked.relevant_spans is not None and asked.relevant_spans.get("mode") == "enabled"
        return RerankCall(
            query=checked_query(asked.query),
            documents=tuple(texts),
            echoes=echoes_of(documents, texts),
            top_n=checked_top_n(asked.top_n),
            return_documents=bool(wire.return_documents if asked.return_documents is None else asked.return_documents),
            max_tokens_per_doc=checked_tokens(asked.max_tokens_per_doc, "max_tokens_per_doc"),
            model=asked.model,
            warnings=("relevant_spans are not supported and were left out",) if spans else (),
        )

    def write(self, call: RerankCall, reply: Reply, wire: Wire) -> object:
        """Return the common envelope."""
        return envelope(call, reply, wire, self._version)

    def write_error(self, error: ProxyError, request_id: str) -> tuple[int, object]:
        """Return status and a body with ``message``."""
        return error.status, error_body(error, request_id)
