"""Makes the index of a corpus."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from proxy.errors import InvalidFile, InvalidModel
from proxy.offline.corpus import read_corpus, stamp_of
from proxy.offline.dense_index import DenseIndex, write_dense
from proxy.offline.index_folder import (
    LEXICAL,
    VECTORS,
    DenseFacts,
    Manifest,
    new_data,
    read_manifest,
    sizes_of,
    write_manifest,
)
from proxy.offline.lexical_index import write_lexical
from proxy.offline.passage_store import PassageStore, write_passages

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from proxy.offline.dense_index import Dtype, Encoder, Vectors


def write_index(
    corpus: Path,
    folder: Path,
    encoder: Encoder | None = None,
    *,
    dtype: Dtype = "float32",
    on_encoded: Callable[[int, int], None] = lambda _done, _all: None,
) -> Manifest:
    """Index *corpus* into *folder*, in place of what is there once it is complete; no encoder: BM25 only.

    Vectors that the index there has of the same texts by the same model are taken over.

    Args:
        corpus: JSONL or Parquet of ``id``, ``text`` and maybe ``title``.
        folder: made where there is none.
        encoder: of the vectors.
        dtype: of the vectors on disk; float16 takes half of the room, and is slower to search.
        on_encoded: told how many of how many passages have a vector.

    Raises:
        InvalidFile: the corpus cannot be used or changed meanwhile, or the folder cannot be written.
        InvalidModel: a vector is not finite.

    """
    stamp = stamp_of(corpus)
    with new_data(folder) as data:
        count = write_passages(read_corpus(corpus), data)
        if not stamp.fits(corpus):
            raise InvalidFile(corpus, "changed while it was indexed")
        store = PassageStore.load(data)
        write_lexical((store[place].whole for place in range(count)), data / LEXICAL)
        facts = None
        if encoder is not None:
            facts = DenseFacts(encoder.name, encoder.revision, encoder.precision, dtype)
            _write_vectors(store, _Remembering(encoder, facts, folder), data, dtype, on_encoded)
        manifest = Manifest(
            schema=1,
            corpus=str(corpus.absolute()),
            stamp=stamp,
            passages=count,
            data=data.name,
            sizes=sizes_of(data),
            dense=facts,
        )
        write_manifest(folder, manifest)
    return manifest


def _write_vectors(
    store: PassageStore, encoder: _Remembering, data: Path, dtype: Dtype, on_encoded: Callable[[int, int], None]
) -> None:
    done = 0

    def told(more: int) -> None:
        nonlocal done
        done += more
        on_encoded(done, len(store))

    texts = (store[place].whole for place in range(len(store)))
    try:
        write_dense(texts, len(store), encoder.passages, data / VECTORS, dtype=dtype, on_encoded=told)
    except ValueError as exc:
        raise InvalidModel(str(exc)) from exc


class _Remembering:
    """An encoder that takes over what an index has already."""

    def __init__(self, encoder: Encoder, facts: DenseFacts, folder: Path) -> None:
        self._encoder = encoder
        self._places: dict[bytes, int] = {}
        self._known: DenseIndex | None = None
        try:
            manifest = read_manifest(folder, checks_corpus=False)
            if manifest.dense is None or _maker(manifest.dense) != _maker(facts):
                return
            data = folder / manifest.data
            store = PassageStore.load(data)
            self._known = DenseIndex.load(data / VECTORS)
            self._places = {_digest(store[place].whole): place for place in range(len(store))}
        except (InvalidFile, OSError, ValueError):
            return  # there is none yet, or it is broken: nothing can be taken over

    def passages(self, texts: list[str]) -> Vectors:
        """Return the vectors of passages, those known read and the others encoded."""
        places = [self._places.get(_digest(text)) for text in texts]
        if self._known is None or not any(place is not None for place in places):
            return self._encoder.passages(texts)
        found = self._known.vectors([place or 0 for place in places])
        new = [row for row, place in enumerate(places) if place is None]
        if new:
            found[new] = self._encoder.passages([texts[row] for row in new])
        return found


def _maker(facts: DenseFacts) -> tuple[str, str, str]:
    """Return what has to be the same for vectors to be: wherever the model lies by now."""
    return facts.revision, facts.precision, facts.dtype


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
