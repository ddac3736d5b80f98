"""Vectors of a whole corpus, saved and read back as a memory map, and searched exactly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np

from proxy.offline.lexical_index import highest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

Dtype = Literal["float16", "float32"]
Vectors = np.ndarray[tuple[int, int], np.dtype[np.float32]]

_BLOCK_BYTES = 1 << 24
"""Of 32-bit values that are multiplied at once: what bounds the memory of a search, however large the corpus."""
_BATCH = 1024
_QUERIES = 256


class Encoder(Protocol):
    """What makes vectors of length 1 from texts."""

    name: str
    revision: str
    precision: str
    """What passages are encoded in."""

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of queries."""

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Return the vectors of passages."""


class DenseIndex:
    """Finds passages by the cosine of their vectors with the query's. Places are those of the corpus, from 0 on."""

    def __init__(self, vectors: np.ndarray[tuple[int, int], np.dtype[np.float16 | np.float32]]) -> None:
        """Take vectors of length 1, shape (passages, dimensions)."""
        self._vectors = vectors
        self._block = max(1, _BLOCK_BYTES // (4 * vectors.shape[1]))

    @classmethod
    def load(cls, file: Path) -> DenseIndex:
        """Return what `write_dense` wrote; vectors stay on disk until they are asked for.

        Raises:
            OSError, ValueError: it is not that.

        """
        return cls(np.load(file, mmap_mode="r", allow_pickle=False))

    @property
    def shape(self) -> tuple[int, int]:
        """How many passages, of how many dimensions."""
        return self._vectors.shape

    def vectors(self, places: Sequence[int]) -> Vectors:
        """Return a copy of the vectors of *places*, shape (places, dimensions)."""
        found: Vectors = np.asarray(self._vectors[places], np.float32).copy()
        return found

    def best(self, queries: Vectors, count: int) -> list[list[int]]:
        """Return for each query, shape (queries, dimensions), the places of its nearest *count*, nearest first."""
        found: list[list[int]] = []
        for begin in range(0, len(queries), _QUERIES):
            found += self._best(queries[begin : begin + _QUERIES], count)
        return found

    def _best(self, queries: Vectors, count: int) -> list[list[int]]:
        kept_places = np.empty((len(queries), 0), np.int64)
        kept_scores = np.empty((len(queries), 0), np.float32)
        for begin in range(0, len(self._vectors), self._block):
            block = np.asarray(self._vectors[begin : begin + self._block], np.float32)
            scores = _products(queries, block)
            places = np.array([highest(row, count) for row in scores])
            kept_scores = np.concatenate([kept_scores, np.take_along_axis(scores, places, 1)], axis=1)
            kept_places = np.concatenate([kept_places, places + begin], axis=1)
            order = np.argsort(-kept_scores, axis=1, kind="stable")[:, :count]  # earlier blocks come first in a tie
            kept_scores = np.take_along_axis(kept_scores, order, 1)
            kept_places = np.take_along_axis(kept_places, order, 1)
        found: list[list[int]] = kept_places.tolist()
        return found


def _products(queries: Vectors, block: Vectors) -> Vectors:
    """Return the product of each query with each vector of *block*.

    One query is bound by memory and not worth BLAS, whose threads then wait busily for more work, on the cores that the
    encoder of the next query needs: on 2 cores a search took 60 ms, not 15.
    """
    if len(queries) == 1:
        found: Vectors = np.einsum("ij,kj->ki", block, queries)
        return found
    return queries @ block.T


def write_dense(
    texts: Iterable[str],
    count: int,
    encode: Callable[[list[str]], Vectors],
    file: Path,
    *,
    dtype: Dtype,
    on_encoded: Callable[[int], None] = lambda _: None,
) -> None:
    """Encode the *count* texts, batch by batch, and write their vectors; tells after each batch how many it had.

    Raises:
        OSError: it cannot be written.

    """
    written = 0
    with file.open("wb") as out:  # not as a memory map: where the disk is full, that ends the process
        for batch in _batches(texts):
            vectors = encode(batch)
            if not written:
                header = {"descr": np.dtype(dtype).str, "fortran_order": False, "shape": (count, vectors.shape[1])}
                np.lib.format.write_array_header_1_0(out, header)
            out.write(vectors.astype(dtype).tobytes())
            written += len(batch)
            on_encoded(len(batch))


def _batches(texts: Iterable[str]) -> Iterable[list[str]]:
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
