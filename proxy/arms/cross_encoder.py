"""The candidate: a cross-encoder in this process."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from proxy.arms.base import ArmAnswer
from proxy.engine.batcher import Batcher
from proxy.engine.cache import ScoreCache, ScoredPair
from proxy.engine.loading import LoadedModel, load
from proxy.errors import NotReady

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from proxy.engine.batcher import Scored
    from proxy.engine.calibration import Calibration
    from proxy.settings import CrossEncoderBackend


class CrossEncoderArm:
    """Scores pairs, remembering those it has seen."""

    def __init__(
        self,
        settings: CrossEncoderBackend,
        loader: Callable[[CrossEncoderBackend], LoadedModel] = load,
        *,
        calibrations: Mapping[str, Calibration] | None = None,
    ) -> None:
        """Take *calibrations* by label: the one of the model that is loaded replaces its own."""
        self._settings = settings
        self._calibrations = calibrations or {}
        self._loader = loader
        self._loaded: LoadedModel | None = None
        self._batcher: Batcher | None = None
        self._cache: ScoreCache | None = None

    @property
    def model(self) -> str:
        """Name, revision and engine; the configured name until loaded."""
        return self._loaded.label if self._loaded else self._settings.model

    @property
    def is_ready(self) -> bool:
        """Whether the model is loaded and warm."""
        return self._batcher is not None

    @property
    def is_well(self) -> bool:
        """Whether the model answers: what its thread saw last."""
        return self._batcher is not None and self._batcher.is_well

    @property
    def loaded(self) -> LoadedModel:
        """The model.

        Raises:
            NotReady: it is not loaded yet.

        """
        if self._loaded is None:
            raise NotReady("the model is still loading", retry_after_seconds=1)
        return self._loaded

    @property
    def waiting(self) -> int:
        """Rows that wait for the model or are worked on."""
        return self._batcher.waiting if self._batcher else 0

    @property
    def is_idle(self) -> bool:
        """Whether the model has nothing to do: what comes next waits for one round of it at the most."""
        return self._batcher is not None and not self._batcher.waiting

    async def start(self) -> None:
        """Load and warm up, off the event loop."""
        loaded = await asyncio.to_thread(self._loader, self._settings)
        loaded.calibration = self._calibrations.get(loaded.label, loaded.calibration)
        self._loaded = loaded
        self._cache = ScoreCache(self._loaded.revision, self._settings.cache_entries)
        self._batcher = Batcher(self._loaded.engine, queue_documents=self._settings.queue_documents)

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        deadline: float,
        max_document_tokens: int | None = None,
        is_fresh: bool = False,
    ) -> ArmAnswer:
        """Score each document, from memory where the pair was scored before."""
        loaded, cache, batcher = self.loaded, self._cache, self._batcher
        if cache is None or batcher is None:
            raise NotReady("the model is still loading", retry_after_seconds=1)
        keys = [cache.key(query, document, max_document_tokens) for document in documents]
        found = {} if is_fresh else {i: pair for i, key in enumerate(keys) if (pair := cache.get(key)) is not None}
        missing = [i for i in range(len(keys)) if i not in found]
        scored = None
        if missing:
            scored = await batcher.score(
                query, [documents[i] for i in missing], deadline=deadline, max_document_tokens=max_document_tokens
            )
            for i, pair in zip(missing, _pairs(scored), strict=True):
                found[i] = pair
                if math.isfinite(pair.logit):
                    cache.put(keys[i], pair)
        pairs = [found[i] for i in range(len(keys))]
        return ArmAnswer(
            logits=tuple(pair.logit for pair in pairs),
            probabilities=tuple(loaded.calibration.probability(pair.logit) for pair in pairs),
            model=loaded.label,
            tokens=sum(pair.tokens for pair in pairs),
            tokenize_seconds=scored.tokenize_seconds if scored else 0.0,
            queue_seconds=scored.queue_seconds if scored else 0.0,
            inference_seconds=scored.inference_seconds if scored else 0.0,
            warnings=_warnings(pairs),
        )

    async def first_too_long(self, query: str, documents: Sequence[str], *, deadline: float) -> int | None:
        """Return the index of the first document that would be cut, -1 for the query, None if all fit."""
        if self._batcher is None:
            raise NotReady("the model is still loading", retry_after_seconds=1)
        return await self._batcher.first_too_long(query, documents, deadline=deadline)

    async def close(self) -> None:
        """Finish what waits."""
        if self._batcher is not None:
            await self._batcher.close()
            self._batcher = None


def _pairs(scored: Scored) -> Iterator[ScoredPair]:
    for logit, tokens, was_cut in zip(scored.logits, scored.tokens, scored.was_cut, strict=True):
        yield ScoredPair(logit, tokens, was_cut, scored.query_was_cut)


def _warnings(pairs: Sequence[ScoredPair]) -> tuple[str, ...]:
    warnings = []
    if cut := sum(pair.was_cut for pair in pairs):
        warnings.append(f"truncated {cut} document{'s' if cut > 1 else ''} to what the model reads")
    if any(pair.query_was_cut for pair in pairs):
        warnings.append("truncated the query to what the model reads")
    return tuple(warnings)
