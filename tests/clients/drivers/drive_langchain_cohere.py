"""langchain-cohere, made as its users make it: no way to name a user."""

from __future__ import annotations

import asyncio
from typing import Any

from asking import Asked, ranked
from langchain_cohere import CohereRerank
from langchain_core.documents import Document


def _reranker(asked: Asked) -> CohereRerank:
    return CohereRerank(base_url=asked.url, cohere_api_key=asked.key, model="rerank-v3.5", top_n=asked.top_n)


def _rerank(asked: Asked) -> list[dict[str, Any]]:
    answer = _reranker(asked).rerank(asked.documents, asked.query, top_n=asked.top_n)
    return [ranked(r["index"], r["relevance_score"]) for r in answer]


def _numbered(asked: Asked) -> list[Document]:
    return [Document(text, metadata={"place": i}) for i, text in enumerate(asked.documents)]


def _read(found: Any) -> list[dict[str, Any]]:
    return [ranked(d.metadata["place"], d.metadata["relevance_score"], document=d.page_content) for d in found]


CALLS = {
    "rerank": _rerank,
    "compress": lambda asked: _read(_reranker(asked).compress_documents(_numbered(asked), asked.query)),
    "compress-async": lambda asked: _read(
        asyncio.run(_reranker(asked).acompress_documents(_numbered(asked), asked.query))
    ),
}
