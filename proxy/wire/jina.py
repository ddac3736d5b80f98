"""Jina's dialect, and what vLLM, Infinity, Open WebUI, Dify and most others mean by it.

The answer is one envelope that all of their clients read, and Cohere's too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import UNSET, UnsetType

from proxy.errors import MalformedBody
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
    document_of,
    echoes_of,
    error_body,
    listed,
    texts_of,
)

if TYPE_CHECKING:
    from proxy.errors import ProxyError
    from proxy.settings import Wire


class TextObject(msgspec.Struct):
    """A text wrapped in an object."""

    text: Query


class JinaRequest(msgspec.Struct, kw_only=True):
    """``POST /v1/rerank`` and ``/rerank`` with ``documents``; fields of other servers are taken or ignored."""

    query: Query | TextObject
    documents: Documents
    model: str | None = None
    top_n: TopN | None = None
    return_documents: bool | None = None
    rank_fields: list[str] | None = None
    raw_scores: bool | None = None
    use_activation: bool | None = None
    max_tokens_per_doc: Annotated[int, msgspec.Meta(extra_json_schema={"minimum": 0})] | None = None
    """0 means all; vLLM's default."""
    truncate_prompt_tokens: int | None = None
    user: Annotated[Any, msgspec.Meta(description="Who asks; a text or a number")] = None
    """As every field that ``identity`` names, in every dialect, it is read from the body itself."""


class JinaResult(msgspec.Struct):
    """One document in its place."""

    index: int
    relevance_score: float
    document: str | dict[str, Any] | UnsetType = UNSET


class Usage(msgspec.Struct):
    """Tokens that the serving arm read."""

    prompt_tokens: int
    total_tokens: int


class ApiVersion(msgspec.Struct):
    """Version of the dialect."""

    version: str


class BilledUnits(msgspec.Struct):
    """In Cohere's units; a local arm bills nothing."""

    search_units: int
    total_tokens: int


class Tokens(msgspec.Struct):
    """What the serving arm read, in Cohere's words."""

    input_tokens: int


class Meta(msgspec.Struct, omit_defaults=True):
    """Cohere's ``meta``: the place for warnings."""

    api_version: ApiVersion
    billed_units: BilledUnits
    tokens: Tokens
    feedback: str | None = None
    """What ``POST /v1/feedback`` takes as `request_id`: the header ``x-rerank-feedback`` once more."""
    warnings: list[str] = []


class RerankResponse(msgspec.Struct):
    """The envelope that clients of Cohere v1, Jina, vLLM, Infinity, Open WebUI and Dify read."""

    id: str
    object: str
    model: str
    created: int
    results: list[JinaResult]
    usage: Usage
    meta: Meta


class JinaDialect:
    """Returns documents unless told not to; answers a broken rule 422."""

    name = "jina"
    request_type: type[msgspec.Struct] = JinaRequest
    response_type: Any = RerankResponse
    api_version = "1"
    returns_documents = True
    invalid_status = 422

    def read(self, body: bytes, wire: Wire) -> RerankCall:
        """Return what *body* asks for."""
        asked = decode(body, JinaRequest)
        query = asked.query if isinstance(asked.query, str) else asked.query.text
        documents = listed(asked.documents)
        checked_documents(len(documents), wire)
        texts = texts_of(documents, asked.rank_fields or ())
        is_shorter = asked.truncate_prompt_tokens not in {None, -1}  # -1: what the model reads, as always here
        default = self.returns_documents if wire.return_documents is None else wire.return_documents
        return RerankCall(
            query=checked_query(query),
            documents=tuple(texts),
            echoes=echoes_of(documents, texts),
            top_n=checked_top_n(asked.top_n),
            return_documents=default if asked.return_documents is None else asked.return_documents,
            raw_scores=asked.raw_scores is True or asked.use_activation is False,
            max_tokens_per_doc=checked_tokens(asked.max_tokens_per_doc, "max_tokens_per_doc", least=0),
            model=asked.model,
            warnings=("truncate_prompt_tokens is not supported and was left out",) if is_shorter else (),
        )

    def write(self, call: RerankCall, reply: Reply, wire: Wire) -> object:
        """Return the envelope."""
        return envelope(call, reply, wire, self.api_version)

    def write_error(self, error: ProxyError, request_id: str) -> tuple[int, object]:
        """Return status and the body that all of these clients read."""
        status = self.invalid_status if _is_rule(error) else error.status
        return status, error_body(error, request_id)


class InfinityDialect(JinaDialect):
    """As Jina's, with ``document`` as plain text. Nothing in a request tells them apart: see ``wire.dialects``."""

    name = "infinity"

    def write(self, call: RerankCall, reply: Reply, wire: Wire) -> object:
        """Return the envelope, documents as strings."""
        return super().write(call, reply, msgspec.structs.replace(wire, document_as_string=True))


def _is_rule(error: ProxyError) -> bool:
    return error.code == "invalid_request" and not isinstance(error, MalformedBody)


def envelope(call: RerankCall, reply: Reply, wire: Wire, api_version: str) -> RerankResponse:
    """Return *reply* as the common envelope."""
    return RerankResponse(
        id=reply.request_id,
        object="list",
        model=reply.model,
        created=reply.created,
        results=[
            JinaResult(r.index, r.logit if call.raw_scores else r.score, document_of(call, r.index, wire))
            for r in reply.results
        ],
        usage=Usage(reply.tokens, reply.tokens),
        meta=Meta(
            api_version=ApiVersion(api_version),
            billed_units=BilledUnits(0, reply.tokens),
            tokens=Tokens(reply.tokens),
            feedback=reply.feedback,
            warnings=list(reply.warnings),
        ),
    )
