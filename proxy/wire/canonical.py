"""What every dialect is read into and written from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Protocol, TypeVar

import msgspec
from msgspec import Meta

from proxy.errors import InvalidRequest, MalformedBody

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.errors import ProxyError
    from proxy.settings import Wire

# Bounds that are checked in words of our own stand in the schemas all the same.
Query = Annotated[str, Meta(extra_json_schema={"pattern": r"\S"})]
"""What is asked: not blank."""
TopN = Annotated[int, Meta(extra_json_schema={"minimum": 0})]
"""How many results; 0 means all."""
DocumentObject = Annotated[
    dict[str, Any], Meta(extra_json_schema={"required": ["text"], "properties": {"text": {"type": "string"}}})
]
Document = str | DocumentObject
"""A document as clients send it: its text, or an object that holds it."""
Documents = list[Document] | str
"""vLLM's clients send one document as it is."""

_T = TypeVar("_T")
_ESCAPE = re.compile(
    rb"""\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(?P<lone>u[dD][89a-fA-F][0-9a-fA-F]{2})|.)""",
    re.DOTALL,
)
"""An escape in JSON: a whole surrogate pair, half of one, or anything else."""
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")
_MISSING = re.compile(r"Object missing required field `([^`]+)`")
_MOST_TOKENS = 1 << 31
"""What a tokenizer can count to."""


class RerankCall(msgspec.Struct, frozen=True, kw_only=True):
    """One ranking asked for, whatever the dialect."""

    query: str
    documents: tuple[str, ...]
    """The texts to rank, in the order received."""
    echoes: tuple[dict[str, Any], ...] = ()
    """What is sent back for each document on request; empty: ``{"text": ...}``."""
    query_field: str = "query"
    documents_field: str = "documents"
    top_n: int | None = None
    """Results wanted; None: all, or what the configuration says."""
    return_documents: bool = False
    raw_scores: bool = False
    truncate: bool = True
    """False: a document that is too long is an error, not cut."""
    max_tokens_per_doc: int | None = None
    model: str | None = None
    warnings: tuple[str, ...] = ()

    def echo(self, index: int) -> dict[str, Any]:
        """Return what is sent back for one document."""
        return self.echoes[index] if self.echoes else {"text": self.documents[index]}


class Ranked(msgspec.Struct, frozen=True):
    """One document in its place."""

    index: int
    score: float
    """In [0, 1], strictly falling with the rank."""
    logit: float


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """One ranking given."""

    request_id: str
    model: str
    results: tuple[Ranked, ...]
    """Best first, cut to `top_n`."""
    tokens: int = 0
    """Tokens that the serving arm read."""
    created: int = 0
    """Unix seconds."""
    feedback: str | None = None
    """By what the caller may say something of it later; for clients that show no headers."""
    warnings: tuple[str, ...] = ()


class Dialect(Protocol):
    """One way to ask for a ranking. Implementations hold no state."""

    name: str
    request_type: type[msgspec.Struct]
    response_type: Any

    def read(self, body: bytes, wire: Wire) -> RerankCall:
        """Return what *body* asks for.

        Raises:
            MalformedBody: it is no JSON.
            InvalidRequest: a field is missing, of the wrong type or out of bounds; names the field.

        """

    def write(self, call: RerankCall, reply: Reply, wire: Wire) -> object:
        """Return the body of a 200, ready to be encoded."""

    def write_error(self, error: ProxyError, request_id: str) -> tuple[int, object]:
        """Return status and body of a failure."""


def decode(body: bytes, kind: type[_T]) -> _T:
    """Decode a JSON body.

    Raises:
        MalformedBody: it is no JSON.
        InvalidRequest: it does not fit *kind*; names the field.

    """
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.ValidationError as exc:
        reason, _, place = str(exc).partition(" - at `$")
        where = place.strip("`").lstrip(".")
        if missing := _MISSING.fullmatch(reason):
            where, reason = f"{where}.{missing[1]}".lstrip("."), "is missing"
        raise InvalidRequest(f"{where}: {reason}" if where else reason, field=where or None) from exc
    except (msgspec.DecodeError, UnicodeError, RecursionError) as exc:
        if (mended := without_lone_surrogates(body)) != body:
            return decode(mended, kind)
        raise MalformedBody(f"The body is not valid JSON: {exc}") from exc


