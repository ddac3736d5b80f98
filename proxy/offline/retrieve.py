"""Hybrid retrieval: BM25, and the nearest vectors of a bi-encoder, in one order.

Where a query's rare words decide (names, numbers, codes) BM25 is the better of the two, where it says the same in
other words the vectors are; reciprocal rank fusion has the best of both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from proxy.errors import InvalidFile, InvalidModel
from proxy.offline.bi_encoder import BiEncoder
from proxy.offline.corpus import Passage
from proxy.offline.dense_index import DenseIndex
from proxy.offline.fusion import fused
from proxy.offline.index_folder import LEXICAL, VECTORS, Manifest, data_of, read_manifest
from proxy.offline.lexical_index import LexicalIndex
from proxy.offline.passage_store import PassageStore

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from proxy.offline.dense_index import Encoder

Mode = Literal["hybrid", "bm25", "dense"]
MODES: tuple[Mode, ...] = ("bm25", "dense", "hybrid")

_DEPTH = 100
"""How much of each order is fused, at least; what is asked for where that is more."""


class Found(msgspec.Struct, frozen=True):
    """One passage that a query found."""

    place: int
    """In the corpus, from 0 on."""
    passage: Passage
    bm25_rank: int | None
    """From 1 on; None: not among BM25's best."""
    dense_rank: int | None


class Orders(NamedTuple):
    """Places of passages, each order best first."""

    fused: list[int]
    """As many as were asked for."""
    bm25: list[int]
    """At least as many, where there are; none where only vectors were asked for."""
    dense: list[int]


class _Files(NamedTuple):
    """Of one index."""

    manifest: Manifest
    passages: PassageStore
    lexical: LexicalIndex
    dense: DenseIndex | None


class Retriever:
    """An index that is open. Its methods block, and may be called from several threads."""

    def __init__(self, files: _Files, encoder: Encoder | None) -> None:
        """Take an index, and the encoder that made its vectors; None: BM25 only."""
        self.manifest = files.manifest
        self.passages = files.passages
        self.lexical = files.lexical
        self._dense = files.dense
        self._encoder = encoder

    @classmethod
    def load(
        cls, folder: Path, *, model: str | None = None, device: str = "cpu", encoder: Encoder | None = None
    ) -> Retriever:
        """Open the index in *folder*, memory-mapped, and load its model.

        Args:
            folder: what `write_index` wrote.
            model: where the model lies by now. None: where it lay then.
            device: as torch names it.
            encoder: in place of the model.

        Raises:
            InvalidFile: there is no index, it is broken, or the corpus has changed since.
            InvalidModel: the model cannot be loaded, or is another one than the index was made with.

        """
        files = _open(folder)
        made_with = files.manifest.dense
        if made_with is None:
            return cls(files, None)
        encoder = encoder or BiEncoder(model or made_with.model, device)
        if encoder.revision != made_with.revision:
            raise InvalidModel(
                f"{encoder.name}: is of revision {encoder.revision}, and {folder} was made with "
                f"{made_with.revision}; make the index again with `rerank-canary retrieve index`"
            )
        return cls(files, encoder)

    @property
    def modes(self) -> tuple[Mode, ...]:
        """What this index can do: without vectors, BM25 only."""
        return MODES if self._dense is not None else ("bm25",)

    def search(self, query: str, count: int, mode: Mode | None = None) -> list[Found]:
        """Return at most *count* passages for a query, the best first; *mode* None: the best that the index can do.

        Raises:
            InvalidModel: the index has no vectors, and they are asked for.
            RuntimeError, ValueError: the model failed.

        """
        return self.search_all([query], count, mode)[0]

    def search_all(self, queries: Sequence[str], count: int, mode: Mode | None = None) -> list[list[Found]]:
        """Return for each query what `search` does; many at once are encoded and compared together."""
        return [self._found(orders) for orders in self.orders(queries, count, mode)]

    def ids(self, queries: Sequence[str], count: int, mode: Mode | None = None) -> list[list[str]]:
        """Return for each query the ids of what `search` finds."""
        return [[self.passages[place].id for place in one.fused] for one in self.orders(queries, count, mode)]

    def orders(self, queries: Sequence[str], count: int, mode: Mode | None = None) -> list[Orders]:
        """Return for each query what `search` finds as places, and the orders that it is made of."""
        mode = mode or self.modes[-1]
        depth = max(_DEPTH, count) if mode == "hybrid" else count
        lexical = [self.lexical.best(query, depth) for query in queries] if mode != "dense" else [[] for _ in queries]
        dense = self._nearest(queries, depth) if mode != "bm25" else [[] for _ in queries]
        return [
            Orders([place for place, _ in fused([by_words, by_vectors])][:count], by_words, by_vectors)
            for by_words, by_vectors in zip(lexical, dense, strict=True)
        ]

    def _nearest(self, queries: Sequence[str], count: int) -> list[list[int]]:
        if self._dense is None or self._encoder is None:
            raise InvalidModel("the index has no vectors: make it with `--model`")
        return self._dense.best(self._encoder.queries(queries), count)

    def _found(self, orders: Orders) -> list[Found]:
        by_words = {place: rank for rank, place in enumerate(orders.bm25, start=1)}
        by_vectors = {place: rank for rank, place in enumerate(orders.dense, start=1)}
        return [
            Found(place, self.passages[place], by_words.get(place), by_vectors.get(place)) for place in orders.fused
        ]


def _open(folder: Path) -> _Files:
    """Return the files of an index, opened; where it is replaced meanwhile, the new one's."""
    before = data_of(folder)
    try:
        return _files(folder, read_manifest(folder))
    except InvalidFile:
        if data_of(folder) == before:
            raise
    return _open(folder)


def _files(folder: Path, manifest: Manifest) -> _Files:
    data = folder / manifest.data
    try:
        passages = PassageStore.load(data)
        lexical = LexicalIndex.load(data / LEXICAL)
        dense = DenseIndex.load(data / VECTORS) if manifest.dense else None
    except (OSError, ValueError, KeyError) as exc:
        raise InvalidFile(data, f"cannot be read: {exc}") from exc
    counts = {len(passages), lexical.passages, dense.shape[0] if dense else len(passages)}
    if counts != {manifest.passages}:
        raise InvalidFile(data, f"its files have {sorted(counts)} passages, not {manifest.passages}")
    return _Files(manifest, passages, lexical, dense)
