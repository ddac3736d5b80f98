"""One try of one arm: whatever happens, the outcome is a value."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import msgspec
import structlog

from proxy.arms.base import Arm, ArmAnswer, Usage
from proxy.breaker import Breaker
from proxy.doubt import Doubt
from proxy.errors import BackendError, DeadlineExceeded, NotReady, Overloaded, ProxyError
from proxy.exposure import Attempt, Outcome, Role, outcome_of
from proxy.ranking import check_scores

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


_log = structlog.get_logger(__name__)


class BoundArm(msgspec.Struct, frozen=True):
    """A back end in a role. Roles bound to one back end share its breaker."""

    arm: Arm
    kind: str
    breaker: Breaker


class Tried(msgspec.Struct, frozen=True):
    """What came of a try."""

    attempt: Attempt
    answer: ArmAnswer | None
    reason: str
    """Why it is not fine, to be read after "the candidate arm"."""
    retry_after_seconds: float | None = None

    @property
    def outcome(self) -> Outcome:
        """What it counts as."""
        return self.attempt.outcome


class Trier:
    """Calls arms behind their breakers, and judges the candidate's scores."""

    def __init__(self, arms: Mapping[Role, BoundArm], doubt: Doubt | None = None) -> None:
        self.arms = arms
        self.doubt = doubt or Doubt()

    def is_ready(self, role: Role) -> bool:
        """Tell whether a call of this role's arm has a chance."""
        bound = self.arms.get(role)
        return bound is not None and bound.arm.is_ready

    async def try_arm(
        self,
        role: Role,
        query: str,
        texts: Sequence[str],
        *,
        deadline: float,
        max_document_tokens: int | None,
        user: str = "",
        is_fresh: bool = False,
    ) -> Tried:
        """Return what the arm of *role* makes of it; raises nothing but cancellation.

        *user* says who asks, so that none can open the arm's breaker for the others; *is_fresh*: nothing may come
        from memory.
        """
        bound = self.arms[role]
        weight = sum(map(len, texts)) + len(query) * len(texts)
        started_at, began, entered = time.time(), time.perf_counter(), time.monotonic()
        try:
            if not bound.breaker.allows(entered, weight):
                return _failed(bound, role, started_at, 0.0, Outcome.BREAKER, "is spared after several failures")
            answer = await bound.arm.score(
                query, texts, deadline=deadline, max_document_tokens=max_document_tokens, is_fresh=is_fresh
            )
            check_scores(answer, len(texts))
        except ProxyError as exc:
            outcome = outcome_of(exc)
            _count(bound.breaker, outcome, entered, weight, user)
            return _failed(bound, role, started_at, time.perf_counter() - began, outcome, _reason(exc), exc)
        except Exception:  # noqa: BLE001 - whatever an arm throws costs that attempt, never the answer
            _log.exception("arm.failed", role=role, model=bound.arm.model)
            bound.breaker.failed(time.monotonic())
            return _failed(bound, role, started_at, time.perf_counter() - began, Outcome.ERROR, "failed")
        bound.breaker.succeeded(time.monotonic())
        return self._judged(bound, role, answer, started_at, time.perf_counter() - began)

    def _judged(self, bound: BoundArm, role: Role, answer: ArmAnswer, started_at: float, seconds: float) -> Tried:
        value = self.doubt.value(answer.logits) if role is Role.CANDIDATE else None
        is_doubted = value is not None and self.doubt.doubts(value)
        attempt = Attempt(
            role=role,
            model=answer.model,
            outcome=Outcome.LOW_SCORE if is_doubted else Outcome.OK,
            started_at=started_at,
            seconds=seconds,
            kind=bound.kind,
            tokens=answer.tokens,
            output_tokens=answer.output_tokens,
            cost_dollars=answer.cost_dollars,
            tokenize_seconds=answer.tokenize_seconds,
            queue_seconds=answer.queue_seconds,
            inference_seconds=answer.inference_seconds,
            statistic=value if value is not None and math.isfinite(value) else None,
        )
        return Tried(attempt, answer, "is not sure enough of its scores" if is_doubted else "")


def _count(breaker: Breaker, outcome: Outcome, began: float, weight: int, user: str) -> None:
    """Tell the breaker of a failure, as what it was; a full queue is none."""
    now = time.monotonic()
    match outcome:
        case Outcome.OVERLOADED:
            return
        case Outcome.TIMEOUT:
            breaker.timed_out(now, began, weight)
        case Outcome.INVALID:
            breaker.answered_nonsense(now, user)
        case _:
            breaker.failed(now)


def _failed(
    bound: BoundArm,
    role: Role,
    started_at: float,
    seconds: float,
    outcome: Outcome,
    reason: str,
    error: ProxyError | None = None,
) -> Tried:
    usage = (error.usage if error else None) or Usage()
    attempt = Attempt(
        role=role,
        model=bound.arm.model,
        outcome=outcome,
        started_at=started_at,
        seconds=seconds,
        kind=bound.kind,
        tokens=usage.tokens,
        output_tokens=usage.output_tokens,
        cost_dollars=usage.cost_dollars,
    )
    return Tried(attempt, None, reason, error.retry_after_seconds if error else None)


def _reason(error: ProxyError) -> str:
    """Return a failure in words that name no foreign exception."""
    match error:
        case DeadlineExceeded():
            return "did not answer in time"
        case Overloaded():
            return "is full"
        case NotReady():
            return "is not ready"
        case BackendError():
            return f"failed: {error.message}"
        case _:
            return "failed"
