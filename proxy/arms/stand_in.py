"""A stand-in for the language model: a real OpenAI-compatible endpoint on loopback, with nothing to pay.

It ranks lexically (BM25 over the documents of the call) and takes about as long as GPT-4o-mini does, so
that everything around it can be tried before there is a key. It is no model, and every answer says so.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import re
import time
from collections import Counter
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import toktok
from litestar import Litestar, Request, get, post

from proxy.arms.llm import ENCODING

if TYPE_CHECKING:
    from collections.abc import Sequence

_K1, _B = 0.9, 0.4
_WORDS = re.compile(r"\w+")
_SPREAD = 0.25
"""Sigma of the log-normal delay."""


def bm25(query: str, documents: Sequence[str]) -> list[float]:
    """Return BM25 scores (Robertson and Zaragoza 2009, eq. 3.15), *documents* being the whole collection."""
    words = [_WORDS.findall(document.lower()) for document in documents]
    mean = sum(map(len, words)) / max(1, len(words)) or 1.0
    counts = [Counter(found) for found in words]
    scores = [0.0] * len(documents)
    for term in set(_WORDS.findall(query.lower())):
        holding = sum(term in count for count in counts)
        weight = math.log(1 + (len(documents) - holding + 0.5) / (holding + 0.5))
        for i, count in enumerate(counts):
            norm = _K1 * (1 - _B + _B * len(words[i]) / mean)
            scores[i] += weight * count[term] * (_K1 + 1) / (count[term] + norm)
    return scores


def create_stand_in(delay_seconds: float, seed: int = 1) -> Litestar:
    """Return the endpoint, an ASGI application; each answer takes about *delay_seconds*."""
    dice = random.Random(seed)  # noqa: S311 - a delay, no secret

    @get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [{"id": "stand-in-llm", "object": "model", "owned_by": "rerank-canary"}]}

    @post("/v1/chat/completions", status_code=200)
    async def complete(request: Request[Any, Any, Any]) -> dict[str, Any]:
        data = await request.json()
        asked = json.loads(data["messages"][-1]["content"])
        scores = bm25(asked["query"], list(asked["documents"].values()))
        best = max(scores, default=0.0) or 1.0
        answer = {key: round(90 * score / best) for key, score in zip(asked["documents"], scores, strict=True)}
        content = json.dumps(answer, separators=(",", ":"))
        sent, received = toktok.batch_count([json.dumps(data["messages"]), content], ENCODING)
        if delay_seconds:
            await asyncio.sleep(dice.lognormvariate(math.log(delay_seconds), _SPREAD))
        return {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": "stand-in-llm",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {"role": "assistant", "content": content, "refusal": None},
                }
            ],
            "usage": {"prompt_tokens": sent, "completion_tokens": received, "total_tokens": sent + received},
        }

    return Litestar([models, complete], openapi_config=None, logging_config=None)
