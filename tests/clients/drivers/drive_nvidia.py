"""langchain-nvidia-ai-endpoints' NVIDIARerank: lists the models first, asks in batches of 32, reads raw logits."""

from __future__ import annotations

import asyncio
import logging
import warnings
from typing import Any

from asking import Asked, ranked
from langchain_core.documents import Document
from langchain_nvidia_ai_endpoints import NVIDIARerank

warnings.simplefilter("ignore")
logging.disable()


def _reranker(asked: Asked) -> NVIDIARerank:
    return NVIDIARerank(  # without a model: it takes the first that the server lists
        base_url=f"{asked.url}/v1",
        api_key=asked.key,
        top_n=asked.top_n or max(1, len(asked.documents)),
        default_headers=asked.headers,
        usage_telemetry_enabled=False,
    )


def _numbered(asked: Asked) -> list[Document]:
    return [Document(text, metadata={"place": i}) for i, text in enumerate(asked.documents)]


def _read(found: Any) -> list[dict[str, Any]]:
    return [ranked(d.metadata["place"], d.metadata["relevance_score"], document=d.page_content) for d in found]


def _sync(asked: Asked) -> list[dict[str, Any]]:
    return _read(_reranker(asked).compress_documents(_numbered(asked), asked.query))


def _async(asked: Asked) -> list[dict[str, Any]]:
    return _read(asyncio.run(_reranker(asked).acompress_documents(_numbered(asked), asked.query)))


CALLS = {"sync": _sync, "async": _async}
