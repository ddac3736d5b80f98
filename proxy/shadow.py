"""Shadows: a sample of the users' requests that the other arm ranks too, to compare the two orders.

It begins after the answer was sent, and nobody waits for it: over the cap or the budget, or where the arm has no idle
moment, it is skipped and counted by reason. A shadow is no exposure, moves no breaker that users are served by, and
takes nothing of the fallback's budget.

Compared are the arms' own orders, whoever answered the user. What keeps a request from being shadowed must not depend
on how hard it is, or the pairs are no fair sample: so an order that is there already, since the fallback is the other
arm, still has to pass the same budget, cap and queue before it is taken instead of asking again.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING

import mmh3
import msgspec
import structlog

from alerts.agreement import Agreement, agreement_of
from alerts.quality import order_of
from flags.vocabulary import Arm, Reason
from proxy.arms.base import Shared
from proxy.attempts import BoundArm, Tried, Trier
from proxy.breaker import Breaker
from proxy.budget import Spend
from proxy.exposure import Attempt, Exposure, Outcome, Role

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from flags.latch import Latch
    from proxy.budget import ShadowBudget
    from proxy.quality_settings import Shadow
    from proxy.settings import Fallback

_log = structlog.get_logger(__name__)

_SEED = 0x73686164
"""Of the hash that samples users; other bits than the flag's bucket and the guard's groups."""
_LOOK_SECONDS = 0.02
"""How often an arm is looked at for an idle moment."""


class Skip(StrEnum):
    """Why a request of the sample was not shadowed."""

    TOO_FEW = "too_few"
    """Fewer than two different documents: there is one order only."""
    NO_RANKING = "no_ranking"
    """The assigned arm gave none to compare with; that it failed is counted elsewhere."""
    ROLLED_BACK = "rolled_back"
    """A rollback holds, and the candidate is left alone."""
    NOT_READY = "not_ready"
    BREAKER = "breaker"
    """The other arm fails, for users or for shadows."""
    BUDGET = "budget"
    CONCURRENCY = "concurrency"
    BUSY = "busy"
    """The other arm had no idle moment in time."""
    SHUTDOWN = "shutdown"
    FAILED = "failed"
    """A defect of ours."""


class Asked(msgspec.Struct, frozen=True):
    """A served request as far as a shadow has to repeat it. Kept in memory only while that is under way."""

    exposure: Exposure
    query: str
    texts: list[str]
    text_of: list[int | None]
    """For each document received: its place in `texts`; None for a blank one."""
    max_document_tokens: int | None
    user_id: str
    tried: list[Tried]
    """The assigned arm first; then who answered instead."""

    @property
    def arm(self) -> Arm:
        """The assigned one."""
        return self.exposure.assignment.arm


class Shadowed(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one shadow."""

    arm: Arm
    """That the user has; the other one is `attempt.role`."""
    attempt: Attempt
    was_known: bool
    """The other arm had been asked as the fallback: it took no time and cost nothing more."""
    agreement: Agreement | None
    """None: the other arm gave no order."""
    request_id: str
    """Of the user's request."""
    scores: tuple[tuple[int, float, float], ...]
    """Document as numbered in the request, the score of the user's arm, that of the other; empty without an order."""
    user_group: int
    traceparent: str | None
    """Of the user's request."""


