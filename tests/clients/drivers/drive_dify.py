"""Dify's own class for OpenAI-compatible rerankers, from its plugin SDK. It takes no headers."""

from __future__ import annotations

from typing import Any

from asking import Asked, ranked
from dify_plugin.interfaces.model.openai_compatible.rerank import OAICompatRerankModel


def _invoke(asked: Asked) -> list[dict[str, Any]]:
    credentials = {"endpoint_url": f"{asked.url}/v1", "api_key": asked.key}
    found = OAICompatRerankModel([]).invoke(
        "reranker", credentials, asked.query, asked.documents, score_threshold=None, top_n=asked.top_n
    )
    return [ranked(one.index, one.score, document=one.text) for one in found.docs]


def _validate(asked: Asked) -> list[dict[str, Any]]:
    """Do what Dify does when the model is added: its own two documents must come out 0.8 apart."""
    OAICompatRerankModel([]).validate_credentials("reranker", {"endpoint_url": f"{asked.url}/v1", "api_key": asked.key})
    return []


CALLS = {"invoke": _invoke, "validate": _validate}
