"""Tells which dialect a request speaks: by its path, its keys, then its headers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from proxy.wire.cohere import CohereDialect
from proxy.wire.jina import JinaDialect
from proxy.wire.nim import NimDialect
from proxy.wire.tei import TeiDialect
from proxy.wire.voyage import VoyageDialect

if TYPE_CHECKING:
    from collections.abc import Mapping

    from proxy.wire.canonical import Dialect

COHERE_V1 = CohereDialect("1")
COHERE_V2 = CohereDialect("2")
JINA = JinaDialect()
VOYAGE = VoyageDialect()
TEI = TeiDialect()
NIM = NimDialect()

DIALECTS: dict[str, Dialect] = {d.name: d for d in (COHERE_V1, COHERE_V2, JINA, VOYAGE, TEI, NIM)}

_RAW = msgspec.Raw(b"")


class _Keys(msgspec.Struct):
    """The keys that give a dialect away; their values stay undecoded."""

    texts: msgspec.Raw = _RAW
    passages: msgspec.Raw = _RAW
    top_k: msgspec.Raw = _RAW
    truncation: msgspec.Raw = _RAW
    rank_fields: msgspec.Raw = _RAW
    max_chunks_per_doc: msgspec.Raw = _RAW


_decoder = msgspec.json.Decoder(_Keys)


def by_body(body: bytes, headers: Mapping[str, str]) -> Dialect:
    """Return the dialect of a ``/v1/rerank`` or ``/rerank`` request; the first sign decides.

    A body that is no JSON object speaks, if anything, the dialect of its headers.
    """
    try:
        keys = _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        keys = _Keys()
    if keys.texts:
        return TEI
    if keys.passages:
        return NIM
    if keys.top_k or keys.truncation:
        return VOYAGE
    if keys.rank_fields or keys.max_chunks_per_doc or is_cohere_sdk(headers):
        return COHERE_V1
    return JINA


def is_cohere_sdk(headers: Mapping[str, str]) -> bool:
    """Tell whether a cohere SDK sent these headers."""
    return headers.get("x-fern-sdk-name") == "cohere" or headers.get("user-agent", "").startswith("cohere/")
