"""Similarities from a bi-encoder, computed once for every text of a training set."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
import torch
from sentence_transformers import SentenceTransformer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray


_TOKENS = 128
"""What all-mpnet-base-v2 and its kin were trained with."""


class Teacher:
    """Cosine similarities of a sentence-transformers bi-encoder, its embeddings kept in *cache*."""

    def __init__(self, model: Path, texts: Iterable[str], cache: Path) -> None:
        distinct = sorted(set(texts))
        self._row = {text: i for i, text in enumerate(distinct)}
        key = hashlib.blake2b("\0".join([model.name, *distinct]).encode("utf-8", "surrogatepass"), digest_size=8)
        file = cache / f"teacher-{key.hexdigest()}.npy"
        if file.exists():
            self._embeddings: NDArray[np.float16] = np.load(file)
            return
        encoder = SentenceTransformer(
            str(model),
            device="cuda" if torch.cuda.is_available() else "cpu",
            local_files_only=True,
            model_kwargs={"dtype": "bfloat16"},
        )
        encoder.max_seq_length = _TOKENS
        embeddings = encoder.encode(
            distinct, batch_size=32, normalize_embeddings=True, show_progress_bar=True, convert_to_tensor=True
        )
        self._embeddings = embeddings.float().cpu().numpy().astype(np.float16)
        cache.mkdir(parents=True, exist_ok=True)
        np.save(file, self._embeddings)

    def similarities(self, query: str, passages: list[str]) -> list[float]:
        """Return the cosine of *query* with each passage, in [-1, 1]."""
        rows = self._embeddings[[self._row[text] for text in passages]].astype(np.float32)
        return [float(x) for x in rows @ self._embeddings[self._row[query]].astype(np.float32)]
