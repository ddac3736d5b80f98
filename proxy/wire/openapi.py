"""What the OpenAPI page says of each dialect, made from the very types that bodies are decoded with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example, OpenAPIMediaType, Operation, RequestBody
from litestar.openapi.spec.base import BaseSchemaObject
from msgspec import UNSET, UnsetType

from proxy.wire.tei import TeiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class JsonSchema(BaseSchemaObject):
    """A JSON schema that is already one."""

    def __init__(self, schema: dict[str, Any]) -> None:
        self._schema = schema

    def to_schema(self) -> dict[str, Any]:
        """Return it."""
        return self._schema


class ErrorDetail(msgspec.Struct):
    """vLLM's and OpenAI's part of an error."""

    message: str
    type: str
    param: str | None
    code: str


class ErrorBody(msgspec.Struct):
    """One body that clients of Cohere, Jina, Voyage and vLLM all read."""

    id: str
    message: str
    detail: str
    type: str
    code: str
    error: ErrorDetail | UnsetType = UNSET
    """Not for Voyage."""


def schema_of(kinds: Sequence[Any]) -> dict[str, Any]:
    """Return one schema that any of *kinds* fits, with nothing referred to elsewhere."""
    schemas, components = msgspec.json.schema_components(kinds)
    whole = [_inlined(schema, components) for schema in schemas]
    return whole[0] if len(whole) == 1 else {"anyOf": whole}


def _inlined(schema: Any, components: dict[str, Any]) -> Any:
    if isinstance(schema, dict):
        if (name := str(schema.get("$ref", ""))).startswith("#/$defs/"):
            return _inlined(components[name.removeprefix("#/$defs/")], components)
        return {key: _inlined(value, components) for key, value in schema.items()}
    if isinstance(schema, list):
        return [_inlined(item, components) for item in schema]
    return schema


def operation(requests: Sequence[Any], responses: Sequence[Any], examples: Mapping[str, Any]) -> type[Operation]:
    """Return the operation of a route that takes any of *requests* and answers any of *responses*."""
    body = JsonSchema(schema_of(requests))
    shown = {name: Example(value=value) for name, value in examples.items()}
    answer = JsonSchema(schema_of(responses))

    @dataclass
    class DialectOperation(Operation):
        """Puts the dialects' own schemas in."""

        def __post_init__(self) -> None:
            self.request_body = RequestBody(
                content={"application/json": OpenAPIMediaType(schema=body, examples=shown)},  # type: ignore[arg-type]
                required=True,
            )
            ok = (self.responses or {}).get("200")
            if ok is not None:
                ok.content = {"application/json": OpenAPIMediaType(schema=answer)}  # type: ignore[union-attr, arg-type]

    return DialectOperation


def error_responses(statuses: Iterable[int], *, speaks_tei: bool) -> dict[int, ResponseSpec]:
    """Return the failures that a route may answer."""
    kind: Any = ErrorBody | TeiError if speaks_tei else ErrorBody
    return {status: ResponseSpec(kind, generate_examples=False, description=_MEANING[status]) for status in statuses}


_MEANING = {
    400: "The body is no JSON, or breaks a rule",
    401: "No valid key",
    403: "A key that may not do this",
    413: "The body or a document is too large",
    415: "The body is not JSON",
    422: "A field breaks a rule, or there are too many documents",
    424: "TEI's status for a failed back end",
    429: "Too many requests wait; see Retry-After",
    502: "An arm failed",
    503: "No arm can answer now; see Retry-After",
    504: "The deadline is over",
}
STATUSES = (400, 401, 413, 422, 429, 503, 504)

_QUERY = "how long do honey bees live"
_TEXTS = ["A worker bee lives about six weeks in summer.", "Honey keeps for years in a closed jar."]
EXAMPLES: dict[str, Any] = {
    "jina": {"query": _QUERY, "documents": _TEXTS, "top_n": 2},
    "cohere-v1": {"query": _QUERY, "documents": [{"text": _TEXTS[0], "id": "a"}, _TEXTS[1]], "max_chunks_per_doc": 1},
    "cohere-v2": {"model": "any", "query": _QUERY, "documents": _TEXTS, "top_n": 1},
    "voyage": {"query": _QUERY, "documents": _TEXTS, "top_k": 1, "truncation": True},
    "tei": {"query": _QUERY, "texts": _TEXTS, "return_text": True},
    "nim": {"query": {"text": _QUERY}, "passages": [{"text": text} for text in _TEXTS]},
    "vllm-score": {"text_1": _QUERY, "text_2": _TEXTS},
    "search": {"query": _QUERY, "top_n": 2, "user": "ada"},
    "feedback": {"request_id": "AQQ...", "clicked": [3], "cited": [3, 0]},
}
"""A request of each dialect, one of search and one of feedback, as the docs show it."""
