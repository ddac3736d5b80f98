"""Those who want to know of every served request, and the promise that none of them can hurt an answer."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING, Protocol

import structlog

from flags.vocabulary import Arm
from proxy.budget import Spend
from proxy.exposure import Outcome, Role

if TYPE_CHECKING:
    from collections.abc import Sequence

    from proxy.budget import FallbackBudget
    from proxy.events.records import ServedRanking
    from proxy.exposure import Exposure

_log = structlog.get_logger(__name__)


class Observer(Protocol):
    """Takes note of exposures. Must not block."""

    def observe(self, exposure: Exposure) -> None:
        """Take note of one."""


class RankingObserver(Protocol):
    """Takes note of rankings with their texts. Must not block, and answers for what it keeps of them."""

    def observe_ranking(self, ranking: ServedRanking) -> None:
        """Take note of one."""


class Observers:
    """Hands an exposure to each in turn; one that fails is counted and passed over."""

    def __init__(self, observers: Sequence[Observer], ranking_observers: Sequence[RankingObserver] = ()) -> None:
        self._observers = observers
        self._ranking_observers = ranking_observers
        self.failures: Counter[str] = Counter()

    def observe(self, exposure: Exposure) -> None:
        """Hand one over to all."""
        for observer in self._observers:
            try:
                observer.observe(exposure)
            except Exception:  # noqa: BLE001 - an observer costs its own record, never the answer
                self._failed(observer)

    def observe_ranking(self, ranking: ServedRanking) -> None:
        """Hand over one with its texts, to those who are made for that."""
        for observer in self._ranking_observers:
            try:
                observer.observe_ranking(ranking)
            except Exception:  # noqa: BLE001 - likewise
                self._failed(observer)

    def _failed(self, observer: object) -> None:
        name = type(observer).__name__
        self.failures[name] += 1
        _log.exception("observer.failed", observer=name)


class LogObserver:
    """One line a request; a user appears as a salted hash, query and documents never."""

    def observe(self, exposure: Exposure) -> None:
        """Write the line."""
        assignment = exposure.assignment
        _log.info(
            "rerank.served",
            request_id=exposure.request_id,
            arm=assignment.arm,
            served_by=exposure.served_by,
            outcome=exposure.outcome,
            reason=assignment.reason,
            share_percent=assignment.share_percent,
            bucket=assignment.bucket,
            status=exposure.status,
            error=exposure.error_code,
            route=exposure.route,
            dialect=exposure.dialect,
            model=exposure.model,
            documents=exposure.documents,
            seconds=round(exposure.seconds, 6),
            cost_dollars=round(exposure.cost_dollars, 8),
            statistic=None if (statistic := exposure.statistic) is None else round(statistic, 6),
            user=exposure.user_hash,
            user_source=exposure.user_source,
        )


class BudgetObserver:
    """Counts what the candidate's requests cost in fallbacks: dollars of all, the share of users' only."""

    def __init__(self, budget: FallbackBudget) -> None:
        self._budget = budget

    def observe(self, exposure: Exposure) -> None:
        """Count one."""
        if exposure.assignment.arm is not Arm.CANDIDATE:
            return
        is_users = not exposure.is_forced
        fallbacks = [attempt for attempt in exposure.attempts if attempt.role is Role.FALLBACK]
        self._budget.add(
            Spend(
                requests=int(is_users),
                low_scores=int(is_users and bool(fallbacks) and exposure.outcome is Outcome.LOW_SCORE),
                microdollars=round(sum(attempt.cost_dollars for attempt in fallbacks) * 1e6),
            ),
            time.time(),
        )
