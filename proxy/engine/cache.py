"""Scores of pairs seen before: a document that many queries bring back is still scored for each query once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict


class ScoreCache:
    """A bounded memory of raw logits, the least recently used forgotten first. For one event loop.

    Keys say the model's revision, the pair, and the caller's own token limit, so a new model never
    answers with an old one's scores.
    """

    def __init__(self, revision: str, entries: int) -> None:
        self._seed = hashlib.blake2b(revision.encode(), digest_size=16).digest()
        self._entries = entries
        self._logits: OrderedDict[bytes, float] = OrderedDict()
        self.hits = 0
        self.misses = 0

    def key(self, query: str, document: str, max_document_tokens: int | None) -> bytes:
        """Return the key of one pair."""
        digest = hashlib.blake2b(self._seed, digest_size=16)
        digest.update(b"%d:%d:" % (max_document_tokens or 0, len(query)))
        digest.update(query.encode("utf-8", "surrogatepass"))
        digest.update(document.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def get(self, key: bytes) -> float | None:
        """Return the logit of a pair seen before."""
        logit = self._logits.get(key)
        if logit is None:
            self.misses += 1
        else:
            self.hits += 1
            self._logits.move_to_end(key)
        return logit

    def put(self, key: bytes, logit: float) -> None:
        """Remember the logit of a pair."""
        if not self._entries:
            return
        self._logits[key] = logit
        if len(self._logits) > self._entries:
            self._logits.popitem(last=False)
