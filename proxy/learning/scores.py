"""How probable a reranker takes documents to be relevant, outside of any request."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Protocol

from proxy.backends import CrossEncoderBackend
from proxy.engine.batcher import batches_of
from proxy.engine.loading import load

if TYPE_CHECKING:
    from collections.abc import Sequence


class Scores(Protocol):
    """Tells probabilities."""

    label: str
    """Of the model."""

    def probabilities(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return for each text the probability that it is relevant to the query.

        Raises:
            BackendError: the model failed.

        """


class RerankerScores:
    """Those of a cross-encoder of this process, by its calibration."""

    def __init__(self, model: str, *, threads: int) -> None:
        """Load ``shipped``, a folder, or what sentence-transformers finds by that name.

        Raises:
            InvalidModel: it cannot be loaded, or does not rank.

        """
        loaded = load(CrossEncoderBackend(model=model, threads=threads))
        self.label = loaded.label
        self._engine = loaded.engine
        self._calibration = loaded.calibration

    def probabilities(self, query: str, texts: Sequence[str]) -> list[float]:
        """Return for each text the probability that it is relevant to the query.

        Raises:
            BackendError: the model failed.

        """
        pairs = self._engine.encoder.encode(query, texts, self._engine.limits)
        places = batches_of(pairs.rows, self._engine.batch_tokens)
        scored = self._engine.score([[pairs.rows[place] for place in batch] for batch in places])
        best = [-math.inf] * len(texts)
        for batch, logits in zip(places, scored, strict=True):
            for place, logit in zip(batch, logits, strict=True):
                owner = pairs.document_of_row[place]
                best[owner] = max(best[owner], float(logit))
        return [self._calibration.probability(logit) for logit in best]

    def close(self) -> None:
        """Give back what the model holds."""
        self._engine.close()