class Shadower:
    """Offers requests to the other arm, in the background."""

    def __init__(
        self,
        settings: Shadow,
        rules: Fallback,
        trier: Trier,
        budget: ShadowBudget,
        latch: Latch,
        *,
        observers: Sequence[Callable[[Shadowed], None]],
        on_skip: Callable[[Role, Skip], None],
    ) -> None:
        """Take *trier*, of which the arms are used and the breakers are only looked at."""
        self.settings = settings
        self.budget = budget
        self._serving = trier.arms
        self._trier = Trier(_with_own_breakers(trier, rules))
        self._latch = latch
        self._observers = observers
        self._on_skip = on_skip
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.skipped: Counter[Skip] = Counter()

    @property
    def under_way(self) -> int:
        """Shadows that run or wait for an idle moment."""
        return len(self._tasks)

    def offer(self, asked: Asked) -> None:
        """Shadow a request, or count why not; returns at once and raises nothing."""
        if asked.exposure.is_forced or not self._is_sampled(asked):
            return
        role = Role.CANDIDATE if asked.arm is Arm.CONTROL else Role.CONTROL
        try:
            skip = self._skip(asked, role)
            if skip is None:
                task = asyncio.create_task(self._run(asked, role), name="shadow")
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except Exception:  # noqa: BLE001 - a shadow costs its own record, never a connection
            _log.exception("shadow.failed")
            skip = Skip.FAILED
        if skip is not None:
            self._count(role, skip)

    async def close(self) -> None:
        """Drop what is under way; nobody waits for it."""
        self._is_closed = True
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _is_sampled(self, asked: Asked) -> bool:
        settings = self.settings
        percent = settings.control_percent if asked.arm is Arm.CONTROL else settings.candidate_percent
        return is_sampled(asked.user_id, percent)

    def _skip(self, asked: Asked, role: Role) -> Skip | None:
        """Return why not to shadow; None: nothing is in the way."""
        return _unfit(asked) or self._spared(asked, role) or self._over()

    def _spared(self, asked: Asked, role: Role) -> Skip | None:
        reason = asked.exposure.assignment.reason
        is_rolled_back = self._latch.is_set or reason in {Reason.LATCHED, Reason.UNSURE}
        if is_rolled_back and role is Role.CANDIDATE and not self.settings.after_rollback:
            return Skip.ROLLED_BACK
        bound = self._serving.get(role)
        if bound is None or not bound.arm.is_well:
            return Skip.NOT_READY
        return Skip.BREAKER if bound.breaker.is_open else None

    def _over(self) -> Skip | None:
        if self._is_closed:
            return Skip.SHUTDOWN
        if self.budget.is_spent(time.time()):
            return Skip.BUDGET
        return Skip.CONCURRENCY if len(self._tasks) >= self.settings.max_concurrency else None

    async def _run(self, asked: Asked, role: Role) -> None:
        try:
            skip = await self._shadow(asked, role)
        except asyncio.CancelledError:
            self._count(role, Skip.SHUTDOWN)
            raise
        except Exception:  # noqa: BLE001 - likewise
            _log.exception("shadow.failed")
            skip = Skip.FAILED
        if skip is not None:
            self._count(role, skip)

    async def _shadow(self, asked: Asked, role: Role) -> Skip | None:
        deadline = time.monotonic() + self.settings.deadline_seconds
        if not await _is_idle_in_time(self._serving[role], deadline):
            return Skip.BUSY
        known = self._known(asked, role)
        tried = known or await self._trier.try_arm(
            role,
            asked.query,
            asked.texts,
            deadline=deadline,
            max_document_tokens=asked.max_document_tokens,
            user=asked.exposure.user_hash,
        )
        if tried.outcome is Outcome.BREAKER:
            return Skip.BREAKER
        dollars = 0.0 if known else tried.attempt.cost_dollars
        self.budget.add(Spend(requests=1, microdollars=round(dollars * 1e6)), time.time())
        found = Shadowed(
            arm=asked.arm,
            attempt=msgspec.structs.replace(tried.attempt, role=role),
            was_known=known is not None,
            agreement=_agreement(asked, tried),
            request_id=asked.exposure.request_id,
            scores=_scores(asked, tried),
            user_group=asked.exposure.user_group,
            traceparent=asked.exposure.traceparent,
        )
        for observe in self._observers:
            observe(found)
        return None

    def _known(self, asked: Asked, role: Role) -> Tried | None:
        """Return the other arm's answer where it was the fallback's; None: there is none, or it was cut short."""
        is_same = self._serving.get(Role.FALLBACK) is self._serving[role]
        others = asked.tried[1:] if is_same else ()
        return next((t for t in others if t.attempt.role is Role.FALLBACK and t.answer is not None), None)

    def _count(self, role: Role, skip: Skip) -> None:
        self.skipped[skip] += 1
        self._on_skip(role, skip)


def _unfit(asked: Asked) -> Skip | None:
    if len(asked.texts) < 2:
        return Skip.TOO_FEW
    return Skip.NO_RANKING if asked.tried[0].answer is None else None


def is_sampled(user_id: str, percent: float) -> bool:
    """Tell whether a user is of the sample: the same on every replica, and still so where the share rises."""
    place: int = mmh3.hash(user_id.encode("utf-8", "surrogatepass"), _SEED, signed=False)
    return place < percent / 100 * 2**32


def _with_own_breakers(trier: Trier, rules: Fallback) -> dict[Role, BoundArm]:
    """Return the arms behind breakers of the shadows' own, so that none opens, closes or tries those of the users."""
    own = {
        id(bound): msgspec.structs.replace(bound, breaker=Breaker(rules.breaker_failures, rules.breaker_seconds))
        for bound in trier.arms.values()
    }
    return {role: own[id(bound)] for role, bound in trier.arms.items()}


async def _is_idle_in_time(bound: BoundArm, deadline: float) -> bool:
    """Wait until the arm has nothing else to do; False: it had none such moment."""
    arm = bound.arm
    if not isinstance(arm, Shared):
        return True
    while not arm.is_idle:
        if time.monotonic() + _LOOK_SECONDS >= deadline:
            return False
        await asyncio.sleep(_LOOK_SECONDS)
    return True


def _scores(asked: Asked, other: Tried) -> tuple[tuple[int, float, float], ...]:
    """Return both scores of each document that was shown to the arms, by the user's arm's the best first."""
    own = asked.tried[0].answer
    if own is None or other.answer is None:
        return ()
    mine, theirs = own.probabilities, other.answer.probabilities
    found = [(i, mine[at], theirs[at]) for i, at in enumerate(asked.text_of) if at is not None]
    return tuple(sorted(found, key=lambda row: -row[1]))


def _agreement(asked: Asked, other: Tried) -> Agreement | None:
    own = asked.tried[0].answer
    if own is None or other.answer is None:
        return None
    orders = (order_of(own.logits), order_of(other.answer.logits))
    control, candidate = orders if asked.arm is Arm.CONTROL else orders[::-1]
    return agreement_of(control, candidate)
