"""What is measured of shadows, apart from what is measured of the users' requests; and what `status` says of them."""

from __future__ import annotations

import math
import random
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from alerts.guardrails import Value
from alerts.signals import levels_of
from proxy.evaluations import Evaluations

if TYPE_CHECKING:
    from collections.abc import Callable

    from proxy.exposure import Role
    from proxy.otel import OpenTelemetry
    from proxy.shadow import Shadowed, Shadower, Skip

_MOST_REMEMBERED = 20_000
"""Pairs of the last minute."""


class ShadowMetrics:
    """Every instrument of the shadows is made here. No query, document or user in any."""

    def __init__(self, telemetry: OpenTelemetry) -> None:
        meter = telemetry.meters.get_meter("rerank-canary")
        self._requests = meter.create_counter("rerank.shadow.requests", "{request}", "Shadows by who was asked")
        self._skipped = meter.create_counter("rerank.shadow.skipped", "{request}", "Of the sample, but not shadowed")
        self._duration = meter.create_histogram("rerank.shadow.duration", "s", "Calls of an arm for a shadow")
        self._cost = meter.create_counter("rerank.shadow.cost", "USD", "Dollars that shadows cost")
        self._overlap = meter.create_histogram(
            "rerank.overlap",
            "1",
            "How far control and candidate agree on a user's request, by the user's arm",
            explicit_bucket_boundaries_advisory=[n / 20 for n in range(21)],
        )
        self._evaluations = Evaluations(telemetry)

    def skipped(self, role: Role, skip: Skip) -> None:
        """Take note of a request of the sample that was not shadowed."""
        self._skipped.add(1, {"rerank.role": role.value, "rerank.skip.reason": skip.value})

    def shadowed(self, found: Shadowed) -> None:
        """Take note of one shadow."""
        attempt = found.attempt
        labels = {"rerank.role": attempt.role.value, "rerank.outcome": attempt.outcome.value}
        self._requests.add(1, labels)
        if not found.was_known:
            self._duration.record(attempt.seconds, labels)
            if attempt.cost_dollars:
                self._cost.add(attempt.cost_dollars, {"rerank.role": attempt.role.value})
        if found.agreement is None:
            return
        for metric in found.agreement.__struct_fields__:
            if (value := getattr(found.agreement, metric)) is not None:
                self._overlap.record(value, {"rerank.arm": found.arm.value, "rerank.overlap.metric": metric})
        labels = {"rerank.arm": found.arm.value}
        self._evaluations.emit("rerank.overlap.rbo", found.agreement.rbo, labels, traceparent=found.traceparent)


class OverlapCount:
    """Hands the overlap of each pair to the guard's counts."""

    def __init__(self, count: Callable[[Value, int, int], None], dither: Callable[[], float] = random.random) -> None:
        """Take *count*, which is told a value's level and the user's group."""
        self._count = count
        self._dither = dither

    def shadowed(self, found: Shadowed) -> None:
        """Count one pair; not where so few documents leave only one answer."""
        overlap = found.agreement.overlap_at_5 if found.agreement else None
        if overlap is not None:
            level = int(levels_of(np.array(overlap), np.array(self._dither())))
            self._count(Value.OVERLAP, level, found.user_group)


class ShadowTally:
    """What this replica's shadows came to, for people."""

    def __init__(self) -> None:
        self._at: deque[float] = deque(maxlen=_MOST_REMEMBERED)
        self._pairs = 0
        self._sum = self._squares = 0.0

    def shadowed(self, found: Shadowed) -> None:
        """Add one."""
        self._at.append(time.monotonic())
        overlap = found.agreement.overlap_at_5 if found.agreement else None
        if overlap is not None:
            self._pairs += 1
            self._sum += overlap
            self._squares += overlap**2

    def status(self, shadower: Shadower) -> dict[str, Any]:
        """Return what an operator asks of shadows; dollars are those of all replicas, the rest is this one's."""
        now = time.time()
        since = time.monotonic() - 60
        spend = shadower.budget.last_hour(now)
        mean = self._sum / self._pairs if self._pairs else None
        return {
            "control_percent": shadower.settings.control_percent,
            "candidate_percent": shadower.settings.candidate_percent,
            "last_minute": sum(at >= since for at in self._at),
            "under_way": shadower.under_way,
            "dollars_last_hour": spend.microdollars / 1e6,
            "max_dollars_per_hour": shadower.settings.max_dollars_per_hour,
            "is_budget_spent": shadower.budget.is_spent(now),
            "skipped": dict(shadower.skipped),
            "overlap_at_5": {
                "pairs": self._pairs,
                "mean": mean,
                "standard_error": self._standard_error(),
                "expected": shadower.settings.expected_overlap,
            },
        }

    def _standard_error(self) -> float | None:
        n = self._pairs
        if n < 2:
            return None
        variance = max(0.0, (self._squares - self._sum**2 / n) / (n - 1))
        return math.sqrt(variance / n)
