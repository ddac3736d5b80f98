"""Who is asking: the key that the split sticks to. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from flags.vocabulary import FlagContext
from proxy.wire.canonical import decode

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxy.settings import Identity

QUERY_SOURCE = "query"
"""Marks a key made of API key and query, where no source named a user."""

_NOTHING = msgspec.Raw(b"")


class Fields(Protocol):
    """Where a source may find its value."""

    def get(self, name: str, /) -> str | None:
        """Return the value of a field; None: it has none."""


class BodyFields:
    """Top-level fields of one body, read when the first is asked for: most users are named by a header."""

    def __init__(self, reader: BodyReader, body: bytes) -> None:
        self._reader = reader
        self._body = body
        self._found: dict[str, str] | None = None

    def get(self, name: str, /) -> str | None:
        """Return a text as it is, a number or boolean as written; None for anything else."""
        if self._found is None:
            self._found = self._reader.read(self._body)
        return self._found.get(name)


class BodyReader:
    """Finds in a body the top-level fields that the configuration names, and decodes nothing else."""

    def __init__(self, settings: Identity) -> None:
        sources = (*settings.user, *settings.session, *settings.properties.values())
        names = dict.fromkeys(source.removeprefix("body:") for source in sources if source.startswith("body:"))
        self._places = {f"field_{i}": name for i, name in enumerate(names)}
        raw = [(place, msgspec.Raw, msgspec.field(name=name, default=_NOTHING)) for place, name in self._places.items()]
        self._kind: type[Any] = msgspec.defstruct("NamedFields", raw)

    def read(self, body: bytes) -> dict[str, str]:
        """Return those fields of a JSON object that hold a text, a number or a boolean."""
        if not self._places:
            return {}
        found = decode(body, self._kind)
        values = {name: _scalar(bytes(getattr(found, place))) for place, name in self._places.items()}
        return {name: value for name, value in values.items() if value}


def _scalar(raw: bytes) -> str | None:
    if raw.startswith(b'"'):
        return decode(raw, str)
    return None if raw == b"null" or raw.startswith((b"{", b"[")) else raw.decode()


class Identified(msgspec.Struct, frozen=True):
    """The user of one request."""

    context: FlagContext
    source: str
    """The configured source that named the user, or ``query``."""


def identify(
    settings: Identity,
    headers: Mapping[str, str],
    body_fields: Fields,
    *,
    query: str,
    api_key: str,
    remote_address: str | None,
) -> Identified:
    """Return the user that the first configured source names.

    None does: the key is a hash of API key and query. The same query then always has the same arm, and a
    tenant behind one key is split by its queries, not moved as a whole.
    """
    user, source = _first(settings.user, headers, body_fields)
    if user is None:
        digest = hashlib.blake2b(f"{api_key}\0{query}".encode("utf-8", "surrogatepass"), digest_size=12)
        user, source = digest.hexdigest(), QUERY_SOURCE
    session, _ = _first(settings.session, headers, body_fields)
    found = {name: _value(source, headers, body_fields) for name, source in settings.properties.items()}
    properties = {name: value for name, value in found.items() if value}
    return Identified(FlagContext(user, session, remote_address, properties), source)


def hash_user(user_id: str, salt: bytes) -> str:
    """Return what stands for a user in anything stored or exported: 16 hex digits, useless without *salt*."""
    return hashlib.blake2b(user_id.encode("utf-8", "surrogatepass"), key=salt[:64], digest_size=8).hexdigest()


def _first(sources: Sequence[str], headers: Mapping[str, str], body_fields: Fields) -> tuple[str | None, str]:
    for source in sources:
        if value := _value(source, headers, body_fields):
            return value, source
    return None, ""


def _value(source: str, headers: Mapping[str, str], body_fields: Fields) -> str | None:
    kind, _, name = source.partition(":")
    return headers.get(name.lower()) if kind == "header" else body_fields.get(name)
