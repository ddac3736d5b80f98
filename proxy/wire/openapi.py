"""What the OpenAPI page says of each dialect, made from the very types that bodies are decoded with."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import OpenAPIMediaType, Operation, RequestBody
from litestar.openapi.spec.base import BaseSchemaObject

from proxy.wire.tei import TeiError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


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
    error: ErrorDetail


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


def operation(requests: Sequence[Any], responses: Sequence[Any]) -> type[Operation]:
    """Return the operation of a route that takes any of *requests* and answers any of *responses*."""
    body = JsonSchema(schema_of(requests))
    answer = JsonSchema(schema_of(responses))

    class DialectOperation(Operation):
        """Puts the dialects' own schemas in."""

        def __post_init__(self) -> None:
            self.request_body = RequestBody(
                content={"application/json": OpenAPIMediaType(schema=body)},  # type: ignore[arg-type]
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
