"""What an operator asks first, of one process and of the rollout that it is part of."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from proxy.arms.llm import LlmArm

if TYPE_CHECKING:
    from proxy.parts import Parts


def status_of(parts: Parts) -> dict[str, Any]:
    """Return what an operator asks first."""
    now = time.time()
    state = parts.gate.state
    spend = parts.budget.last_hour(now)
    return {
        "version": parts.version,
        "instance_id": parts.instance_id,
        "flag": {
            "key": state.flag,
            "source": state.source,
            "rollout": state.rollout,
            "age_seconds": state.age_seconds(now),
            "error": state.error,
        },
        "rollout": parts.rollout.status(),
        "guard": _guard(parts, now),
        "roles": {
            role.value: {
                "model": bound.arm.model,
                "is_ready": bound.arm.is_ready,
                "is_breaker_open": bound.breaker.is_open,
            }
            for role, bound in parts.trier.arms.items()
        },
        "fallback": {
            "statistic": parts.trier.doubt.statistic,
            "threshold": parts.trier.doubt.threshold,
            "last_hour": spend,
            "budget_exceeded": parts.budget.exceeded(now),
            "without_a_price": [a.model for a in parts.arms.values() if isinstance(a, LlmArm) and not a.has_price],
        },
        "shadow": parts.shadow_tally.status(parts.shadower) if parts.shadower else None,
        "feedback": parts.feedback.tally.status() if parts.feedback else None,
        "store": {"embedded": parts.embedded is not None, "error": parts.exchange.error},
        "events": parts.events.status(),
        "search": parts.search.status() if parts.search else None,
        "in_flight": parts.in_flight.count,
        "checks": parts.readiness(),
    }


def _guard(parts: Parts, now: float) -> dict[str, Any] | None:
    """Return the verdict that stands; None: the guard is off, or nothing was judged yet."""
    report = parts.guard.report if parts.guard else None
    if report is None:
        return None
    return {
        "verdict": report.judgement.verdict,
        "reason": report.judgement.reason,
        "judged_seconds_ago": max(0.0, now - report.at),
        "alerts_firing": sum(not alert.is_over for alert in parts.alerting.alarms.active.values()),
        "receivers": len(parts.alerting.notifiers),
        "probes_error": parts.prober.error if parts.prober else None,
    }
