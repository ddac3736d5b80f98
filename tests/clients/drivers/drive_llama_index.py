"""llama-index's rerankers for Cohere, Jina, TEI and Voyage. None can name a user; all want a `top_n`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import voyageai
from asking import Asked, ranked
from llama_index.core.schema import NodeWithScore, TextNode
from llama_index.postprocessor.cohere_rerank import CohereRerank
from llama_index.postprocessor.jinaai_rerank import JinaRerank
from llama_index.postprocessor.tei_rerank import TextEmbeddingInference
from llama_index.postprocessor.voyageai_rerank import VoyageAIRerank

if TYPE_CHECKING:
    from llama_index.core.postprocessor.types import BaseNodePostprocessor

logging.disable()


def _rerank(processor: BaseNodePostprocessor, asked: Asked) -> list[dict[str, Any]]:
    nodes = [NodeWithScore(node=TextNode(text=text, id_=str(i))) for i, text in enumerate(asked.documents)]
    found = processor.postprocess_nodes(nodes, query_str=asked.query)
    return [ranked(int(one.node.node_id), one.score, document=one.node.get_content()) for one in found]


def _top_n(asked: Asked) -> int:
    return asked.top_n or max(1, len(asked.documents))


def _cohere(asked: Asked) -> list[dict[str, Any]]:
    return _rerank(CohereRerank(top_n=_top_n(asked), api_key=asked.key, base_url=asked.url), asked)


def _jina(asked: Asked) -> list[dict[str, Any]]:
    return _rerank(JinaRerank(top_n=_top_n(asked), api_key=asked.key, base_url=f"{asked.url}/v1"), asked)


def _tei(asked: Asked) -> list[dict[str, Any]]:
    # the token goes out as it is, without "Bearer"
    return _rerank(TextEmbeddingInference(top_n=_top_n(asked), auth_token=asked.key, base_url=asked.url), asked)


def _voyage(asked: Asked) -> list[dict[str, Any]]:
    processor = VoyageAIRerank(model="rerank-2.5", api_key=asked.key, top_n=asked.top_n)
    # it takes no base URL; its users swap the client that it made, or the name's address
    processor._client = voyageai.Client(asked.key, base_url=f"{asked.url}/v1")
    return _rerank(processor, asked)


CALLS = {"cohere": _cohere, "jina": _jina, "tei": _tei, "voyage": _voyage}
