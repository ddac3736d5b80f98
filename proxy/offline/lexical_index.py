"""BM25 over a whole corpus, saved and read back as memory maps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import bm25s
import numpy as np

from proxy.offline.lexical import K1, B, words_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_BATCH = 4096


class LexicalIndex:
    """Finds passages by their words, rare ones weighed most. Places are those of the corpus, from 0 on."""

    def __init__(self, index: bm25s.BM25) -> None:
        self._index = index
        self.passages: int = index.scores["num_docs"]

    @classmethod
    def load(cls, folder: Path) -> LexicalIndex:
        """Return what `write_lexical` wrote; scores stay on disk until they are asked for.

        Raises:
            OSError, ValueError, KeyError: it is not that.

        """
        return cls(bm25s.BM25.load(folder, mmap=True, show_progress=False))

    def best(self, query: str, count: int) -> list[int]:
        """Return the places of at most *count* passages that have a word of *query*, best first; ties as indexed."""
        known = [word for word in words_of([query])[0] if word in self._index.vocab_dict]
        if not known:
            return []
        return highest(self._index.get_scores(known), count, above=0.0)

    def lowest_share(self, query: str) -> float:
        """Return the share of all passages that have the rarest of the words of *query* that any passage has.

        1.0 where no passage has any of them.
        """
        ends = self._index.scores["indptr"]
        places = [self._index.vocab_dict.get(word) for word in set(words_of([query])[0])]
        counts = [int(ends[place + 1] - ends[place]) for place in places if place is not None]
        return min((count / self.passages for count in counts if count), default=1.0)


def write_lexical(texts: Iterable[str], folder: Path) -> None:
    """Index *texts*, at least one, and write the index into *folder*.

    Raises:
        OSError: it cannot be written.

    """
    rows: list[list[str]] = []
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            rows += words_of(batch)
            batch = []
    rows += words_of(batch) if batch else []
    index = bm25s.BM25(k1=K1, b=B, method="lucene")
    index.index([words or [""] for words in rows], show_progress=False)
    index.save(folder, show_progress=False)


def highest(scores: np.ndarray[tuple[int], np.dtype[np.float32]], count: int, *, above: float = -np.inf) -> list[int]:
    """Return the places of the *count* highest scores that are over *above*, highest first; ties by place."""
    if count < len(scores):
        least = np.partition(scores, len(scores) - count)[len(scores) - count]
        places = np.flatnonzero(scores >= max(least, above))
    else:
        places = np.arange(len(scores))
    places = places[scores[places] > above]
    order = np.argsort(-scores[places], kind="stable")[:count]
    found: list[int] = places[order].tolist()
    return found
