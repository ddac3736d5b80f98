"""A corpus, and bi-encoders small enough for tests: one in memory, one as a folder that sentence-transformers loads."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from proxy.offline.dense_index import Vectors

PASSAGES = {
    "bees": "A worker bee lives about six weeks in summer.",
    "honey": "Honey keeps for years in a closed jar.",
    "cars": "The automobile was parked behind the house.",
    "part": "Replace the gasket with part XK7741 before the engine is started.",
    "engine": "The engine of an automobile has to be started with care.",
    "tea": "Tea is drunk hot, and in summer cold.",
}
MEANINGS = {
    "bee": 0,
    "honey": 0,
    "insect": 0,
    "automobile": 1,
    "car": 1,
    "vehicle": 1,
    "parked": 1,
    "engine": 2,
    "motor": 2,
    "gasket": 2,
    "tea": 3,
    "beverage": 3,
    "summer": 4,
    "xk7741": 5,
    "xk9902": 5,
}
"""Words of one number mean the same to these models: part numbers are all alike to them."""
DIMENSIONS = 8


class MeaningEncoder:
    """Counts meanings; *fault* is raised instead if there is one."""

    name = "meanings"
    precision = "float32"

    def __init__(self, revision: str = "1") -> None:
        self.revision = revision
        self.fault: Exception | None = None
        self.encoded: list[str] = []
        """Passages."""

    def queries(self, texts: Sequence[str]) -> Vectors:
        if self.fault is not None:
            raise self.fault
        return self._vectors(texts)

    def passages(self, texts: Sequence[str]) -> Vectors:
        self.encoded += texts
        return self._vectors(texts)

    def _vectors(self, texts: Sequence[str]) -> Vectors:
        counts = np.zeros((len(texts), DIMENSIONS), np.float32)
        for row, text in enumerate(texts):
            counts[row, -1] = 0.1  # a text without a meaning has a direction too
            for word in text.lower().replace(".", " ").replace(",", " ").split():
                if word in MEANINGS:
                    counts[row, MEANINGS[word]] += 1
        vectors: Vectors = counts / np.linalg.norm(counts, axis=1, keepdims=True)
        return vectors


def write_jsonl(path: Path, passages: dict[str, str] = PASSAGES) -> Path:
    """Write a corpus."""
    path.write_text("".join(json.dumps({"id": name, "text": text}) + "\n" for name, text in passages.items()))
    return path


def write_model(folder: Path, *, unknown: float = 0.01) -> Path:
    """Write the same meanings as a model of sentence-transformers; to it all other words are *unknown*."""
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415 - seconds, which most tests need not wait for
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding  # noqa: PLC0415
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers  # noqa: PLC0415

    words = {"[UNK]": 0} | {word: place for place, word in enumerate(MEANINGS, start=1)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    weights = np.zeros((len(words), DIMENSIONS), np.float32)
    weights[0, -1] = unknown
    for word, meaning in MEANINGS.items():
        weights[words[word], meaning] = 1.0
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_weights=weights)], device="cpu")
    model.save(str(folder))
    return folder
