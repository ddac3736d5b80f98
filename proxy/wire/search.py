"""The dialect of ``/v1/search``: as Jina's, of a query alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from proxy.wire.canonical import Query, RerankCall, TopN, checked_query, checked_tokens, checked_top_n, decode
from proxy.wire.jina import JinaDialect, TextObject

if TYPE_CHECKING:
    from proxy.settings import Wire


class SearchRequest(msgspec.Struct, kw_only=True):
    """``POST /v1/search``; the fields mean what they mean in ``/v1/rerank``."""

    query: Query | TextObject
    top_n: TopN | None = None
    return_documents: bool | None = None
    raw_scores: bool | None = None
    max_tokens_per_doc: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0})] | None = None
    model: str | None = None
    user: Annotated[Any, msgspec.Meta(description="Who asks; a text or a number")] = None
    """As every field that ``identity`` names it is read from the body itself."""


class SearchDialect(JinaDialect):
    """Answers in the envelope that clients of Jina and of Cohere v1 read."""

    name = "search"
    request_type: type[msgspec.Struct] = SearchRequest

    def read(self, body: bytes, wire: Wire) -> RerankCall:
        """Return what *body* asks for, still without documents."""
        asked = decode(body, SearchRequest)
        default = self.returns_documents if wire.return_documents is None else wire.return_documents
        return RerankCall(
            query=checked_query(asked.query if isinstance(asked.query, str) else asked.query.text),
            documents=(),
            top_n=checked_top_n(asked.top_n),
            return_documents=default if asked.return_documents is None else asked.return_documents,
            raw_scores=asked.raw_scores is True,
            max_tokens_per_doc=checked_tokens(asked.max_tokens_per_doc, "max_tokens_per_doc", least=0),
            model=asked.model,
        )
