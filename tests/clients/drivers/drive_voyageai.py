"""The voyageai SDK; it takes no headers."""

from __future__ import annotations

import asyncio
from typing import Any

import voyageai
from asking import Asked, ranked

_MODEL = "rerank-2.5"


def _read(answer: Any) -> list[dict[str, Any]]:
    return [ranked(r.index, r.relevance_score, document=r.document) for r in answer.results]


def _sync(asked: Asked) -> list[dict[str, Any]]:
    client = voyageai.Client(asked.key, base_url=f"{asked.url}/v1")
    return _read(client.rerank(asked.query, asked.documents, _MODEL, **asked.options("truncation", top_n="top_k")))


def _async(asked: Asked) -> list[dict[str, Any]]:
    client = voyageai.AsyncClient(asked.key, base_url=f"{asked.url}/v1")
    options = asked.options("truncation", top_n="top_k")
    return _read(asyncio.run(client.rerank(asked.query, asked.documents, _MODEL, **options)))


CALLS = {"sync": _sync, "async": _async}
