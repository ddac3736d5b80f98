"""Arms that tests own: they obey the Protocol, and fail when told to."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from proxy.arms.base import ArmAnswer
from proxy.engine.calibration import Calibration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SIGMOID = Calibration()


def overlap(query: str, document: str) -> float:
    """Return a raw score: shared words, four times over, minus three."""
    return 4.0 * len(set(query.lower().split()) & set(document.lower().split())) - 3.0


class WordArm:
    """Ranks by shared words; *fault* is raised, awaited or returned instead if there is one."""

    def __init__(self, model: str, score: Callable[[str, str], float] = overlap) -> None:
        self.model = model
        self.is_ready = self.is_well = True
        self.score_one = score
        self.fault: Exception | None = None
        self.delay_seconds = 0.0
        self.cost_dollars = 0.0
        self.limit_words = 10_000
        self.calls: list[tuple[str, list[str]]] = []

    async def start(self) -> None:
        """Nothing to load."""

    async def score(
        self,
        query: str,
        documents: Sequence[str],
        *,
        deadline: float,
        max_document_tokens: int | None = None,
        is_fresh: bool = False,
    ) -> ArmAnswer:
        del deadline, max_document_tokens, is_fresh
        self.calls.append((query, list(documents)))
        if self.delay_seconds:
            await asyncio.sleep(self.delay_seconds)
        if self.fault is not None:
            raise self.fault
        logits = tuple(self.score_one(query, document) for document in documents)
        return ArmAnswer(
            logits=logits,
            probabilities=tuple(math.nan if math.isnan(z) else _SIGMOID.probability(z) for z in logits),
            model=self.model,
            tokens=sum(len(document.split()) for document in documents),
            cost_dollars=self.cost_dollars,
        )

    async def first_too_long(self, query: str, documents: Sequence[str], *, deadline: float) -> int | None:
        del deadline
        if len(query.split()) > self.limit_words:
            return -1
        return next((i for i, text in enumerate(documents) if len(text.split()) > self.limit_words), None)

    async def close(self) -> None:
        """Nothing to give back."""
