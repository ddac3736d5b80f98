"""Tells which dialect a request speaks: by its path, its keys, then its headers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from proxy.wire.canonical import without_lone_surrogates
from proxy.wire.cohere import CohereDialect
from proxy.wire.jina import InfinityDialect, JinaDialect
from proxy.wire.nim import NimDialect
from proxy.wire.tei import TeiDialect
from proxy.wire.voyage import VoyageDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.wire.canonical import Dialect

COHERE_V1 = CohereDialect("1")
COHERE_V2 = CohereDialect("2")
JINA = JinaDialect()
INFINITY = InfinityDialect()
VOYAGE = VoyageDialect()
TEI = TeiDialect()
NIM = NimDialect()

_VOYAGE_MODEL = re.compile(rb'"rerank-(?:lite-)?[12]\b')
"""rerank-2.5, rerank-2-lite, rerank-lite-1: no other vendor's names look like that."""

DIALECTS: dict[str, Dialect] = {d.name: d for d in (COHERE_V1, COHERE_V2, JINA, INFINITY, VOYAGE, TEI, NIM)}

_RAW = msgspec.Raw(b"")


class _Keys(msgspec.Struct):
    """The keys that give a dialect away; their values stay undecoded."""

    texts: msgspec.Raw = _RAW
    passages: msgspec.Raw = _RAW
    top_k: msgspec.Raw = _RAW
    truncation: msgspec.Raw = _RAW
    rank_fields: msgspec.Raw = _RAW
    max_chunks_per_doc: msgspec.Raw = _RAW
    model: msgspec.Raw = _RAW


_decoder = msgspec.json.Decoder(_Keys)
_KEY = re.compile(
    rb"""(?<!\\)"(texts|passages|top_k|truncation|rank_fields|max_chunks_per_doc|model)"\s*:\s*(null|"[^"\\]{0,64}"?|.)""",
    re.DOTALL,
)
"""One of them with the beginning of its value. Inside a string its quotes would be escaped."""


def by_body(body: bytes, headers: Mapping[str, str]) -> Dialect:
    """Return the dialect of a ``/v1/rerank`` or ``/rerank`` request; the first sign decides.

    A body that is no JSON object speaks, if anything, the dialect of its headers.
    """
    return _by_keys(_keys_of(body) or _keys_of(without_lone_surrogates(body)) or _Keys(), headers)


def by_beginning(beginning: bytes, headers: Mapping[str, str]) -> Dialect:
    """Return the dialect of a ``/v1/rerank`` or ``/rerank`` request of which only the beginning is known."""
    found: dict[str, msgspec.Raw] = {}
    for key in _KEY.finditer(beginning):
        found.setdefault(key[1].decode(), msgspec.Raw(key[2]))
    return _by_keys(_Keys(**found), headers)


def _keys_of(body: bytes) -> _Keys | None:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None


def _by_keys(keys: _Keys, headers: Mapping[str, str]) -> Dialect:
    if _is_given(keys.texts):
        return TEI
    if _is_given(keys.passages):
        return NIM
    if keys.top_k or keys.truncation:  # Voyage's client sends them as null too, and nobody else does
        return VOYAGE
    if _is_given(keys.rank_fields) or _is_given(keys.max_chunks_per_doc):
        return COHERE_V1
    return by_headers(headers) or (VOYAGE if _VOYAGE_MODEL.match(bytes(keys.model)) else JINA)


def by_headers(headers: Mapping[str, str]) -> Dialect | None:
    """Return the dialect of a client's own SDK; None where the headers do not tell."""
    agent = headers.get("user-agent", "")
    if headers.get("x-fern-sdk-name") == "cohere" or agent.startswith("cohere/"):
        return COHERE_V1
    if agent.startswith("Voyage/"):
        return VOYAGE
    return None


def _is_given(value: msgspec.Raw) -> bool:
    return bool(value) and bytes(value) != b"null"
