"""The candidate: a cross-encoder in this process."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from proxy.arms.base import ArmAnswer
from proxy.engine.batcher import Batcher
from proxy.engine.cache import ScoreCache
from proxy.engine.loading import LoadedModel, load
from proxy.errors import NotReady

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from proxy.engine.batcher import Scored
    from proxy.settings import CrossEncoderBackend


class CrossEncoderArm:
    """Scores pairs, remembering those it has seen."""

    def __init__(
        self, settings: CrossEncoderBackend, loader: Callable[[CrossEncoderBackend], LoadedModel] = load
    ) -> None:
        self._settings = settings
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
        """Documents that wait for the model or are worked on."""
        return self._batcher.waiting if self._batcher else 0

    async def start(self) -> None:
        """Load and warm up, off the event loop."""
        self._loaded = await asyncio.to_thread(self._loader, self._settings)
        self._cache = ScoreCache(self._loaded.revision, self._settings.cache_entries)
        self._batcher = Batcher(self._loaded.engine, queue_documents=self._settings.queue_documents)

    async def score(
        self, query: str, documents: Sequence[str], *, deadline: float, max_document_tokens: int | None = None
    ) -> ArmAnswer:
        """Score each document, from memory where the pair was scored before."""
        loaded, cache, batcher = self.loaded, self._cache, self._batcher
        if cache is None or batcher is None:
            raise NotReady("the model is still loading", retry_after_seconds=1)
        keys = [cache.key(query, document, max_document_tokens) for document in documents]
        logits = [cache.get(key) for key in keys]
        missing = [i for i, logit in enumerate(logits) if logit is None]
        scored = None
        if missing:
            scored = await batcher.score(
                query, [documents[i] for i in missing], deadline=deadline, max_document_tokens=max_document_tokens
            )
            for i, logit in zip(missing, scored.logits, strict=True):
                logits[i] = logit
                if logit - logit == 0:  # neither infinite nor NaN
                    cache.put(keys[i], logit)
        found = tuple(logit for logit in logits if logit is not None)
        return ArmAnswer(
            logits=found,
            probabilities=tuple(map(loaded.calibration.probability, found)),
            model=loaded.label,
            tokens=scored.tokens if scored else 0,
            tokenize_seconds=scored.tokenize_seconds if scored else 0.0,
            queue_seconds=scored.queue_seconds if scored else 0.0,
            inference_seconds=scored.inference_seconds if scored else 0.0,
            warnings=_warnings(scored) if scored else (),
        )

    def first_too_long(self, query: str, documents: Sequence[str]) -> int | None:
        """Return the index of the first document that would be cut, -1 for the query, None if all fit."""
        engine = self.loaded.engine
        return engine.encoder.first_too_long(query, documents, engine.limits)

    async def close(self) -> None:
        """Finish what waits."""
        if self._batcher is not None:
            await self._batcher.close()
            self._batcher = None


def _warnings(scored: Scored) -> tuple[str, ...]:
    warnings = []
    if cut := sum(scored.was_cut):
        warnings.append(f"truncated {cut} document{'s' if cut > 1 else ''} to what the model reads")
    if scored.query_was_cut:
        warnings.append("truncated the query to what the model reads")
    return tuple(warnings)
