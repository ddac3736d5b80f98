"""Scores of pairs seen before: a document that many queries bring back is still scored for each query once."""

from __future__ import annotations

import hashlib
from collections import OrderedDict

import msgspec


class ScoredPair(msgspec.Struct, frozen=True, gc=False):
    """All that an answer says of one pair, so that it is the same from memory."""

    logit: float
    tokens: int
    was_cut: bool
    query_was_cut: bool


class ScoreCache:
    """A bounded memory of scored pairs, the least recently used forgotten first. For one event loop.

    Keys say the model's revision, the pair, and the caller's own token limit, so a new model never
    answers with an old one's scores.
    """

    def __init__(self, revision: str, entries: int) -> None:
        self._seed = hashlib.blake2b(revision.encode(), digest_size=16).digest()
        self._entries = entries
        self._pairs: OrderedDict[bytes, ScoredPair] = OrderedDict()

    def key(self, query: str, document: str, max_document_tokens: int | None) -> bytes:
        """Return the key of one pair."""
        digest = hashlib.blake2b(self._seed, digest_size=16)
        digest.update(b"%d:%d:" % (max_document_tokens or 0, len(query)))
        digest.update(query.encode("utf-8", "surrogatepass"))
        digest.update(document.encode("utf-8", "surrogatepass"))
        return digest.digest()

    def get(self, key: bytes) -> ScoredPair | None:
        """Return what is known of a pair seen before."""
        pair = self._pairs.get(key)
        if pair is not None:
            self._pairs.move_to_end(key)
        return pair

    def put(self, key: bytes, pair: ScoredPair) -> None:
        """Remember a pair."""
        if not self._entries:
            return
        self._pairs[key] = pair
        if len(self._pairs) > self._entries:
            self._pairs.popitem(last=False)
