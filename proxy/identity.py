"""Who is asking: the key that the split sticks to. Pure."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

from flags.vocabulary import FlagContext

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from proxy.settings import Identity

QUERY_SOURCE = "query"
"""Marks a key made of API key and query, where no source named a user."""


class Identified(msgspec.Struct, frozen=True):
    """The user of one request."""

    context: FlagContext
    source: str
    """The configured source that named the user, or ``query``."""


def identify(
    settings: Identity,
    headers: Mapping[str, str],
    body_fields: Mapping[str, str],
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


def _first(
    sources: Sequence[str], headers: Mapping[str, str], body_fields: Mapping[str, str]
) -> tuple[str | None, str]:
    for source in sources:
        if value := _value(source, headers, body_fields):
            return value, source
    return None, ""


def _value(source: str, headers: Mapping[str, str], body_fields: Mapping[str, str]) -> str | None:
    kind, _, name = source.partition(":")
    return headers.get(name.lower()) if kind == "header" else body_fields.get(name)
