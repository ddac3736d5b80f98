"""The calls that every measurement makes: 25 documents of 1 kB, other users, queries and texts in each."""

from __future__ import annotations

import json
import random
from typing import Any

DOCUMENTS = 25
DOCUMENT_BYTES = 1000
_SEED = 7
_WORDS = (
    "water river bridge engine market virus vaccine paper history doctor garden island window summer winter "
    "teacher student science number letter animal forest mountain planet energy signal memory surface culture "
    "the of and to in a is that for it was on are as with his they at be this from have or by one had not but "
    "travels produces contains reduces measures describes protects connects follows changes increases explains"
)


def text(chance: random.Random, length: int) -> str:
    """Return words, *length* bytes of them."""
    words = " ".join(chance.choices(_WORDS.split(), k=length // 3))
    return words[: length - 1] + "."


def bodies(count: int, *, documents: int = DOCUMENTS, **fields: Any) -> list[bytes]:
    """Return *count* bodies that every server here understands, the same ones in every run."""
    chance = random.Random(_SEED)  # noqa: S311 - the same texts in every run, no secret
    return [
        json.dumps(
            {
                "model": "rerank",
                "query": text(chance, 60),
                "documents": [text(chance, DOCUMENT_BYTES) for _ in range(documents)],
                **fields,
            }
        ).encode()
        for _ in range(count)
    ]


def requests(path: str, count: int, *, documents: int = DOCUMENTS) -> list[bytes]:
    """Return *count* HTTP/1.1 requests, ready to be sent, each of another user."""
    return [
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\naccept: */*\r\n"
        f"x-user-id: user-{number}\r\ncontent-length: {len(body)}\r\n\r\n".encode()
        + body
        for number, body in enumerate(bodies(count, documents=documents))
    ]
