"""Says no to what is too much, before any arm hears of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import TooLarge, TooManyDocuments

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.settings import Limits
    from proxy.wire.canonical import RerankCall


def check_limits(
    call: RerankCall, limits: Limits, count_tokens: Callable[[Sequence[str]], int], body_bytes: int
) -> None:
    """Pass a call that is within *limits*. Sizes that the whole body rules out are not counted again.

    Raises:
        TooManyDocuments: too many documents or tokens; names the field.
        TooLarge: the query or a document has too many bytes; names the field.

    """
    field = call.documents_field
    if len(call.documents) > limits.max_documents:
        reason = f"{field}: {len(call.documents)} documents, at most {limits.max_documents} are allowed"
        raise TooManyDocuments(reason, field=field)
    if body_bytes > limits.max_query_bytes and len(call.query.encode()) > limits.max_query_bytes:
        raise TooLarge(f"query: longer than {limits.max_query_bytes} bytes", field="query")
    if body_bytes > limits.max_document_bytes:
        for i, document in enumerate(call.documents):
            if len(document.encode()) > limits.max_document_bytes:
                place = f"{field}[{i}]"
                raise TooLarge(f"{place}: longer than {limits.max_document_bytes} bytes", field=place)
    if body_bytes > limits.max_tokens:  # a token is at least a byte
        tokens = count_tokens((call.query, *call.documents))
        if tokens > limits.max_tokens:
            raise TooManyDocuments(f"{field}: {tokens} tokens, at most {limits.max_tokens} are allowed", field=field)
