"""The cohere SDK, any version from 5 to 7."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import cohere
from asking import Asked, ranked

_MODEL = "rerank-v3.5"
_V1_OPTIONS = ("rank_fields", "max_chunks_per_doc")
_V2_OPTIONS = ("max_tokens_per_doc", "priority")


def _arguments(asked: Asked, *nullable: str) -> dict[str, Any]:
    return {
        "query": asked.query,
        "documents": asked.documents,
        "request_options": {"additional_headers": asked.headers},
        **asked.options(*nullable),
    }


def _v1_arguments(asked: Asked) -> dict[str, Any]:
    return {"return_documents": True, **_arguments(asked, "model", *_V1_OPTIONS)}


def _v2_arguments(asked: Asked) -> dict[str, Any]:
    return {"model": _MODEL, **_arguments(asked, *_V2_OPTIONS)}


def _with_documents(answer: Any) -> list[dict[str, Any]]:
    return [ranked(r.index, r.relevance_score, document=r.document.model_dump()) for r in answer.results]


def _bare(answer: Any) -> list[dict[str, Any]]:
    return [ranked(r.index, r.relevance_score) for r in answer.results]


def _v1(asked: Asked) -> list[dict[str, Any]]:
    return _with_documents(cohere.Client(asked.key, base_url=asked.url).rerank(**_v1_arguments(asked)))


def _v2(asked: Asked, under: str = "") -> list[dict[str, Any]]:
    return _bare(cohere.ClientV2(asked.key, base_url=asked.url + under).rerank(**_v2_arguments(asked)))


async def _v1_async(asked: Asked) -> list[dict[str, Any]]:
    async with cohere.AsyncClient(asked.key, base_url=asked.url) as client:
        return _with_documents(await client.rerank(**_v1_arguments(asked)))


async def _v2_async(asked: Asked) -> list[dict[str, Any]]:
    async with cohere.AsyncClientV2(asked.key, base_url=asked.url) as client:
        return _bare(await client.rerank(**_v2_arguments(asked)))


CALLS = {
    "v1": _v1,
    "v2": _v2,
    "v2-under-v1": partial(_v2, under="/v1"),
    "v1-async": lambda asked: asyncio.run(_v1_async(asked)),
    "v2-async": lambda asked: asyncio.run(_v2_async(asked)),
}