def without_lone_surrogates(body: bytes) -> bytes:
    """Return *body* with U+FFFD for each escaped half of a pair: splitters cut emoji in two."""
    if not _SURROGATE.search(body):
        return body

    def mend(escape: re.Match[bytes]) -> bytes:
        return rb"\ufffd" if escape["lone"] else escape[0]

    return _ESCAPE.sub(mend, body)


def checked_query(query: str, field: str = "query") -> str:
    """Return *query* unless it is blank.

    Raises:
        InvalidRequest: it is blank.

    """
    if not query or query.isspace():
        raise InvalidRequest(f"{field}: must not be empty", field=field)
    return query


def checked_top_n(top_n: int | None, field: str = "top_n") -> int | None:
    """Return *top_n*, None for 0: clients that send it mean "all".

    Raises:
        InvalidRequest: it is negative.

    """
    if top_n is not None and top_n < 0:
        raise InvalidRequest(f"{field}: must be at least 1", field=field)
    return top_n or None


def checked_tokens(value: int | None, field: str, *, least: int = 1) -> int | None:
    """Return a number of tokens, None for 0, and no more than a tokenizer can count to.

    Raises:
        InvalidRequest: it is under *least*.

    """
    if value is not None and value < least:
        raise InvalidRequest(f"{field}: must be at least {least}", field=field)
    return min(value, _MOST_TOKENS) if value else None


def checked_documents(count: int, wire: Wire, field: str = "documents") -> None:
    """Pass over an empty list unless the configuration rejects it.

    Raises:
        InvalidRequest: it is empty and must not be.

    """
    if not count and wire.empty_documents == "reject":
        raise InvalidRequest(f"{field}: must not be empty", field=field)


def listed(documents: Documents) -> list[Document]:
    """Return a list, of one where a document came as it is."""
    return [documents] if isinstance(documents, str) else documents


def texts_of(documents: Sequence[Document], rank_fields: Sequence[str] = (), field: str = "documents") -> list[str]:
    """Return the text of each document: the string, its ``text``, or its *rank_fields*, one a line.

    Raises:
        InvalidRequest: an object has none of them, or no string there.

    """
    texts = []
    for i, document in enumerate(documents):
        if isinstance(document, str):
            texts.append(document)
        elif rank_fields and any(name in document for name in rank_fields):
            texts.append("\n".join(f"{name}: {document[name]}" for name in rank_fields if name in document))
        elif isinstance(text := document.get("text"), str):
            texts.append(text)
        else:
            raise InvalidRequest(f"{field}[{i}].text: must be a string", field=f"{field}[{i}].text")
    return texts


def echoes_of(documents: Sequence[Document], texts: Sequence[str]) -> tuple[dict[str, Any], ...]:
    """Return what is sent back for each document: its other fields kept, ``text`` always there."""
    if all(isinstance(document, str) for document in documents):
        return ()
    return tuple(map(_echo_of, documents, texts))


def _echo_of(document: Document, text: str) -> dict[str, Any]:
    if isinstance(document, str):
        return {"text": text}
    # beside rank_fields, `text` may be anything, null too; clients read a string there
    return document if isinstance(document.get("text"), str) else {**document, "text": text}


def document_of(call: RerankCall, index: int, wire: Wire) -> str | dict[str, Any] | msgspec.UnsetType:
    """Return the ``document`` of a result; unset where none was asked for: clients choke on a null."""
    if not call.return_documents:
        return msgspec.UNSET
    return call.documents[index] if wire.document_as_string else call.echo(index)


def error_body(error: ProxyError, request_id: str) -> dict[str, Any]:
    """Return one body that Cohere (message), Jina and Voyage (detail) and vLLM (error) clients all read."""
    return {
        "id": request_id,
        "message": error.message,
        "detail": error.message,
        "type": error.code,
        "code": error.code,
        "error": {"message": error.message, "type": error.code, "param": error.field, "code": error.code},
    }
