"""Says no to what is too much, before any arm hears of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from proxy.errors import TooLarge, TooManyDocuments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from proxy.settings import Limits
    from proxy.wire.canonical import RerankCall

_PIECE_CHARACTERS = 65_536
"""Counted at once, in about a millisecond: the tokenizer lets no other thread of Python run meanwhile."""


def check_limits(
    call: RerankCall, limits: Limits, count_tokens: Callable[[Sequence[str]], int], body_bytes: int
) -> None:
    """Pass a call that is within *limits*. Sizes that the whole body rules out are not counted again.

    A body of more than `max_tokens` bytes takes long, and is no work for the event loop.

    Raises:
        TooManyDocuments: too many documents or tokens; names the field.
        TooLarge: the query or a document has too many bytes; names the field.

    """
    field = call.documents_field
    if len(call.documents) > limits.max_documents:
        reason = f"{field}: {len(call.documents)} documents, at most {limits.max_documents} are allowed"
        raise TooManyDocuments(reason, field=field)
    if body_bytes > limits.max_query_bytes and len(call.query.encode()) > limits.max_query_bytes:
        raise TooLarge(f"{call.query_field}: longer than {limits.max_query_bytes} bytes", field=call.query_field)
    if body_bytes > limits.max_document_bytes:
        for i, document in enumerate(call.documents):
            if len(document.encode()) > limits.max_document_bytes:
                place = f"{field}[{i}]"
                raise TooLarge(f"{place}: longer than {limits.max_document_bytes} bytes", field=place)
    if body_bytes > limits.max_tokens:  # a token is at least a byte
        _check_tokens(call, limits.max_tokens, count_tokens)


def _check_tokens(call: RerankCall, most: int, count_tokens: Callable[[Sequence[str]], int]) -> None:
    tokens = 0
    for pieces in _pieces((call.query, *call.documents)):
        tokens += count_tokens(pieces)
        if tokens > most:
            field = call.documents_field
            raise TooManyDocuments(f"{field}: more than the {most} tokens that are allowed", field=field)


def _pieces(texts: Sequence[str]) -> Iterator[list[str]]:
    """Yield *texts*, the long ones cut, in lists of about a piece together."""
    pieces: list[str] = []
    size = 0
    for text in texts:
        for begin in range(0, len(text), _PIECE_CHARACTERS):
            pieces.append(text[begin : begin + _PIECE_CHARACTERS])
            size += len(pieces[-1])
            if size >= _PIECE_CHARACTERS:
                yield pieces
                pieces, size = [], 0
    yield pieces
