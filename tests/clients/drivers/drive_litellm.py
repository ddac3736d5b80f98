"""LiteLLM's `rerank()`, through each provider whose server the proxy can stand for."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import litellm
from asking import Asked, ranked

litellm.suppress_debug_info = True

_ECHO_OPTIONS = ("rank_fields", "max_tokens_per_doc")


def _arguments(asked: Asked, model: str, path: str, *, returns: bool) -> dict[str, Any]:
    return {
        "model": model,
        "api_base": asked.url + path,
        "api_key": asked.key,
        "query": asked.query,
        "documents": asked.documents,
        "headers": asked.headers,
        "return_documents": returns,
        **asked.options(*_ECHO_OPTIONS),
    }


def _read(answer: Any) -> list[dict[str, Any]]:
    return [
        ranked(r["index"], r["relevance_score"], **({"document": r["document"]} if "document" in r else {}))
        for r in answer.results
    ]


def _sync(asked: Asked, *, model: str, path: str = "", returns: bool = True) -> list[dict[str, Any]]:
    return _read(litellm.rerank(**_arguments(asked, model, path, returns=returns)))


def _async(asked: Asked, *, model: str, path: str = "", returns: bool = True) -> list[dict[str, Any]]:
    return _read(asyncio.run(litellm.arerank(**_arguments(asked, model, path, returns=returns))))


CALLS = {
    "cohere": partial(_sync, model="cohere/rerank-v3.5"),
    "cohere-v1": partial(_sync, model="cohere/rerank-v3.5", path="/v1/rerank"),
    "cohere-async": partial(_async, model="cohere/rerank-v3.5"),
    "jina_ai": partial(_sync, model="jina_ai/jina-reranker-v2-base-multilingual"),
    "hosted_vllm": partial(_sync, model="hosted_vllm/reranker"),
    "hosted_vllm-v1": partial(_sync, model="hosted_vllm/reranker", path="/v1/rerank"),
    "huggingface": partial(_sync, model="huggingface/reranker"),
    "infinity": partial(_sync, model="infinity/reranker"),
    "cohere-bare": partial(_sync, model="cohere/rerank-v3.5", returns=False),
    "hosted_vllm-bare": partial(_sync, model="hosted_vllm/reranker", returns=False),
    "infinity-bare": partial(_sync, model="infinity/reranker", returns=False),
    "voyage": partial(_sync, model="voyage/rerank-2.5"),
    "nvidia_nim": partial(_sync, model="nvidia_nim/ranking/reranker"),
}
