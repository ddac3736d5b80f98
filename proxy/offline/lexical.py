"""BM25 over a judged collection: a retriever where no candidates are given, and a reranker to be compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bm25s
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

K1, B = 0.9, 0.4
"""As Anserini has them (Yang, Fang and Lin 2018), and the figures that models here are reported beside."""


def words_of(texts: list[str]) -> list[list[str]]:
    """Return words in lower case, without English function words: in a small collection they are rare by chance."""
    found: list[list[str]] = bm25s.tokenize(texts, stopwords="english", return_ids=False, show_progress=False)
    return found


class Bm25:
    """Lucene's BM25 of a query against documents, rare words weighed over all of them."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        """Index *documents*, at least one, by their ids."""
        self._ids = list(documents)
        self._place = {name: i for i, name in enumerate(self._ids)}
        self._index = bm25s.BM25(k1=K1, b=B, method="lucene")
        self._index.index([words or [""] for words in words_of(list(documents.values()))], show_progress=False)

    def scores(self, query: str, ids: Sequence[str]) -> list[float]:
        """Return the score of each document of *ids*."""
        found = self._all(query)
        return [float(found[self._place[name]]) for name in ids]

    def best(self, query: str, count: int) -> list[str]:
        """Return the ids of the best *count* documents, best first; ties as indexed."""
        found = self._all(query)
        order = np.argsort(-found, kind="stable")[:count]
        return [self._ids[i] for i in order]

    def _all(self, query: str) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
        known = [word for word in words_of([query])[0] if word in self._index.vocab_dict]
        if not known:
            return np.zeros(len(self._ids), np.float32)
        scores: np.ndarray[tuple[int], np.dtype[np.float32]] = self._index.get_scores(known)
        return scores
