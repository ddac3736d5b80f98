"""Counts exposures for the guard: what each means for the guardrails is said here and nowhere else.

Judged is the assigned arm, whoever answered. A tester's forced request, a client's own mistake and a
request whose arm was not the flag's free choice (a latch, a candidate that loads) count for nobody.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING

import msgspec
import structlog

from alerts.guardrails import COST_CEILING, EVENTS, VALUES, Event, Value
from alerts.histogram import bucket_of
from alerts.signals import LEVELS, ArmSignals, Example, Signals, Unjudged
from flags.vocabulary import FREE_REASONS, Arm, Reason
from proxy.exposure import Outcome
from proxy.feedback.token import stage_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from redis.asyncio.client import Pipeline

    from proxy.exposure import Exposure

_log = structlog.get_logger(__name__)

_FAILURES = {Outcome.TIMEOUT, Outcome.ERROR, Outcome.INVALID, Outcome.OVERLOADED, Outcome.BREAKER}
_PLACES = {event: place for place, event in enumerate(EVENTS)}
_MOST_A_MINUTE = 20
"""Requests of one user that count for the tests: one user's trouble must not look like everybody's."""
_EXAMPLES = 3
_EXAMPLE_SECONDS = 600.0
_MOST_USERS = 200_000
"""That are remembered as seen; one more and all are forgotten."""


class SignalObserver:
    """Adds up what one replica sees, and tells it with the exchange of each second."""

    def __init__(
        self,
        *,
        prefix: str,
        instance_id: str,
        p95_seconds: float,
        cost_limit_dollars: float,
        stage: Callable[[], str],
        dither: Callable[[], float] = random.random,
    ) -> None:
        self.key = f"{{{prefix}}}:signals"
        self.limits_key = f"{{{prefix}}}:limits"
        self._instance_id = instance_id
        self._p95_seconds = p95_seconds
        self._cost_ceiling = COST_CEILING * cost_limit_dollars
        self._stage = stage
        self._dither = dither
        self.signals = Signals(at=0.0, started_at=time.time())
        self.relative_limit_seconds: float | None = None
        self._minute = 0
        self._of_user: dict[str, int] = {}
        self._users: set[str] = set()

    def observe(self, exposure: Exposure) -> None:
        """Count one."""
        assignment = exposure.assignment
        if assignment.reason is Reason.NOT_READY and not exposure.is_forced:
            self.signals.not_ready += 1
        if exposure.is_forced or _is_clients_mistake(exposure):
            return
        arm = self.signals.arms[assignment.arm is Arm.CANDIDATE]
        if assignment.reason not in FREE_REASONS:
            _count_unjudged(arm.unjudged, exposure)
        else:
            self._count_judged(arm, exposure)

    def _count_judged(self, arm: ArmSignals, exposure: Exposure) -> None:
        assignment = exposure.assignment
        arm.requests += 1
        if assignment.arm is Arm.CANDIDATE:
            self.signals.candidate_at = max(self.signals.candidate_at, exposure.started_at)
        seconds = _seconds(exposure)
        bucket = bucket_of(seconds)
        arm.latency[bucket] = arm.latency.get(bucket, 0) + 1
        if exposure.outcome is Outcome.TIMEOUT:
            arm.timeouts += 1
        if exposure.has_fallen_back:
            arm.fallbacks[exposure.outcome] = arm.fallbacks.get(exposure.outcome, 0) + 1
        arm.dollars += exposure.cost_dollars
        if self._may_count(exposure.user_hash):
            self._count_events(arm, exposure, seconds)
            if assignment.arm is Arm.CANDIDATE:
                self._count_cost(exposure)
        if assignment.arm is Arm.CANDIDATE and (exposure.outcome in _FAILURES or seconds > self._p95_seconds):
            self._keep_example(exposure, seconds)
        if assignment.reason is Reason.SPLIT:
            self._count_user(arm, exposure)

    def _count_events(self, arm: ArmSignals, exposure: Exposure, seconds: float) -> None:
        group = exposure.user_group
        self._count(arm, group, Event.SLOW, is_bad=seconds > self._p95_seconds)
        if self.relative_limit_seconds is not None:
            self._count(arm, group, Event.SLOW_RELATIVE, is_bad=seconds > self.relative_limit_seconds)
        self._count(arm, group, Event.ERROR, is_bad=exposure.outcome in _FAILURES)
        # a doubt is one whoever answered: with the budget spent, the candidate itself does
        is_doubt = exposure.has_fallen_back or exposure.outcome is Outcome.LOW_SCORE
        self._count(arm, group, Event.FALLBACK, is_bad=is_doubt)

    def count_feedback(self, arm: Arm, user_hash: str, user_group: int, stage: bytes, *, is_miss: bool) -> None:
        """Count what a user chose first of a ranking of this *stage*: what was served in another counts no more."""
        if stage == stage_mark(self._stage()) and self._may_count(f"feedback:{user_hash}"):
            self._count(self.signals.arms[arm is Arm.CANDIDATE], user_group, Event.MISS, is_bad=is_miss)

    def _count(self, arm: ArmSignals, user_group: int, event: Event, *, is_bad: bool) -> None:
        place = _PLACES[event]
        arm.trials[place] += 1
        arm.group_trials[place][user_group] += 1
        if is_bad:
            arm.bad[place] += 1
            arm.group_bad[place][user_group] += 1

    def _may_count(self, user_hash: str) -> bool:
        """Tell whether another request of this user may count this minute, by when it ended: good or bad alike."""
        if (minute := int(time.monotonic() // 60)) != self._minute:
            self._minute = minute
            self._of_user.clear()
        count = self._of_user.get(user_hash, 0)
        self._of_user[user_hash] = count + 1
        return count < _MOST_A_MINUTE

    def _count_cost(self, exposure: Exposure) -> None:
        share = max(0.0, 1 - exposure.cost_dollars / self._cost_ceiling)
        level = int(share * (LEVELS - 1) + self._dither())  # as `alerts.signals.levels_of`, for one
        self.count_value(Value.COST, level, exposure.user_group)

    def count_value(self, value: Value, level: int, user_group: int | None = None) -> None:
        """Count one value; *user_group* None: it belongs to no user."""
        place = VALUES.index(value)
        levels = self.signals.values[place]
        levels[level] = levels.get(level, 0) + 1
        if user_group is not None:
            arm, stream = self.signals.arms[1], len(EVENTS) + place
            arm.group_trials[stream][user_group] += 1
            arm.group_bad[stream][user_group] += level / (LEVELS - 1)

    def _keep_example(self, exposure: Exposure, seconds: float) -> None:
        trace_id = (exposure.traceparent or "").split("-")[1:2]
        example = Example(
            at=exposure.started_at,
            request_id=exposure.request_id,
            trace_id=trace_id[0] if trace_id else "",
            seconds=round(seconds, 6),
            outcome=exposure.outcome,
        )
        recent = [each for each in self.signals.examples if example.at - each.at < _EXAMPLE_SECONDS]
        self.signals.examples = sorted([*recent, example], key=lambda each: -each.seconds)[:_EXAMPLES]

    def _count_user(self, arm: ArmSignals, exposure: Exposure) -> None:
        stage = self._stage()
        if stage != self.signals.stage or len(self._users) >= _MOST_USERS:
            self.signals.stage = stage
            self._users.clear()
        if exposure.user_hash not in self._users:
            self._users.add(exposure.user_hash)
            arm.new_users += 1

    def ask(self, pipe: Pipeline) -> None:
        """Tell the sums, and ask for the limit that control's latency sets."""
        self.signals.at = time.time()
        pipe.hset(self.key, self._instance_id, msgspec.json.encode(self.signals).decode())
        pipe.get(self.limits_key)

    def take(self, answers: Sequence[str | None]) -> None:
        """Take the limit."""
        text = answers[1]
        try:
            self.relative_limit_seconds = float(text) if text else None
        except ValueError:
            _log.warning("guard.limit_not_read")


def _count_unjudged(arm: Unjudged, exposure: Exposure) -> None:
    arm.requests += 1
    arm.fallbacks += exposure.has_fallen_back
    arm.dollars += exposure.cost_dollars
    bucket = bucket_of(exposure.seconds)
    arm.latency[bucket] = arm.latency.get(bucket, 0) + 1


def _is_clients_mistake(exposure: Exposure) -> bool:
    return 400 <= exposure.status < 500 and exposure.outcome is not Outcome.OVERLOADED


def _seconds(exposure: Exposure) -> float:
    """Return the latency that the assigned arm answers for.

    A doubtful ranking is sent to the fallback on purpose, and how often is a guardrail of its own: the arm
    answers for its own time. After a failure it answers for all of the time that the caller waited.
    """
    if exposure.outcome is Outcome.LOW_SCORE and exposure.attempts:
        return exposure.attempts[0].seconds
    return exposure.seconds
